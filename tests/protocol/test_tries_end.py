"""How an LSP drops an advance, or ends one try of it: what is remembered, and who hears of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    BUYER,
    NEIGHBOUR,
    Moments,
    advance_of,
    channel_of,
    of_lsp,
    purchase,
    records,
    said,
    wishes,
    with_advance,
    with_channel,
    with_next,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol.advancing import ending
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

BOTH: Final = (BUYER, NEIGHBOUR)
WHY: Final = "nothing comes of it"


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def asked(moments: Moments) -> Factory:
    """Return a factory that asked its clients."""
    return moments.at(m.AdvanceAgree).factory


@pytest.fixture(scope="module")
def committed(moments: Moments) -> Factory:
    """Return a factory that gave its clients something to sign."""
    return moments.at(m.AdvanceSign).factory


@pytest.fixture(scope="module")
def signed(moments: Moments) -> Factory:
    """Return a factory that has the new state."""
    return moments.at(m.AdvanceDone).factory


def given_up(factory: Factory, **how: Any) -> Decision[Factory]:
    give_up = partial(ending.give_up, advance=advance_of(factory), reason=WHY, **how)
    return of_lsp(factory, give_up)


def node_id_of(factory: Factory, client: int) -> bytes:
    return factory.attempt.seats[client - 1].node_id


def test_of_several_advances_each_is_found_by_its_name(committed: Factory) -> None:
    mine = advance_of(committed)
    other = replace(mine, advance_id=bytes(32))
    for advances in ({"a": other, "b": mine}, {"a": mine, "b": other}):
        both = changed(committed, advances=Map(advances))
        for one in (mine, other):
            assert ending.advance_named(both, one.advance_id) is one
        assert ending.advance_named(both, b"\x01" * 32) is None
        assert ending.advances_in_order(both) == [advances["a"], advances["b"]]


# What is dropped


def test_what_nobody_can_be_bound_by_is_dropped_and_its_clients_are_told(asked: Factory) -> None:
    ways: tuple[tuple[dict[str, Any], bool, tuple[int, ...], tuple[int, ...]], ...] = (
        ({}, False, (), BOTH),
        ({"culprits": (NEIGHBOUR,)}, False, (), BOTH),
        ({"culprits": (NEIGHBOUR,), "is_fault": True}, True, (), BOTH),
        ({"culprits": (NEIGHBOUR,), "is_late": True}, False, (NEIGHBOUR,), BOTH),
        ({"gone": {node_id_of(asked, NEIGHBOUR)}}, False, (), (BUYER,)),
    )
    for how, is_fault, holdouts, told in ways:
        decision = given_up(asked, **how)
        (dropped,) = decision.records
        assert isinstance(dropped, ar.AdvanceDropped)
        assert (dropped.reason, dropped.is_fault, dropped.holdouts) == (WHY, is_fault, holdouts)
        assert dropped.culprits == tuple(
            node_id_of(asked, client) for client in how.get("culprits", ())
        )
        sent = wishes(decision, fx.Send)
        assert [one.node_id for one in sent] == [node_id_of(asked, client) for client in told]
        assert {type(one.message) for one in sent} == {m.AdvanceAbort}
        assert not decision.state.advances
    unasked = given_up(with_advance(asked, session=None, is_asking=True))
    assert records(unasked, ar.AdvanceDropped)
    assert not wishes(unasked, fx.Send)
    (word, *_) = said(given_up(asked, told="less than why"))
    assert isinstance(word, m.AdvanceAbort)
    assert word.reason == "less than why"


def test_a_fault_is_its_clients_and_no_delay_unless_it_is_said_so(asked: Factory) -> None:
    fault = partial(ending.give_up_for_fault, advance=advance_of(asked), client=BUYER, what=WHY)
    for give_up, holdouts in ((fault, ()), (partial(fault, is_late=True), (BUYER,))):
        (dropped,) = of_lsp(asked, give_up).records
        assert isinstance(dropped, ar.AdvanceDropped)
        assert (dropped.reason, dropped.is_fault) == (f"client 1: {WHY}", True)
        assert dropped.culprits == (node_id_of(asked, BUYER),)
        assert dropped.holdouts == holdouts


def free(factory: Factory) -> Factory:
    """Return a factory of whose clients both said that they signed nothing."""
    for client in BOTH:
        factory = with_next(factory, client, peer_stage=0)
    return factory


BOUND: Final[dict[str, Callable[[Factory], Factory]]] = {
    "it said nothing": lambda one: with_next(one, BUYER, peer_stage=-1),
    "it said that it signed": lambda one: with_next(one, BUYER, peer_stage=1),
    "we heard its signature": lambda one: with_next(one, BUYER, is_dual=True),
    "the state is signed": lambda one: with_advance(one, is_signed=True),
}


def test_what_was_given_to_clients_is_dropped_once_each_said_that_it_signed_nothing(
    committed: Factory,
) -> None:
    """Or where its channel has no next funding any more: the chain has decided there."""
    assert records(given_up(free(committed)), ar.AdvanceDropped)
    over = with_channel(free(committed), BUYER, next=None)
    assert records(given_up(over), ar.AdvanceDropped)


def test_what_is_not_committed_is_dropped_whatever_its_clients_said(moments: Moments) -> None:
    neighbour = moments.market.pump.client_at(NEIGHBOUR)
    agreed = moments.at(m.AdvanceAgree, neighbour).factory
    assert channel_of(agreed, BUYER).next is not None
    assert records(given_up(agreed), ar.AdvanceDropped)


def test_a_store_that_was_restored_binds_nobody_as_long_as_ours_is_the_newest(
    committed: Factory,
) -> None:
    silent = with_next(free(committed), BUYER, peer_stage=-1)
    restored = with_channel(silent, BUYER, peer_is_behind=True)
    assert not records(given_up(silent), ar.AdvanceDropped)
    assert records(given_up(restored), ar.AdvanceDropped)
    both = with_channel(restored, BUYER, mark=StoreMark())
    assert not records(given_up(both), ar.AdvanceDropped)


def test_what_ends_between_two_tries_its_buyer_hears_of_by_beginning_anew(
    asked: Factory, committed: Factory
) -> None:
    between = with_advance(free(committed), session=None, is_asking=True)
    buyer = node_id_of(between, BUYER)
    assert hung_up(given_up(between)) == [(buyer, True)]
    assert hung_up(given_up(between, gone={buyer})) == []
    assert hung_up(given_up(free(committed))) == [], "they are told in the try"
    assert hung_up(given_up(with_advance(asked, session=None, is_asking=True))) == []


@pytest.mark.parametrize("why", BOUND)
def test_what_somebody_may_be_bound_by_is_not_dropped(committed: Factory, why: str) -> None:
    decision = given_up(BOUND[why](free(committed)))
    (ended,) = decision.records
    assert isinstance(ended, ar.AdvanceSessionEnded)
    assert ended.holdouts == ()
    assert decision.state.advances
    assert not wishes(decision, fx.Send), "nobody is told that nothing comes of it"


# A try that ends


def hung_up(decision: Decision[Factory]) -> list[tuple[bytes, bool]]:
    parted = wishes(decision, fx.Disconnect)
    assert all(one.reason == WHY for one in parted)
    return [(one.node_id, one.is_ours) for one in parted]


def test_whoever_stands_still_for_a_try_begins_anew_once_it_is_over(committed: Factory) -> None:
    buyer, neighbour = (node_id_of(committed, client) for client in BOTH)
    assert hung_up(given_up(committed)) == [(buyer, True), (neighbour, True)]
    blamed = given_up(committed, culprits=(BUYER,))
    assert hung_up(blamed) == [(buyer, False), (neighbour, True)]
    assert [one.holdouts for one in records(blamed, ar.AdvanceSessionEnded)] == [()]
    late = given_up(committed, culprits=(BUYER,), is_late=True)
    assert [one.holdouts for one in records(late, ar.AdvanceSessionEnded)] == [(BUYER,)]
    assert hung_up(given_up(committed, gone={neighbour})) == [(buyer, True)]
    for goes_on in (with_next(committed, BUYER, is_dual=True), with_no_next(committed)):
        assert hung_up(given_up(goes_on)) == [(neighbour, True)]
    about_to = with_advance(committed, session=None, is_asking=True)
    assert hung_up(given_up(about_to)) == [], "nobody was asked"
    assert hung_up(given_up(about_to, culprits=(BUYER,))) == [(buyer, False)]
    assert given_up(with_advance(committed, session=None)).is_nothing


def with_no_next(factory: Factory) -> Factory:
    return with_channel(factory, BUYER, next=None)


def test_with_a_try_go_its_deadline_and_the_nonces_that_no_channel_uses(
    asked: Factory, committed: Factory, signed: Factory
) -> None:
    for factory in (asked, committed):
        advance = advance_of(factory)
        assert advance.session is not None
        decision = given_up(factory)
        (cleared,) = wishes(decision, fx.ClearDeadline)
        assert cleared.deadline == fx.AdvanceDeadline(advance_id=advance.advance_id)
        (dropped,) = wishes(decision, fx.DropPools)
        in_use = {one for client in BOTH for one in channel_of(factory, client).pool_ids}
        assert set(dropped.pool_ids) == set(advance.session.pool_ids) - in_use
        assert advance.session.factory_pool.pool_id in dropped.pool_ids
    over = of_lsp(signed, lambda turn: ending.drop_pools(turn, advance_of(signed)))
    assert over.is_nothing
