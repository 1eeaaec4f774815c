"""When the LSP offers a channel its move onto the next state, and when an advance is over."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    BUYER,
    NEIGHBOUR,
    Moments,
    advance_of,
    channel_of,
    factory_later,
    of_lsp,
    purchase,
    records,
    wishes,
    with_advance,
    with_channel,
    with_next,
    without_channel,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol.advancing import rebasing, sessions
from cromford.protocol.advancing.landing import SAYS_VOID
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def committed(moments: Moments) -> Factory:
    """Return a factory to which the buyer's signatures come."""
    return moments.at(m.AdvanceSign, moments.market.buyer).factory


@pytest.fixture(scope="module")
def held(moments: Moments) -> Factory:
    """Return a factory in which both clients hold the poisons, and nothing is rebased."""
    factory = moments.at(m.AdvanceHeld).factory
    for client in (BUYER, NEIGHBOUR):
        factory = with_next(factory, client, may_rebase=True)
    return factory


def rebased(factory: Factory, facts: Facts = FRESH) -> list[int]:
    """Return to which clients the rebase is offered."""
    decision = of_lsp(
        factory, lambda turn: rebasing.rebase_what_can_be(turn, advance_of(factory)), facts
    )
    assert len(records(decision, cr.UpdateProposed)) == len(decision.records)
    return [
        client
        for record in records(decision, cr.UpdateProposed)
        for client in (BUYER, NEIGHBOUR)
        if record.channel_id == channel_of(factory, client).channel_id
    ]


def test_a_rebase_is_offered_with_what_the_channel_will_hold_and_pays(
    moments: Moments, held: Factory
) -> None:
    decision = of_lsp(held, lambda turn: rebasing.rebase_what_can_be(turn, advance_of(held)))
    first, second = records(decision, cr.UpdateProposed)
    quote, advance_id = moments.quote, advance_of(held).advance_id
    assert decoded(first.message, m.UpdateRebase) == m.UpdateRebase(
        channel_id=channel_of(held, BUYER).channel_id,
        advance_id=advance_id,
        capacity_sat=quote.capacity_sat,
        price_msat=quote.price_msat,
    )
    assert decoded(second.message, m.UpdateRebase) == m.UpdateRebase(
        channel_id=channel_of(held, NEIGHBOUR).channel_id,
        advance_id=advance_id,
        capacity_sat=channel_of(held, NEIGHBOUR).state.capacity_sat,
        price_msat=0,
    )


def landed(factory: Factory, state_index: int, *, depth: int = 1) -> Factory:
    leaf = sessions.leaf_of(factory, advance_of(factory))
    return factory_later(factory, depth, leaf.states[state_index].tx)


NOT_YET: Final[dict[str, Callable[[Factory], Factory]]] = {
    "it is over": lambda one: with_channel(one, BUYER, next=None),
    "it holds no poisons": lambda one: with_next(one, BUYER, may_rebase=False),
    "it did not sign": lambda one: with_next(one, BUYER, is_dual=False),
    "it failed": lambda one: with_channel(one, BUYER, failure="it broke"),
    "it is away": lambda one: with_channel(
        one, BUYER, state=changed(channel_of(one, BUYER).state, is_connected=False)
    ),
    "it is quiet": lambda one: with_channel(one, BUYER, quiet_for=OTHER),
    "it cannot pay": lambda one: with_next(one, BUYER, price_msat=1 << 40),
}


@pytest.mark.parametrize("why", NOT_YET)
def test_what_one_client_is_not_ready_for_the_other_need_not_wait_for(
    held: Factory, why: str
) -> None:
    assert rebased(held) == [BUYER, NEIGHBOUR]
    assert rebased(NOT_YET[why](held)) == [NEIGHBOUR]


def test_a_rebase_is_offered_once_and_not_while_risk_is_none_or_the_old_state_is_there(
    moments: Moments, held: Factory
) -> None:
    under_way = next(
        one.factory
        for one in moments.all
        if one.factory.advances and channel_of(one.factory, BUYER).state.rebase is not None
    )
    offered = channel_of(under_way, BUYER).state.rebase
    again = with_channel(held, BUYER, state=changed(channel_of(held, BUYER).state, rebase=offered))
    assert rebased(again) == [NEIGHBOUR]
    assert rebased(held, replace(FRESH, stale="no block for hours")) == []
    assert rebased(landed(held, 0)) == []
    assert rebased(landed(held, 1)) == [BUYER, NEIGHBOUR]


def ended(factory: Factory) -> Decision[Factory]:
    advance = advance_of(factory)
    return of_lsp(factory, lambda turn: rebasing.end_what_is_done(turn, advance))


def kinds(decision: Decision[Factory]) -> list[type[Any]]:
    return [type(one) for one in decision.records]


@pytest.fixture(scope="module")
def grown(moments: Moments, held: Factory) -> Factory:
    """Return a factory in which both channels are rebased, and nothing is written down."""
    return changed(moments.market.pump.factory, advances=held.advances)


def test_a_sale_is_in_the_ledger_once_the_channel_has_grown_and_over_once_all_have_moved(
    moments: Moments, held: Factory, grown: Factory
) -> None:
    advance, quote = advance_of(grown), moments.quote
    named = {"attempt_id": quote.attempt_id, "advance_id": advance.advance_id}
    sold = ar.LiquiditySold(
        **named,
        channel_id=channel_of(grown, BUYER).channel_id,
        client=BUYER,
        height=grown.chain.height,
        amount_sat=AMOUNT_SAT,
        capacity_sat=quote.capacity_sat,
        price_msat=quote.price_msat,
    )
    decision = ended(grown)
    assert list(decision.records) == [sold, ar.AdvanceEnded(**named)]
    (cleared,) = wishes(decision, fx.ClearDeadline)
    assert cleared.deadline == fx.AdvanceDeadline(advance_id=advance.advance_id)
    assert kinds(ended(with_advance(grown, is_sold=True))) == [ar.AdvanceEnded]
    waits = with_channel(grown, NEIGHBOUR, next=channel_of(held, NEIGHBOUR).next)
    assert kinds(ended(waits)) == [ar.LiquiditySold], "the neighbour is not rebased"
    assert ended(with_advance(waits, is_sold=True)).is_nothing
    assert ended(held).is_nothing
    assert ended(with_advance(grown, is_committed=False)).is_nothing
    without = without_channel(grown, BUYER)
    assert kinds(ended(without)) == [ar.AdvanceEnded], "its channel is gone: nobody owes it"


def test_a_channel_that_failed_is_done_with_what_its_client_holds_or_the_chain_has(
    held: Factory,
) -> None:
    both = held
    for client in (BUYER, NEIGHBOUR):
        both = with_channel(both, client, failure="it broke")
    both = with_advance(both, acknowledged=frozenset())
    assert ended(both).is_nothing, "it gets what it lacks"
    assert ended(with_advance(both, acknowledged=frozenset({BUYER}))).is_nothing
    acknowledged = frozenset({BUYER, NEIGHBOUR})
    assert kinds(ended(with_advance(both, acknowledged=acknowledged))) == [ar.AdvanceEnded]
    assert ended(with_advance(held, acknowledged=acknowledged)).is_nothing, "it is rebased yet"
    for index in (0, 1):
        assert kinds(ended(landed(both, index, depth=SETTLED_DEPTH))) == [ar.AdvanceEnded]
        assert ended(landed(both, index, depth=SETTLED_DEPTH - 1)).is_nothing


def test_with_a_try_go_its_nonces_and_no_others(committed: Factory, grown: Factory) -> None:
    advance = advance_of(committed)
    assert advance.session is not None
    done = changed(grown, advances=committed.advances)
    (dropped,) = wishes(ended(done), fx.DropPools)
    assert dropped.pool_ids == advance.session.pool_ids


def test_where_the_old_state_is_six_deep_who_signed_nothing_goes_on_and_others_say_so(
    committed: Factory,
) -> None:
    """The one that is not asked for a word has said that it signed nothing."""

    def due(factory: Factory) -> tuple[list[bytes], list[bytes]]:
        decision = of_lsp(factory, lambda turn: rebasing.on_block(turn, advance_of(factory)))
        voids = [one.channel_id for one in records(decision, ar.NextFundingVoid)]
        words = wishes(decision, fx.Disconnect)
        assert all(one.reason == SAYS_VOID and one.is_ours for one in words)
        return voids, [one.node_id for one in words]

    state = committed
    for client in (BUYER, NEIGHBOUR):
        state = with_next(state, client, is_dual=False, peer_stage=0)
    names = [channel_of(state, client).channel_id for client in (BUYER, NEIGHBOUR)]
    nodes = [channel_of(state, client).node_id for client in (BUYER, NEIGHBOUR)]
    deep = landed(state, 0, depth=SETTLED_DEPTH)
    assert due(deep) == (names, [])
    assert due(landed(state, 0, depth=SETTLED_DEPTH - 1)) == ([], [])
    assert due(landed(state, 1, depth=SETTLED_DEPTH)) == ([], [])
    assert due(with_next(deep, BUYER, is_dual=True)) == (names[1:], nodes[:1])
    assert due(with_next(deep, BUYER, peer_stage=1)) == (names[1:], nodes[:1])
    assert due(with_next(deep, BUYER, peer_stage=-1)) == (names[1:], nodes[:1])
    assert due(with_channel(deep, BUYER, next=None)) == (names[1:], [])
