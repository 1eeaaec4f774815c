"""What an LSP does with what clients sign of an advance, answer by answer, and how a try ends."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from immutables import Map
from tests.protocol.advance_steps import (
    BUYER,
    NEIGHBOUR,
    advance_of,
    answer_of,
    at_step,
    decided,
    decided_by,
    found,
    kept,
    messages,
    next_message,
    only,
    said,
)
from tests.protocol.advances import advancing_factory, buy, market
from tests.protocol.pump import Pump
from tests.protocol.test_advance_turns import block, refusing, waiting

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol import events as ev
from cromford.protocol.advancing.completing import NOT_EARNED
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.closes import SETTLED_DEPTH, SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

WHY = "no nonce is left"


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What an LSP decides about what two clients sign, one after the other.

    Attributes:
        pump: Where.
        first: About the first one's word, and then its own half that it asked for.
        second: About the second one's, likewise: with it everybody signed.
        state: About its own part of the state.
        poisons: About its own parts of the poisons.
        events: What each of these was about.
    """

    pump: Pump
    first: tuple[Decision[Any], Decision[Any]]
    second: tuple[Decision[Any], Decision[Any]]
    state: Decision[Any]
    poisons: Decision[Any]
    events: tuple[ev.Event, ...]


@cache
def signed() -> Signed:
    with market():
        pump = at_step(m.AdvanceSign)
        lsp = pump.lsp
        letters = [one for one in pump.wire if isinstance(one.message, m.AdvanceSign)]
        one, two = (said(letter.sender, letter.message) for letter in letters)
        word = decided(lsp, one)
        half = answer_of(lsp, only(word, fx.FinishNext))
        held = decided_by(word.state, half)
        word_2 = decided_by(held.state, two)
        half_2 = answer_of(lsp, only(word_2, fx.FinishNext))
        held_2 = decided_by(word_2.state, half_2)
        part = answer_of(lsp, only(held_2, fx.PartialSign))
        state = decided_by(held_2.state, part)
        parts = answer_of(lsp, only(state, fx.PartialSign))
        return Signed(
            pump=pump,
            first=(word, held),
            second=(word_2, held_2),
            state=state,
            poisons=decided_by(state.state, parts),
            events=(one, half, two, half_2, part, parts),
        )


def changed_in(state: LspState, **changes: Any) -> LspState:
    (factory,) = state.factories.values()
    return state.with_factory(changed(factory, **changes))


def factory_of(state: LspState) -> Factory:
    (factory,) = state.factories.values()
    return factory


def with_links(state: LspState, **changes: Any) -> LspState:
    """Return a state in which something of every channel is different."""
    book = factory_of(state).book
    links = Map({key: changed(link, **changes) for key, link in book.links.items()})
    return changed_in(state, book=changed(book, links=links))


def with_nexts(state: LspState, *changes: dict[str, Any]) -> LspState:
    """Return a state in which something of the clients' next fundings is different, in order."""
    book = factory_of(state).book
    links = book.links
    for link, change in zip(book.ordered_links, changes, strict=True):
        assert link.next is not None
        following = changed(link.next, **change)
        links = links.set(link.channel_id, changed(link, next=following))
    return changed_in(state, book=changed(book, links=links))


def confirmed(state: LspState, txid: Any, *, depth: int = 1) -> LspState:
    chain = factory_of(state).chain
    height = chain.height - depth + 1
    return changed_in(state, chain=changed(chain, confirmed=chain.confirmed.update({txid: height})))


def test_the_state_is_signed_with_the_last_half_and_the_poisons_after_it() -> None:
    done = signed()
    word, held = done.first
    assert only(word, ar.AdvancePartialsReceived)
    assert only(held, ar.NextCommitmentHeld)
    assert not found(held, fx.PartialSign), "somebody did not sign"
    assert len(only(done.second[1], fx.PartialSign).requests) == 1
    assert only(done.second[1], op.SigningIntended)
    deadline = fx.AdvanceDeadline(advance_id=advance_of(done.pump).advance_id)
    assert only(done.state, ar.StateSigned)
    assert deadline in [one.deadline for one in found(done.state, fx.ClearDeadline)]
    assert not messages(done.state), "it is told with its poisons"
    assert len(only(done.state, fx.PartialSign).requests) == 3
    assert only(done.poisons, ar.PoisonHeld)
    told = [one for one in messages(done.poisons) if isinstance(one, m.AdvanceDone)]
    assert [bool(one.stock_poison and one.channel_poison) for one in told] == [True, True]
    session = advance_of(done.pump).session
    assert session is not None
    in_use = {
        one for link in factory_of(done.state.state).book.links.values() for one in link.pool_ids
    } - {pool.pool_id for pool in session.channel_pools.values()}
    assert session.factory_pool.pool_id in only(done.poisons, fx.DropPools).pool_ids
    assert not in_use & set(only(done.poisons, fx.DropPools).pool_ids)


def test_what_was_answered_before_is_answered_again_and_nothing_is_signed_twice() -> None:
    done = signed()
    one, half, two, half_2, part, parts = done.events
    for state, late in (
        (done.first[1].state, one),
        (done.first[1].state, half),
        (done.second[1].state, half_2),
        (done.poisons.state, part),
        (done.poisons.state, parts),
        (done.poisons.state, two),
    ):
        assert kept(decided_by(state, late)) == ()
    again = decided_by(done.state.state, part)
    assert kept(again) == ()


def test_a_state_is_not_signed_while_a_close_may_be_finished_or_the_old_one_is_there() -> None:
    """Of two that may confirm one would pay money out that the other has, too."""
    done = signed()
    before, half_2 = done.second[0].state, done.events[3]
    assert found(decided_by(before, half_2), fx.PartialSign)
    link = factory_of(before).book.ordered_links[0]
    close = SignedClose(close_id=bytes(32), outpoint=link.present.outpoint, balance_msat=1)
    closable = decided_by(with_links(before, closes=(close,)), half_2)
    assert not found(closable, fx.PartialSign | op.SigningIntended)
    txid = link.present.outpoint.txid
    assert found(
        decided_by(confirmed(before, txid, depth=SETTLED_DEPTH - 1), half_2), fx.PartialSign
    )
    landed = decided_by(confirmed(before, txid, depth=SETTLED_DEPTH), half_2)
    assert not found(landed, fx.PartialSign | op.SigningIntended)


def holding(pump: Pump, seat: int) -> ev.MessageReceived:
    advance_id = advance_of(pump).advance_id
    held = m.AdvanceHeld(attempt_id=pump.attempt.attempt_id, advance_id=advance_id)
    return said(pump.client_at(seat), held)


def test_that_a_client_holds_the_poisons_counts_once_and_if_it_can_be_so() -> None:
    """With the kickoff in a block it may see more than we do: it comes back, and is heard then."""
    done = signed()
    pump, unsent = done.pump, done.state.state
    event = holding(pump, NEIGHBOUR)
    acknowledged = decided_by(done.poisons.state, event)
    assert only(acknowledged, ar.AdvanceAcknowledged).client == NEIGHBOUR
    assert not found(decided_by(acknowledged.state, event), ar.AdvanceAcknowledged)
    later = decided_by(acknowledged.state, block(acknowledged.state))
    told = [one for one in found(later, fx.Send) if isinstance(one.message, m.AdvanceDone)]
    assert [one.node_id for one in told] == [pump.client_at(BUYER).node_id]
    lied = decided_by(unsent, event)
    assert only(lied, cr.ChannelFailed).reason.startswith("advance_held: expected the poisons")
    kicked_off = confirmed(unsent, pump.attempt.leaf(BUYER).kickoff.tx.txid)
    early = decided_by(kicked_off, event)
    assert kept(early) == ()
    parted = only(early, fx.Disconnect)
    assert (parted.node_id, parted.reason) == (pump.client_at(NEIGHBOUR).node_id, NOT_EARNED)


def test_a_deadline_that_comes_late_ends_nothing() -> None:
    done = signed()
    pump = done.pump
    for advance_id in (advance_of(pump).advance_id, bytes(32)):
        deadline = fx.AdvanceDeadline(advance_id=advance_id)
        event = ev.DeadlineReached(stream=pump.factory.stream, deadline=deadline)
        assert decided_by(done.state.state, event).is_nothing
    silent = decided(
        at_step(m.AdvanceCommit).lsp,
        ev.DeadlineReached(
            stream=at_step(m.AdvanceCommit).factory.stream,
            deadline=fx.AdvanceDeadline(advance_id=advance_of(at_step(m.AdvanceCommit)).advance_id),
        ),
    )
    assert only(silent, ar.AdvanceSessionEnded).holdouts == (BUYER, NEIGHBOUR)
    reasons = {one.reason for one in found(silent, fx.Disconnect)}
    assert reasons == {"deadline: no answer from clients [1, 2]"}
    assert not any(one.is_ours for one in found(silent, fx.Disconnect))


# How a try ends


def fails(pump: Pump) -> ev.SigningFailed:
    asked = fx.PartialSign(
        attempt_id=pump.attempt.attempt_id,
        requests=(),
        advance_id=advance_of(pump).advance_id,
    )
    return ev.SigningFailed(asked=asked, reason=WHY)


NOTHING, UNSAID = {"peer_stage": 0}, {"peer_stage": -1}
BOUND = {"peer_stage": 0, "is_dual": True}


@pytest.mark.parametrize(
    ("first", "second", "is_dropped"),
    [
        (NOTHING, NOTHING, True),
        (NOTHING, UNSAID, False),
        (UNSAID, NOTHING, False),
        (BOUND, NOTHING, False),
        (NOTHING, {"peer_stage": 1}, False),
    ],
)
def test_what_was_committed_is_dropped_only_once_everybody_said_that_it_signed_nothing(
    first: dict[str, Any], second: dict[str, Any], *, is_dropped: bool
) -> None:
    pump = at_step(m.AdvanceCommit)
    state = with_nexts(pump.lsp.state, first, second)
    decision = decided_by(state, fails(pump))
    assert len(found(decision, ar.AdvanceDropped)) == is_dropped
    assert len(found(decision, ar.AdvanceSessionEnded)) == (not is_dropped)


def test_what_the_lsp_is_about_to_sign_is_dropped_no_more() -> None:
    pump = at_step(m.AdvanceCommit)
    state = with_nexts(pump.lsp.state, NOTHING, NOTHING)
    intents = factory_of(signed().second[1].state).intents
    bound = decided_by(changed_in(state, intents=intents), fails(pump))
    assert found(bound, ar.AdvanceSessionEnded)
    assert not found(bound, ar.AdvanceDropped)
    assert not found(decided_by(signed().state.state, fails(signed().pump)), ar.AdvanceDropped)


def test_with_a_try_go_its_nonces_but_those_that_channels_use_and_who_waits_begins_anew() -> None:
    pump = at_step(m.AdvanceCommit)
    session = advance_of(pump).session
    assert session is not None
    decision = decided(pump.lsp, fails(pump))
    assert only(decision, fx.DropPools).pool_ids == (session.factory_pool.pool_id,)
    links = decision.state.book.links.values()
    used = {pool_id for link in links for pool_id in link.pool_ids}
    assert {pool.pool_id for pool in session.channel_pools.values()} <= used, "it may be signed yet"
    early = at_step(m.AdvanceAgree)
    asked = advance_of(early).session
    assert asked is not None
    assert set(only(decided(early.lsp, fails(early)), fx.DropPools).pool_ids) == set(asked.pool_ids)
    one = signed().first[1]
    half_way = decided_by(one.state, fails(signed().pump))
    (parted,) = found(half_way, fx.Disconnect)
    assert parted.is_ours
    bound = {
        link.node_id
        for link in factory_of(one.state).book.links.values()
        if link.next is not None and link.next.is_dual
    }
    assert parted.node_id not in bound, "who signed goes on"


def test_between_two_tries_nothing_ends() -> None:
    pump, _, neighbour = waiting()
    assert decided(pump.lsp, fails(pump)).is_nothing
    asking = decided(pump.lsp, block(pump.lsp.state))
    gone = decided_by(asking.state, ev.ConnectionClosed(node_id=neighbour.node_id))
    assert only(gone, ar.AdvanceSessionEnded).holdouts == ()
    failed = decided_by(
        asking.state, ev.AdvanceUnprepared(asked=only(asking, fx.PrepareAdvance), reason=WHY)
    )
    assert only(failed, ar.AdvanceSessionEnded)
    assert not found(gone, fx.Disconnect) + found(failed, fx.Disconnect), "nobody was asked"


def test_who_ends_it_hears_nothing_of_it_and_everybody_else_does() -> None:
    pump = at_step(m.AdvanceAgree)
    neighbour, buyer = pump.client_at(NEIGHBOUR), pump.client_at(BUYER)
    for event in (
        refusing(pump, NEIGHBOUR),
        ev.ConnectionClosed(node_id=neighbour.node_id),
    ):
        decision = decided(pump.lsp, event)
        assert only(decision, ar.AdvanceDropped)
        told = [
            one.node_id
            for one in found(decision, fx.Send)
            if isinstance(one.message, m.AdvanceAbort)
        ]
        assert told == [buyer.node_id]


def test_whoever_is_in_another_leaf_has_no_say_in_an_advance() -> None:
    pump = advancing_factory(4)
    buy(pump, BUYER)
    pump.run_to(m.AdvanceAgree)
    stranger = pump.client_at(3)
    abort = refusing(pump, 3)
    for event in (abort, replace(abort, node_id=stranger.node_id)):
        assert not found(decided(pump.lsp, event), ar.AdvanceDropped)
    gone = decided(pump.lsp, ev.ConnectionClosed(node_id=stranger.node_id))
    assert not found(gone, ar.AdvanceDropped)
    mine = next_message(pump, pump.lsp, m.AdvanceAgree)
    assert only(decided(pump.lsp, mine), ar.AdvanceAgreementReceived)
