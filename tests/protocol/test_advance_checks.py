"""What a client checks of an advance: as it hears of it, and again of what it found right before.

Each thing alone is in the way, of the first and of the second look alike, and is named.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_steps import (
    BUYER,
    NEIGHBOUR,
    at_step,
    decided_by,
    found,
    messages,
    next_message,
)
from tests.protocol.pump import Pump

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.changed import changed
from cromford.factory.leaf import advance_height_max
from cromford.protocol import events as ev
from cromford.protocol.advancing import checking
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Refusal
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.client_attempt import Complete, RootSent
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.closing import ClientClosing
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

LOOKS: Final = (m.AdvancePropose, m.AdvanceCommit)
Change = Callable[[ClientState, Pump], ClientState]


def at(look: type[m.Message], seat: int) -> tuple[Pump, ClientState, Any]:
    """Return a client that is about to look at an advance, and at what."""
    pump = at_step(look)
    client = pump.client_at(seat)
    state: ClientState = client.state
    return pump, state, next_message(pump, client, look)


def goes_on(state: ClientState, event: ev.Event, facts: Facts = FRESH) -> bool:
    """Say whether a client goes on with an advance after a look at it."""
    decision = decided_by(state, event, facts)
    went_on = bool(found(decision, fx.PrepareAdvance | fx.FinishNext))
    assert went_on is not bool(found(decision, ar.AdvanceDropped)) or not went_on
    return went_on


def refusal(state: ClientState, event: ev.Event, facts: Facts = FRESH) -> str:
    """Return why a client takes no part, as it says itself; nothing is asked of its signer."""
    decision = decided_by(state, event, facts)
    assert not found(decision, fx.PrepareAdvance | fx.FinishNext | fx.PartialSign)
    assert not decision.state.advances
    (refused,) = [one for one in messages(decision) if isinstance(one, m.AdvanceAbort)]
    return refused.reason


def with_attempt(state: ClientState, pump: Pump, **changes: Any) -> ClientState:
    attempt_id = pump.attempt.attempt_id
    attempt = changed(state.attempts[attempt_id], **changes)
    return changed(state, attempts={**state.attempts, attempt_id: attempt})


def link_in(state: ClientState) -> Link:
    (link,) = state.book.links.values()
    return link


def with_link(state: ClientState, /, **changes: Any) -> ClientState:
    link = changed(link_in(state), **changes)
    links = state.book.links.set(link.channel_id, link)
    return changed(state, book=changed(state.book, links=links))


def with_chain(state: ClientState, **changes: Any) -> ClientState:
    return changed(state, chain=changed(state.chain, **changes))


def not_complete(state: ClientState, pump: Pump) -> ClientState:
    stage = state.attempts[pump.attempt.attempt_id].stage
    assert isinstance(stage, Complete)
    before = RootSent(
        candidate=stage.candidate,
        signatures=stage.signatures,
        commitment_signature=stage.commitment_signature,
        partial_sig=bytes(32),
    )
    return with_attempt(state, pump, stage=before)


def a_close_is_signed(state: ClientState, _pump: Pump) -> ClientState:
    close = SignedClose(
        close_id=bytes(32), outpoint=link_in(state).present.outpoint, balance_msat=1
    )
    return with_link(state, closes=(close,))


def closing_in(state: ClientState, attempt_id: bytes) -> ClientState:
    link = link_in(state)
    closing = ClientClosing(
        close_id=bytes(32),
        attempt_id=attempt_id,
        channel_id=link.channel_id,
        outpoint=link.present.outpoint,
        feerates_sat_per_kw=(500,),
        balance_msat=1,
    )
    return changed(state, closing=Map({closing.close_id: closing}))


def spent(state: ClientState, pump: Pump) -> ClientState:
    """Let something else spend what the channel's path leads through."""
    other: Tx = replace(pump.attempt.tree.root_node.tx, nlocktime=1)
    spends = {**state.chain.spends, link_in(state).present.outpoint: other}
    return with_chain(state, spends=spends)


def kicked_off(state: ClientState, pump: Pump) -> ClientState:
    kickoff = pump.attempt.leaf(BUYER).kickoff.tx.txid
    confirmed = state.chain.confirmed.update({kickoff: state.chain.height})
    return with_chain(state, confirmed=confirmed)


def not_deep(state: ClientState, pump: Pump) -> ClientState:
    confirmed = state.chain.confirmed.update({pump.attempt.funding_tx.txid: state.chain.height + 1})
    return with_chain(state, confirmed=confirmed)


IN_THE_WAY: Final[dict[str, tuple[Change, str]]] = {
    "no branch": (not_complete, "attempt_id: expected a factory of ours"),
    "not found ready": (
        lambda state, pump: with_attempt(state, pump, ready_received=False),
        "channel: expected ready on both sides",
    ),
    "restored before it had a channel": (
        lambda state, pump: with_attempt(state, pump, is_marked=True),
        "store: expected our newest on both sides",
    ),
    "the LSP's store was restored": (
        lambda state, _: with_link(state, peer_is_behind=True),
        "store: expected our newest on both sides",
    ),
    "ours was": (
        lambda state, _: with_link(state, is_behind=True),
        "store: expected our newest on both sides",
    ),
    "failed": (
        lambda state, _: with_link(state, failure="it lied"),
        "channel: expected open, received it lied",
    ),
    "leaving": (
        lambda state, pump: with_attempt(state, pump, is_exiting=True),
        "channel: expected one that we stay in",
    ),
    "keys given away": (
        lambda state, pump: with_attempt(state, pump, retired_height=1),
        "channel: expected one that we stay in",
    ),
    "a close is signed": (a_close_is_signed, "close: expected none that may be finished"),
    "a close is agreed on": (
        lambda state, pump: closing_in(state, pump.attempt.attempt_id),
        "close: expected none that may be finished",
    ),
    "spent": (spent, "channel: expected alive on chain"),
    "kicked off": (kicked_off, "kickoff: expected in no block"),
    "not deep": (not_deep, "funding: expected at least "),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_in_the_way_is_named_at_each_look_and_nothing_goes_on(
    look: type[m.Message], what: str
) -> None:
    change, reason = IN_THE_WAY[what]
    pump, state, event = at(look, NEIGHBOUR)
    assert goes_on(state, event)
    assert refusal(change(state, pump), event).startswith(reason)


@pytest.mark.parametrize("look", LOOKS)
def test_a_close_of_another_factory_is_in_nobodys_way(look: type[m.Message]) -> None:
    _, state, event = at(look, NEIGHBOUR)
    assert goes_on(closing_in(state, bytes(32)), event)


def test_without_a_channel_no_advance_is_begun() -> None:
    _, state, event = at(m.AdvancePropose, NEIGHBOUR)
    bare = changed(state, book=changed(state.book, links=Map()))
    assert refusal(bare, event).startswith("channel: expected ready on both sides")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(FRESH, stale="no block for hours"), "chain: expected fresh"),
        (replace(FRESH, unmarkable="no answer"), "chain: expected fresh"),
    ],
)
def test_a_client_that_may_take_no_risk_takes_no_part(
    look: type[m.Message], facts: Facts, reason: str
) -> None:
    _, state, event = at(look, NEIGHBOUR)
    assert refusal(state, event, facts).startswith(reason)


@pytest.mark.parametrize("look", LOOKS)
def test_the_last_height_is_told_by_what_is_known_to_exist(look: type[m.Message]) -> None:
    pump, state, event = at(look, NEIGHBOUR)
    last = advance_height_max(
        exit_deadline_height=link_in(state).exit_deadline_height,
        patience_blocks=pump.attempt.terms.patience_blocks,
    )
    assert goes_on(state, event, replace(FRESH, header_height=last))
    reason = refusal(state, event, replace(FRESH, header_height=last + 1))
    assert reason == f"height: expected at most {last}, received {last + 1}"
    tip = BlockRef(height=last, block_hash=Txid(bytes(32)))
    assert goes_on(with_chain(state, recent=(tip,)), event)


# What it bought


def bought(state: ClientState, **changes: Any) -> ClientState:
    ((quote_id, purchase),) = state.purchases.items()
    return changed(state, purchases=Map({quote_id: replace(purchase, **changes)}))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attempt_id": bytes(32)}, "capacity_sat of client 1: expected 100000, for we bought"),
        ({"capacity_sat": 1}, "capacity_sat: expected 1, received "),
        ({"amount_sat": 1}, "amount_sat: expected 1, received "),
        ({"price_msat": 1}, "price_msat: expected 1 msat, received 500 sat"),
        ({"payment_hash": bytes(32)}, "price_msat: expected 0 sat, received 500 sat"),
    ],
)
def test_a_channel_grows_by_what_was_bought_for_it_at_its_price(
    look: type[m.Message], changes: dict[str, Any], reason: str
) -> None:
    _, state, event = at(look, BUYER)
    assert goes_on(state, event)
    assert refusal(bought(state, **changes), event).startswith(reason)


@pytest.mark.parametrize("look", LOOKS)
def test_a_price_beyond_the_balance_is_not_agreed_to(look: type[m.Message]) -> None:
    _, state, event = at(look, BUYER)
    much = 10**10
    dear = bought(state, price_msat=much)
    if look is m.AdvancePropose:
        event = replace(event, message=replace(event.message, price_msat=much))
    else:
        ((attempt_id, advance),) = dear.advances.items()
        dear = changed(dear, advances=Map({attempt_id: replace(advance, price_msat=much)}))
    reason = refusal(dear, event)
    assert reason.startswith("price_msat: expected at most ")
    assert reason.endswith("our balance, received 10,000,000 sat")


@pytest.mark.parametrize("look", LOOKS)
def test_what_is_not_covered_is_agreed_to_only_where_its_operator_said_so(
    look: type[m.Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Refusal("coverage", expected="more", received="less")

    _, beside, to_neighbour = at(look, NEIGHBOUR)
    _, state, event = at(look, BUYER)
    monkeypatch.setattr(checking, "check_covered", refuse)
    for one, told in ((beside, to_neighbour), (state, event)):
        assert refusal(one, told).startswith("coverage: expected more")
        policy = replace(one.config.policy, receive_beyond_coverage=True)
        assert goes_on(changed(one, config=replace(one.config, policy=policy)), told)
    assert goes_on(bought(state, takes_beyond=True), event)


# What it is told


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"terms_hash": bytes(32)}, "terms_hash"),
        ({"advance_id": bytes(32)}, "advance_id"),
        ({"state_index": 2}, "state_index"),
        ({"price_msat": 1}, "price_msat"),
        ({"quote_id": bytes(32)}, "quote_id"),
        ({"channels": ()}, "capacities_sat"),
        ({"attempt_id": bytes(32)}, "attempt_id"),
    ],
)
def test_a_proposal_is_compared_field_by_field(changes: dict[str, Any], field: str) -> None:
    _, state, event = at(m.AdvancePropose, NEIGHBOUR)
    other = replace(event, message=replace(event.message, **changes))
    assert refusal(state, other).startswith(f"{field}: expected ")


def test_who_took_part_in_vain_too_often_pauses() -> None:
    pump, state, event = at(m.AdvancePropose, NEIGHBOUR)
    heights = Map({pump.attempt.attempt_id: (state.chain.height,) * 16})
    tired = changed(state, advance_heights=heights)
    assert refusal(tired, event).startswith("advance: expected fewer in these blocks")


def test_with_each_block_a_client_looks_again_until_it_signed() -> None:
    for step, n_dropped in ((m.AdvanceCommit, 1), (m.AdvanceDone, 0)):
        pump = at_step(step)
        state = pump.client_at(NEIGHBOUR).state
        block = ev.BlockAdded(
            height=state.chain.height + 1, block_hash=state.chain.recent[-1].block_hash, txs=()
        )
        assert not found(decided_by(state, block), ar.AdvanceDropped)
        decision = decided_by(kicked_off(state, pump), block)
        dropped = found(decision, ar.AdvanceDropped)
        assert [one.reason.split(":")[0] for one in dropped] == ["kickoff"] * n_dropped
