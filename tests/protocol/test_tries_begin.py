"""When an LSP begins another try of an advance, when it asks for its nonces, and when it waits."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.protocol.advance_moments import (
    BUYER,
    NEIGHBOUR,
    Moments,
    advance_of,
    channel_of,
    factory_later,
    here,
    of_lsp,
    purchase,
    records,
    wishes,
    with_advance,
    with_channel,
    with_next,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.factory.leaf import advance_height_max
from cromford.protocol.advancing import agreeing, sessions
from cromford.protocol.facts import Facts
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import Stall
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

STALE: Final = "no block for hours"
Change = Callable[[Factory], Factory]


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def half(moments: Moments) -> Factory:
    """Return a factory between two tries: the buyer is bound, and its neighbour is not."""
    found = moments.at(m.AdvanceSign, moments.market.pump.client_at(NEIGHBOUR)).factory
    return with_advance(found, session=None)


@pytest.fixture(scope="module")
def bound(moments: Moments) -> Factory:
    """Return a factory between two tries: both are bound, and their state is not signed."""
    found = moments.at(m.AdvanceDone).factory
    return with_advance(found, is_signed=False, has_poisons=False)


@pytest.fixture(scope="module")
def asking(moments: Moments) -> Factory:
    """Return a factory that asks its clients as soon as its channels are quiet."""
    return with_advance(moments.at(m.AdvancePropose).factory, session=None, is_asking=True)


def resumed(factory: Factory, facts: Facts | None = None) -> Decision[Factory]:
    advance, facts = advance_of(factory), facts or here(factory)
    return of_lsp(factory, lambda turn: agreeing.resume(turn, advance), facts)


def begins(factory: Factory, facts: Facts | None = None) -> bool:
    """Say whether another try begins; where it does not, nothing is done at all."""
    decision = resumed(factory, facts)
    if decision.is_nothing:
        return False
    advance_id = advance_of(factory).advance_id
    (begun,) = decision.records
    assert isinstance(begun, ar.AdvanceResumed)
    assert begun.advance_id == advance_id
    (waits,) = wishes(decision, fx.SetDeadline)
    assert waits.deadline == fx.AdvanceDeadline(advance_id=advance_id)
    return True


# Another try


def test_another_try_begins_while_none_is_under_way(moments: Moments, half: Factory) -> None:
    assert begins(half)
    assert not begins(moments.at(m.AdvanceSign).factory), "one is"
    assert not begins(with_advance(half, is_asking=True)), "one is about to be"
    assert not begins(with_advance(half, is_committed=False)), "nobody can be bound"


def landed(factory: Factory, state_index: int) -> Factory:
    """Return a factory that sees a state of the leaf in a block, and nothing above it."""
    return factory_later(factory, 1, states_of(factory)[state_index])


def states_of(factory: Factory) -> list[Any]:
    leaf = sessions.leaf_of(factory, advance_of(factory))
    return [state.tx for state in leaf.states]


def kicked_off(factory: Factory) -> Factory:
    return factory_later(factory, 1, factory.attempt.leaf(BUYER).kickoff.tx)


def test_what_a_try_could_bring_is_signatures_of_the_state_or_poisons_that_may_leave(
    bound: Factory,
) -> None:
    assert begins(bound)
    assert begins(kicked_off(bound)), "the state is needed most now"
    for state_index in (0, 1):
        assert not begins(landed(bound, state_index)), "the chain has decided"
    signed = with_advance(bound, is_signed=True)
    assert begins(signed), "its poisons are missing"
    assert not begins(kicked_off(signed)), "they would not be sent"
    assert not begins(signed, here(signed, stale=STALE)), "nor while it may be so"
    assert not begins(with_advance(signed, has_poisons=True)), "nothing is missing"


def with_state(factory: Factory, client: int, **changes: Any) -> Factory:
    state = channel_of(factory, client).state
    return with_channel(factory, client, state=changed(state, **changes))


def stalled(factory: Factory, client: int) -> Factory:
    stall = Stall(n_missed=2, height=factory.chain.height)
    return changed(factory, stalls=factory.stalls.set(client, stall))


def test_everybody_has_to_be_here_who_has_to_sign(half: Factory, bound: Factory) -> None:
    """A client is connected before its channel is: only then its latest numbers are known."""
    for factory in (half, bound):
        for client in (BUYER, NEIGHBOUR):
            assert not begins(factory, here(factory, client))
            assert not begins(with_state(factory, client, is_connected=False))
            assert not begins(stalled(factory, client)), "it let deadlines pass"
            restored = with_channel(factory, client, peer_is_behind=True)
            assert not begins(restored), "a restored store signs no state"


def test_who_is_bound_signs_though_its_channel_failed_and_who_is_not_does_not(
    half: Factory, bound: Factory
) -> None:
    """A leaf in which a channel failed is left: nobody else is bound to its next state."""
    over = with_channel(bound, BUYER, failure="it broke")
    assert begins(over)
    assert begins(with_state(over, BUYER, is_connected=False)), "it is taken up no more"
    assert not begins(over, here(over, BUYER))
    for client in (BUYER, NEIGHBOUR):
        assert not begins(with_channel(half, client, failure="it broke"))


def too_late(factory: Factory) -> int:
    return 1 + advance_height_max(
        exit_deadline_height=channel_of(factory, BUYER).exit_deadline_height,
        patience_blocks=factory.attempt.terms.patience_blocks,
    )


def test_it_may_be_late_for_whoever_is_bound_and_for_nobody_else(
    half: Factory, bound: Factory
) -> None:
    assert begins(bound, here(bound, header_height=too_late(bound)))
    assert not begins(half, here(half, header_height=too_late(half)))
    assert begins(half, here(half, header_height=too_late(half) - 1))


def test_no_try_begins_while_a_close_of_what_is_above_may_confirm(
    half: Factory, bound: Factory
) -> None:
    """Whoever signed it refuses to sign a state."""
    for factory in (half, bound):
        outpoint = channel_of(factory, BUYER).path[0].outpoint
        close = SignedClose(close_id=bytes(32), outpoint=outpoint, balance_msat=1)
        assert not begins(with_channel(factory, BUYER, closes=(close,)))


# Nonces


def asks(factory: Factory, facts: Facts | None = None) -> list[fx.PrepareAdvance]:
    advance, facts = advance_of(factory), facts or here(factory)
    decision = of_lsp(factory, lambda turn: agreeing.ask_when_quiet(turn, advance), facts)
    assert not decision.records
    return wishes(decision, fx.PrepareAdvance)


def test_nonces_are_asked_for_once_everybody_is_here_and_our_side_is_quiet(
    asking: Factory,
) -> None:
    (wish,) = asks(asking)
    assert wish.advance_id == advance_of(asking).advance_id
    assert wish.channel_keys == tuple(
        channel_of(asking, client).key for client in (BUYER, NEIGHBOUR)
    )
    for client in (BUYER, NEIGHBOUR):
        signed = channel_of(asking, client).state.peer_signed
        for waits, facts in (
            (asking, here(asking, client)),
            (with_state(asking, client, is_connected=False), None),
            (with_channel(asking, client, failure="it broke"), None),
            (with_state(asking, client, peer_signed=signed + 1), None),
        ):
            assert not asks(waits, facts)
    assert not asks(with_advance(asking, is_asking=False)), "they are there, or it is over"


def test_the_channel_of_whoever_is_bound_need_not_be_quiet(half: Factory) -> None:
    again = with_advance(half, is_asking=True)
    signed = channel_of(again, BUYER).state.peer_signed
    assert asks(with_state(again, BUYER, peer_signed=signed + 1))
    signed = channel_of(again, NEIGHBOUR).state.peer_signed
    assert not asks(with_state(again, NEIGHBOUR, peer_signed=signed + 1))
    assert asks(with_channel(again, BUYER, failure="it broke"))


def test_who_is_in_the_way_of_a_first_try_ends_what_nobody_can_be_bound_by(
    half: Factory,
) -> None:
    """All said that they signed nothing, so it is dropped; with one that is bound it waits."""
    late = here(half, header_height=too_late(half))
    free = with_next(half, BUYER, is_dual=False)
    for client in (BUYER, NEIGHBOUR):
        free = with_next(free, client, peer_stage=0)
    (dropped,) = records(resumed(free, late), ar.AdvanceDropped)
    assert dropped.reason.startswith("height: expected at most ")
    assert (dropped.culprits, dropped.is_fault, dropped.holdouts) == ((), False, ())
    assert begins(free)


def test_with_a_store_that_was_restored_ends_what_nobody_else_is_bound_by(half: Factory) -> None:
    free = with_next(half, BUYER, is_dual=False, peer_stage=0)
    restored = with_channel(free, NEIGHBOUR, peer_is_behind=True)
    (dropped,) = records(resumed(restored), ar.AdvanceDropped)
    assert dropped.reason == "client 2: a store was restored from a backup"
    assert (dropped.culprits, dropped.is_fault) == ((), False)
    bound = with_channel(half, NEIGHBOUR, peer_is_behind=True)
    assert resumed(bound).is_nothing, "the buyer is"
