"""What a client holds of an advance, says of it, and how the advance ends there: one by one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    Moments,
    later,
    link_of,
    of_client,
    purchase,
    records,
    said,
    wishes,
    with_link,
)
from tests.protocol.houses import spend_of

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.channel.stage import Edition, HtlcStage
from cromford.channel.terms import Party
from cromford.protocol.advancing import finishing, landing
from cromford.protocol.advancing.checking import next_leaf
from cromford.protocol.advancing.finishing import CUT_SHORT, LEFT, VOID
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import NextFunding
from cromford.protocol.turn import Decision, Turn
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32
Client = Decision[ClientState]


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def agreed(moments: Moments) -> ClientState:
    return moments.at(m.AdvanceCommit, moments.market.buyer).buyer


@pytest.fixture(scope="module")
def signed(moments: Moments) -> ClientState:
    """Return a buyer that signed, and holds nothing that the LSP finished."""
    return moments.at(m.AdvanceDone, moments.market.buyer).buyer


@pytest.fixture(scope="module")
def over(moments: Moments) -> ClientState:
    """Return a buyer whose channel has grown."""
    state: ClientState = moments.market.buyer.state
    return state


def advance_of(state: ClientState) -> ClientAdvance:
    (advance,) = state.advances.values()
    return advance


def with_advance(state: ClientState, /, **changes: Any) -> ClientState:
    attempt_id = link_of(state).attempt_id
    advance = replace(advance_of(state), **changes)
    return changed(state, advances=state.advances.set(attempt_id, advance))


def following_of(link: Link) -> NextFunding:
    assert link.next is not None
    return link.next


def with_next(state: ClientState, /, **changes: Any) -> ClientState:
    return with_link(state, next=changed(following_of(link_of(state)), **changes))


def tx_of(state: ClientState, state_index: int) -> Tx:
    """Return a state of the leaf, as the client has it, or as its next one will be."""
    attempt = state.attempts[link_of(state).attempt_id]
    leaf = next_leaf(attempt, advance_of(state))
    return leaf.states[state_index].tx


def under_rebase(moments: Moments) -> list[ClientState]:
    """Return the buyer's states in which the move onto the new state is under way."""
    return [one.buyer for one in moments.all if link_of(one.buyer).state.rebase is not None]


# What the LSP finished


def heard(state: ClientState, message: m.AdvanceDone) -> Client:
    return of_client(state, lambda turn: finishing.on_done(turn, advance_of(state), message))


def bare(message: m.AdvanceDone) -> m.AdvanceDone:
    """Return the same without poisons, as it is said while the kickoff is on chain."""
    return replace(message, stock_poison=b"", channel_poison=b"")


def failure(decision: Client) -> str:
    (failed,) = records(decision, cr.ChannelFailed)
    (word,) = said(decision)
    assert isinstance(word, m.ChannelFailure)
    assert word.reason == failed.reason
    return failed.reason


def test_what_is_finished_is_held_and_said_to_be_held(
    moments: Moments, signed: ClientState
) -> None:
    done = moments.message(m.AdvanceDone)
    named = {"attempt_id": done.attempt_id, "advance_id": done.advance_id}
    decision = heard(signed, done)
    state_held = ar.StateSigned(**named, signature=done.state_signature)
    poisons_held = ar.PoisonHeld(
        **named,
        stock_signature=done.stock_poison,
        clients=(1,),
        channel_signatures=(done.channel_poison,),
    )
    assert list(decision.records) == [state_held, poisons_held]
    assert said(decision) == [m.AdvanceHeld(**named)]


def test_of_what_comes_in_two_parts_each_is_held_once_and_the_second_makes_it_whole(
    moments: Moments, signed: ClientState
) -> None:
    done = moments.message(m.AdvanceDone)
    first = heard(signed, bare(done))
    assert [type(one) for one in first.records] == [ar.StateSigned]
    assert said(first) == [], "the old state may still take the channel's money with it"
    assert heard(first.state, bare(done)).is_nothing
    forged = replace(done, state_signature=bytes(64))
    second = heard(first.state, forged)
    assert [type(one) for one in second.records] == [ar.PoisonHeld], "the state is held already"
    assert len(said(second)) == 1
    for again in (done, forged, replace(done, stock_poison=bytes(64))):
        third = heard(second.state, again)
        assert list(third.records) == []
        assert said(third) == said(second), "the LSP may not have heard it"


def test_what_is_finished_of_what_was_not_signed_is_not_looked_at(
    moments: Moments, agreed: ClientState
) -> None:
    assert heard(agreed, moments.message(m.AdvanceDone)).is_nothing


@pytest.mark.parametrize(
    ("lie", "why", "n_held"),
    [
        ({"state_signature": bytes(64)}, "expected a valid signature", 0),
        ({"stock_poison": b""}, "poisons: expected both or none, received one", 1),
        ({"channel_poison": b""}, "poisons: expected both or none, received one", 1),
        ({"stock_poison": bytes(64)}, "expected a valid signature", 1),
        ({"channel_poison": bytes(64)}, "expected a valid signature", 1),
    ],
)
def test_a_forged_signature_or_half_of_the_poisons_ends_the_channel(
    moments: Moments, signed: ClientState, lie: dict[str, bytes], why: str, n_held: int
) -> None:
    decision = heard(signed, replace(moments.message(m.AdvanceDone), **lie))
    assert why in failure(decision)
    assert len(records(decision, ar.StateSigned)) == n_held
    assert not records(decision, ar.PoisonHeld)


# What is said of it


def told(state: ClientState) -> list[m.Message]:
    return said(of_client(state, lambda turn: finishing.tell_held(turn, advance_of(state))))


def test_that_we_hold_it_is_said_where_the_lsp_hears_it_and_waits_for_it(
    moments: Moments, signed: ClientState
) -> None:
    held = with_next(signed, may_rebase=True)
    assert told(signed) == []
    (word,) = told(held)
    assert word == m.AdvanceHeld(
        attempt_id=moments.quote.attempt_id, advance_id=advance_of(signed).advance_id
    )
    rebasing = under_rebase(moments)[0]
    for silent in (
        with_link(held, next=None),
        with_advance(held, is_signed=False),
        changed(held, is_connected=False),
        with_link(held, state=changed(link_of(held).state, rebase=link_of(rebasing).state.rebase)),
    ):
        assert told(silent) == []


def test_a_new_state_that_is_six_deep_is_as_good_as_poisons(signed: ClientState) -> None:
    new, old = tx_of(signed, 1), tx_of(signed, 0)
    assert told(later(signed, SETTLED_DEPTH - 1, new)) == []
    assert len(told(later(signed, SETTLED_DEPTH, new))) == 1
    assert told(later(signed, SETTLED_DEPTH, old)) == []


def test_of_a_try_that_is_over_the_nonces_go_that_the_channel_does_not_use(
    signed: ClientState, over: ClientState
) -> None:
    advance = advance_of(signed)
    factory_pool, channel_pool = advance.pool_ids
    assert channel_pool in link_of(signed).pool_ids

    def dropped(state: ClientState, advance: ClientAdvance) -> list[fx.DropPools]:
        return wishes(
            of_client(state, lambda turn: finishing.drop_pools(turn, advance)), fx.DropPools
        )

    assert dropped(signed, advance) == [fx.DropPools(pool_ids=(factory_pool,))]
    assert dropped(over, advance) == [fx.DropPools(pool_ids=(factory_pool, channel_pool))]
    assert dropped(over, replace(advance, factory_pool=None)) == [
        fx.DropPools(pool_ids=(channel_pool,))
    ]
    assert dropped(over, replace(advance, channel_pool=None)) == [
        fx.DropPools(pool_ids=(factory_pool,))
    ]
    assert dropped(signed, replace(advance, factory_pool=None)) == []


# How it ends


@pytest.fixture(scope="module")
def grown(signed: ClientState, over: ClientState) -> ClientState:
    """Return a buyer whose channel has grown, and who has not written it down."""
    return changed(over, advances=signed.advances, purchases=signed.purchases)


def ended(state: ClientState) -> Client:
    advance, attempt_id = advance_of(state), link_of(state).attempt_id
    return of_client(state, lambda turn: finishing.end_if_done(turn, attempt_id, advance))


def reason(decision: Client) -> str:
    """Return why nothing was bought, as its operator hears it."""
    assert [type(one) for one in decision.records] == [ar.AdvanceEnded, ar.PurchaseEnded]
    (purchase_ended,) = records(decision, ar.PurchaseEnded)
    return purchase_ended.reason


def test_a_channel_that_has_grown_is_a_receipt_and_the_end_of_it(
    moments: Moments, grown: ClientState
) -> None:
    quote, advance = moments.quote, advance_of(grown)
    named = {"attempt_id": quote.attempt_id, "advance_id": advance.advance_id}
    receipt = ar.LiquidityBought(
        **named,
        channel_id=link_of(grown).channel_id,
        height=grown.chain.height,
        amount_sat=AMOUNT_SAT,
        capacity_sat=quote.capacity_sat,
        price_msat=quote.price_msat,
    )
    is_over = ar.AdvanceEnded(**named)
    is_ours = ar.PurchaseEnded(attempt_id=quote.attempt_id, quote_id=quote.quote_id)
    decision = ended(grown)
    assert list(decision.records) == [receipt, is_over, is_ours]
    assert wishes(decision, fx.DropPools) == [fx.DropPools(pool_ids=advance.pool_ids)]
    (known,) = grown.purchases.values()
    of_a_payment = changed(
        with_advance(grown, price_msat=0),
        purchases=Map({known.quote_id: replace(known, price_msat=7)}),
    )
    assert ended(of_a_payment).records[0] == msgspec.structs.replace(receipt, price_msat=7)
    unknown = changed(with_advance(grown, price_msat=9), purchases=Map())
    assert list(ended(unknown).records) == [msgspec.structs.replace(receipt, price_msat=9), is_over]
    neighbours = changed(with_advance(grown, quote_id=b""), purchases=Map())
    assert list(ended(neighbours).records) == [is_over]


def test_what_is_not_signed_or_may_still_be_rebased_goes_on(
    signed: ClientState, grown: ClientState
) -> None:
    assert ended(signed).is_nothing
    assert ended(with_advance(grown, is_signed=False)).is_nothing
    assert ended(with_link(signed, failure="it broke")).is_nothing, "the chain has not decided"
    for index in (0, 1):
        landed = later(signed, SETTLED_DEPTH, tx_of(signed, index))
        assert ended(landed).is_nothing, "both sides say so first"
        shallow = later(signed, SETTLED_DEPTH - 1, tx_of(signed, index))
        assert ended(with_link(shallow, failure="it broke")).is_nothing
    advance, attempt_id = advance_of(grown), link_of(grown).attempt_id
    gone = changed(grown, advances=Map())
    decision = of_client(gone, lambda turn: finishing.end_if_done(turn, attempt_id, advance))
    assert decision.is_nothing


def test_nothing_is_bought_where_the_old_state_is_on_chain_for_good(signed: ClientState) -> None:
    assert reason(ended(with_link(signed, next=None))) == VOID, "both said that it is six deep"
    landed = later(signed, SETTLED_DEPTH, tx_of(signed, 0))
    assert reason(ended(with_link(landed, failure="it broke"))) == VOID


def test_a_channel_that_ends_on_the_new_state_paid_if_a_commitment_says_so(
    moments: Moments, signed: ClientState
) -> None:
    landed = with_link(later(signed, SETTLED_DEPTH, tx_of(signed, 1)), failure="it broke")
    assert reason(ended(landed)) == LEFT

    seen = []

    def rebased(link: Link) -> set[bool]:
        return {link.state.content(holder, Edition.SIGNED).is_rebased for holder in Party}

    state = next(one for one in under_rebase(moments) if link_of(one).next is not None)
    live = link_of(state).state.rebase
    assert live is not None
    for stage in HtlcStage:
        rebase = replace(live, stage=stage)
        cut = with_link(state, state=changed(link_of(state).state, rebase=rebase))
        deep = later(cut, SETTLED_DEPTH, tx_of(cut, 1))
        assert (reason(ended(with_link(deep, failure="it broke"))) == CUT_SHORT) is (
            True in rebased(link_of(cut))
        )
        seen.append(len(rebased(link_of(cut))))
    assert {1, 2} == set(seen)


def test_a_long_reason_is_cut(moments: Moments, signed: ClientState) -> None:
    quote = moments.quote

    def end(quote_id: bytes, why: str) -> Callable[[Turn[ClientState]], None]:
        return lambda turn: finishing.end_purchase(turn, quote.attempt_id, quote_id, why)

    (record,) = of_client(signed, end(quote.quote_id, "x" * 5_000)).records
    assert isinstance(record, ar.PurchaseEnded)
    assert record.reason == "x" * m.REASON_SIZE_MAX
    assert of_client(signed, end(OTHER, "why")).is_nothing


# Which state lands


def test_the_chain_decides_between_two_states_and_of_one_there_is_nothing_to_decide(
    signed: ClientState, over: ClientState
) -> None:
    def is_decided(state: ClientState) -> bool:
        found = []
        of_client(state, lambda turn: found.append(landing.is_decided(turn, link_of(state))))
        return found[0]

    def has_landed(state: ClientState) -> bool:
        found = []
        of_client(state, lambda turn: found.append(landing.has_landed(turn, link_of(state))))
        return found[0]

    assert not is_decided(signed)
    for index in (0, 1):
        tx = tx_of(signed, index)
        assert is_decided(later(signed, SETTLED_DEPTH, tx))
        assert not is_decided(later(signed, SETTLED_DEPTH - 1, tx))
        assert has_landed(later(signed, 1, tx)) is (index == 0)
    grown = later(over, SETTLED_DEPTH, tx_of(signed, 1))
    assert not is_decided(grown)
    assert not has_landed(grown)
    for step in link_of(signed).path:
        elsewhere = spend_of(step.outpoint)
        assert is_decided(later(signed, SETTLED_DEPTH, elsewhere)), "for neither"
        assert not is_decided(later(signed, SETTLED_DEPTH - 1, elsewhere))
        assert not is_decided(later(over, SETTLED_DEPTH, elsewhere))


def test_that_the_old_state_is_six_deep_is_said_once_in_a_connection(signed: ClientState) -> None:
    def asked(state: ClientState) -> list[fx.Disconnect]:
        decision = of_client(state, lambda turn: landing.say_void(turn, link_of(state)))
        assert len(decision.asked) == len(wishes(decision, fx.Disconnect))
        return wishes(decision, fx.Disconnect)

    deep = later(signed, SETTLED_DEPTH, tx_of(signed, 0))
    word = fx.Disconnect(node_id=link_of(deep).node_id, reason=landing.SAYS_VOID, is_ours=True)
    assert asked(deep) == [word]
    for state in (
        signed,
        later(signed, SETTLED_DEPTH - 1, tx_of(signed, 0)),
        later(signed, SETTLED_DEPTH, tx_of(signed, 1)),
        with_next(deep, said_void=True),
        with_link(deep, next=None),
        with_link(deep, failure="it broke"),
        with_link(deep, state=changed(link_of(deep).state, is_connected=False)),
    ):
        assert asked(state) == []
