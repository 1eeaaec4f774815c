"""What ends a purchase that is under way, and what does not."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    Moments,
    later,
    link_of,
    of_client,
    purchase,
    records,
    with_link,
)

from cromford.changed import changed
from cromford.factory.leaf import advance_height_max
from cromford.protocol.advancing import buying
from cromford.protocol.advancing.buying import NOT_BEGUN_BLOCKS
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal.client_state import ClientState
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

OTHER: Final = b"\x07" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def ordered(moments: Moments) -> ClientState:
    """Return a buyer whose LSP has not heard of it."""
    return moments.at(m.Buy).buyer


@pytest.fixture(scope="module")
def agreed(moments: Moments) -> ClientState:
    """Return a buyer that agreed to an advance, and did not sign."""
    return moments.at(m.AdvanceCommit, moments.market.buyer).buyer


@pytest.fixture(scope="module")
def signed(moments: Moments) -> ClientState:
    """Return a buyer that signed."""
    return moments.at(m.AdvanceDone, moments.market.buyer).buyer


# What becomes of a purchase


def purchases(state: ClientState, *changes: dict[str, Any]) -> ClientState:
    """Return a buyer of several things, each as its only purchase but for some changes."""
    (known,) = state.purchases.values()
    some = [replace(known, **one) for one in changes]
    return changed(state, purchases=Map({one.quote_id: one for one in some}))


def ended(state: ClientState) -> list[tuple[bytes, str]]:
    """Return what a block ends, and why."""
    decision = of_client(state, buying.on_block)
    assert len(records(decision, ar.PurchaseEnded)) == len(decision.records)
    return [(one.quote_id, one.reason) for one in records(decision, ar.PurchaseEnded)]


def test_what_is_not_begun_in_time_ends_each_for_itself(
    moments: Moments, ordered: ClientState, agreed: ClientState
) -> None:
    height = ordered.chain.height
    late, last = height - NOT_BEGUN_BLOCKS - 1, height - NOT_BEGUN_BLOCKS
    one, two, three, four = (bytes([n]) * 32 for n in range(1, 5))
    state = purchases(
        ordered,
        {"quote_id": one, "valid_until_height": late, "is_agreed": True},
        {"quote_id": two, "valid_until_height": late},
        {"quote_id": three, "valid_until_height": last},
        {"quote_id": four, "valid_until_height": late},
    )
    why = f"not begun by height {late}"
    assert ended(state) == [(two, why), (four, why)]
    (name,) = agreed.purchases
    begun = purchases(
        agreed,
        {"valid_until_height": late, "is_agreed": False},
        {"quote_id": OTHER, "valid_until_height": late, "is_agreed": False},
    )
    assert ended(begun) == [(OTHER, why)], "for the other an advance is under way"
    assert name == moments.quote.quote_id


def test_what_was_agreed_to_waits_while_it_may_still_be_signed(
    moments: Moments, agreed: ClientState
) -> None:
    """The advance itself may be gone: what others signed is gone on with in time."""
    name = moments.quote.quote_id
    gone = changed(agreed, advances=Map())
    link = link_of(gone)
    last = advance_height_max(
        exit_deadline_height=link.exit_deadline_height,
        patience_blocks=gone.attempts[link.attempt_id].terms.patience_blocks,
    )
    kickoff = gone.attempts[link.attempt_id].leaf.kickoff.tx
    for state in (agreed, gone):
        assert ended(state) == []
        assert ended(with_link(state, failure="it broke")) == [
            (name, "the channel failed: it broke")
        ]
        assert ended(later(state, 1, kickoff)) == [(name, "the leaf is on its way to the chain")]
        assert ended(later(state, last - state.chain.height)) == []
        assert ended(later(state, last + 1 - state.chain.height)) == [
            (name, f"too late: not done by height {last}")
        ]
    long = ended(with_link(gone, failure="x" * 5_000))[0][1]
    assert len(long) == m.REASON_SIZE_MAX


def test_what_is_signed_ends_with_its_advance_alone(signed: ClientState) -> None:
    link = link_of(signed)
    kickoff = signed.attempts[link.attempt_id].leaf.kickoff.tx
    late = later(signed, link.expiry_height - signed.chain.height, kickoff)
    assert ended(with_link(late, failure="it broke")) == []


def settled(before: ClientState, now: ClientState, *happened: Any) -> list[tuple[bytes, str]]:
    """Return which purchases end in a turn that comes from one state to another, and why."""

    def decide(turn: Any) -> None:
        turn.remember(*happened)
        turn.amend(now)
        buying.settle(turn, before.advances)

    decision = of_client(before, decide)
    return [(one.quote_id, one.reason) for one in records(decision, ar.PurchaseEnded)]


def test_a_purchase_whose_advance_came_to_nothing_ends_and_why_is_said(
    moments: Moments, agreed: ClientState
) -> None:
    (advance,) = agreed.advances.values()
    name, attempt_id = moments.quote.quote_id, moments.quote.attempt_id
    received = purchases(agreed, {"is_agreed": False})
    gone = changed(received, advances=Map())
    dropped = ar.AdvanceDropped(
        attempt_id=attempt_id, advance_id=advance.advance_id, reason="not now", height=1
    )
    neighbours = replace(advance, quote_id=b"")
    of_neighbour = changed(received, advances=Map({attempt_id: neighbours}))
    assert settled(received, gone, dropped) == [(name, "not now")]
    assert settled(received, gone) == [(name, "the advance is over")]
    assert settled(received, of_neighbour) == [(name, "the advance is over")]
    assert settled(received, received) == []
    assert settled(gone, received) == [], "it has just begun"
    assert settled(gone, gone) == [], "it has not begun yet"
    assert settled(of_neighbour, gone) == [], "the neighbour's came to nothing"
    agreed_gone = changed(agreed, advances=Map())
    assert settled(agreed, agreed_gone) == [], "the LSP may be bound to it"
    first = purchases(gone, {"quote_id": bytes(32), "is_agreed": True}, {"quote_id": OTHER}, {})
    assert settled(received, first) == [(name, "the advance is over")]


def test_of_two_factories_each_purchase_ends_for_its_own_reason(
    moments: Moments, agreed: ClientState
) -> None:
    """One block may end an advance in each, and the operator hears why of both."""
    (advance,) = agreed.advances.values()
    name, attempt_id = moments.quote.quote_id, moments.quote.attempt_id
    before = purchases(
        agreed,
        {"is_agreed": False},
        {"is_agreed": False, "quote_id": OTHER, "attempt_id": OTHER},
    )
    elsewhere = replace(advance, advance_id=OTHER, quote_id=OTHER)
    before = changed(
        before,
        attempts={**before.attempts, OTHER: before.attempts[attempt_id]},
        advances=before.advances.set(OTHER, elsewhere),
    )
    drops = [
        ar.AdvanceDropped(attempt_id=one, advance_id=two, reason=why, height=1)
        for one, two, why in (
            (OTHER, OTHER, "its leaf is on chain"),
            (attempt_id, advance.advance_id, "not now"),
        )
    ]
    now = changed(before, advances=Map())
    expected = {(name, "not now"), (OTHER, "its leaf is on chain")}
    asked = mk.QuoteAsked(attempt_id=attempt_id, amount_sat=1, payment_hash=b"")
    for order in (drops, drops[::-1]):
        assert set(settled(before, now, asked, *order)) == expected
    assert set(settled(before, now, drops[0])) == {
        (name, "the advance is over"),
        (OTHER, "its leaf is on chain"),
    }


def test_what_was_agreed_to_ends_where_the_lsp_comes_back_and_says_nothing_of_it(
    moments: Moments, agreed: ClientState
) -> None:
    name = moments.quote.quote_id
    link = link_of(agreed)
    gone = with_link(changed(agreed, advances=Map()), next=None, quiet_for=b"")
    back = moments.market.pump.sent(moments.market.pump.lsp, m.ChannelReestablish)
    (word,) = [one for one in back if one.channel_id == link.channel_id][:1]
    stage = m.AdvanceStage(advance_id=OTHER, stage=1, is_void=0, funding_txid=OTHER, nonces=())

    def reestablished(message: m.ChannelReestablish, channel_id: bytes) -> Any:
        return cr.ChannelReestablished(
            channel_id=channel_id, message=encode_message(message), own_point=b""
        )

    def ends(now: ClientState, message: m.ChannelReestablish, channel_id: bytes) -> Any:
        found = []

        def decide(turn: Any) -> None:
            turn._records.append(reestablished(message, channel_id))
            buying.settle(turn, agreed.advances)
            found.extend(records(turn.decision, ar.PurchaseEnded))

        of_client(now, decide)
        return [(one.quote_id, one.reason) for one in found]

    forgotten = (name, "the LSP let go of it before anything was signed")
    assert not word.advance
    assert ends(gone, word, link.channel_id) == [forgotten]
    assert ends(gone, replace(word, advance=(stage,)), link.channel_id) == []
    assert ends(gone, word, OTHER) == [], "it is another channel that came back"
    assert ends(agreed, word, link.channel_id) == [], "we hold something on the next funding"
    two = purchases(gone, {"quote_id": bytes(32), "is_agreed": False}, {})
    assert ends(two, word, link.channel_id) == [forgotten]
    twice = purchases(gone, {"quote_id": bytes(32)}, {})
    assert len(ends(twice, word, link.channel_id)) == 2
