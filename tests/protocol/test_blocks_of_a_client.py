"""What a client remembers, says and does with a block: of each factory that it is, or was, in."""

from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

import pytest
from tests.protocol.advanced import Step, kickoff_of
from tests.protocol.old_states import POLICY as SELLING
from tests.protocol.old_states import channel_outpoint, sold, state_of
from tests.protocol.paying_clients import book, live_factory, pay
from tests.protocol.pump import Pump
from tests.protocol.seen_blocks import buried, spending
from tests.protocol.signed_closes import CLOSE_ID
from tests.protocol.test_early_exits import POLICY as SLOW
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_looked_after import pending
from tests.protocol.test_published_exits import (
    having,
    on_way,
    only_attempt,
    only_link,
)
from tests.protocol.test_what_a_client_leaves import at_rest, block, deadline, leave, pause, skipped
from tests.protocol.unanswered import FIRST_MSAT

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.channel.stage import HtlcStage
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.channels.htlc_rules import give_up_height, publish_height
from cromford.protocol.exiting.channel import ELSEWHERE, OVERTAKEN
from cromford.protocol.exiting.client import (
    EXITING,
    arriving_of_attempt_sat,
    arriving_total_sat,
    exit_effects,
    in_hand,
    is_over,
    is_swept,
    was_closed,
    watched,
)
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.client_attempt import ClientAttempt, Received
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.turn import Decision
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

DEEP: Final = 6
OTHER: Final = b"\x0c" * 32
R = TypeVar("R")


def of(decision: Decision[ClientState], kind: type[R]) -> list[R]:
    return [one for one in decision.records if isinstance(one, kind)]


def failures(decision: Decision[ClientState]) -> list[tuple[str, bool]]:
    """Return why channels ended, and whether the LSP is told."""
    told = [one.message for one in decision.effects if isinstance(one, fx.Send)]
    said = {one.channel_id for one in told if isinstance(one, m.ChannelFailure)}
    return [(one.reason, one.channel_id in said) for one in of(decision, cr.ChannelFailed)]


def as_attempt(state: ClientState, **changes: Any) -> ClientState:
    """Return a client whose only attempt is otherwise."""
    attempt = changed(only_attempt(state), **changes)
    return replace(state, attempts={attempt.attempt_id: attempt})


def on(state: ClientState, chain: KnownChain) -> ClientState:
    return replace(state, chain=chain)


def by_headers(state: ClientState, header_height: int) -> Decision[ClientState]:
    """Return what a client decides that hears of blocks, and is shown none."""
    facts = replace(FRESH, stale="no block comes", header_height=header_height)
    return client_role.decide(state, ev.FactsChanged(), facts)


def retired() -> ClientState:
    return as_attempt(at_rest(), retired_height=1)


def root() -> Tx:
    return only_attempt(at_rest()).signed_branch.txs[0]


# What is told of the tree


def test_what_a_block_has_of_its_branch_is_told_once() -> None:
    seen = block(at_rest(), root())
    told = xr.TreePublished(
        attempt_id=only_attempt(at_rest()).attempt_id,
        height=seen.state.chain.height,
        transactions=("kickoff_root",),
    )
    assert of(seen, xr.TreePublished) == [told]
    assert of(block(seen.state), xr.TreePublished) == []
    assert of(block(at_rest()), xr.TreePublished) == []


def test_of_a_factory_that_it_moved_out_of_nothing_is_told_or_done_any_more() -> None:
    """Its keys are not its own alone: others may leave with them, and that is not its exit."""
    for state in (retired(), as_attempt(retired(), is_exiting=True)):
        seen = block(state, root())
        assert of(seen, xr.TreePublished) == []
        assert failures(seen) == []
        assert exit_effects(state, only_attempt(state), OwnFees()) == ()
        assert watched(state) == frozenset()
    there = on_way(retired(), 2, only_link(at_rest()).finished.tx)
    assert arriving_of_attempt_sat(there, only_attempt(there)) == FIRST_MSAT // 1000
    assert arriving_total_sat(there) == 0
    assert of(by_headers(retired(), deadline()), xr.ExitStarted) == []
    with pytest.raises(Rejected) as refused:
        leave(retired())
    assert refused.value.code == "moved_out"


def test_what_was_never_accepted_is_nothing_on_chain() -> None:
    """A proposal that was refused stays known; nothing follows from it."""
    unchecked = changed(only_attempt(at_rest()), attempt_id=OTHER, stage=Received())
    state = at_rest()
    both = replace(state, attempts={OTHER: unchecked, **state.attempts})
    assert watched(both) == watched(state)
    there = on_way(state, 2, only_link(state).finished.tx)
    beside = replace(there, attempts={OTHER: unchecked, **there.attempts})
    assert arriving_total_sat(beside) == arriving_total_sat(there) == FIRST_MSAT // 1000
    assert not is_swept(both, unchecked)


# Several factories


@cache
def two() -> tuple[ClientState, ClientAttempt, ClientAttempt]:
    """Return a client with money in two factories, the older one first."""
    pump = Pump(1, policy=QUICK)
    (alice,) = pump.clients
    for _ in range(2):
        pump.join(alice)
        pump.build()
        pump.run()
        pump.mine(QUICK.min_depth)
        assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    state: ClientState = alice.state
    older, newer = state.attempts.values()
    return state, older, newer


def closed_by(attempt: ClientAttempt) -> tuple[SignedClose, Tx]:
    """Return a close of a whole factory, and the transaction that is it."""
    outpoint = attempt.funding_outpoint
    tx = spending(outpoint, sat=2_000)
    close = SignedClose(
        close_id=CLOSE_ID, outpoint=outpoint, balance_msat=0, is_finished=True, txids=(tx.txid,)
    )
    return close, tx


def without_link(state: ClientState, attempt: ClientAttempt) -> ClientState:
    links = state.book.links.delete(attempt.setting.channel_id)
    return replace(state, book=replace(state.book, links=links))


@pytest.mark.parametrize("older_is", ["moved out of", "not ready", "closed"])
def test_whatever_became_of_one_factory_the_next_one_is_left_in_time(older_is: str) -> None:
    state, older, newer = two()
    if older_is == "moved out of":
        older = changed(older, retired_height=1)
    elif older_is == "not ready":
        older = changed(older, ready_sent=False, ready_received=False)
        state = without_link(state, older)
        confirmed = state.chain.confirmed.delete(older.funding_tx.txid)
        state = on(state, replace(state.chain, confirmed=confirmed))
    else:
        close, tx = closed_by(older)
        link = state.book.links[older.setting.channel_id]
        links = state.book.links.set(link.channel_id, changed(link, closes=(close,)))
        state = replace(state, book=replace(state.book, links=links))
        state = on(state, buried(state.chain, 2, tx))
    attempts = {older.attempt_id: older, newer.attempt_id: newer}
    state = replace(state, attempts=attempts)
    link = state.book.links[newer.setting.channel_id]
    height = link.remaining(state.chain).exit_deadline_height
    assert height is not None
    seen = block(skipped(state, height - 1))
    started = [one.attempt_id for one in of(seen, xr.ExitStarted)]
    assert started == [newer.attempt_id]


# A close


def close_in_block() -> tuple[ClientState, Tx]:
    close, tx = closed_by(only_attempt(at_rest()))
    return having(at_rest(), closes=(close,)), tx


def test_a_close_in_a_block_is_told_and_ends_the_channel_six_blocks_deep() -> None:
    state, tx = close_in_block()
    seen = block(state, tx)
    (told,) = of(seen, cl.CloseConfirmed)
    assert (told.close_id, told.txid) == (CLOSE_ID, tx.txid)
    assert failures(seen) == [], "a reorganisation may take it back"
    for depth in range(2, DEEP):
        seen = block(seen.state)
        assert (of(seen, cl.CloseConfirmed), failures(seen)) == ([], []), depth
    assert failures(block(seen.state)) == [(CLOSED_TOGETHER, False)]


def test_a_close_in_a_block_is_no_sweep_and_leaves_nothing_to_leave() -> None:
    state, tx = close_in_block()
    before = only_attempt(state)
    assert not was_closed(state, before)
    assert not is_over(state, before)
    there = on(state, buried(state.chain, 1, tx))
    assert was_closed(there, before)
    assert is_over(there, before)
    assert not is_swept(there, before)
    with pytest.raises(Rejected) as refused:
        leave(there)
    assert refused.value.code == "factory_closed"
    leaving = as_attempt(there, is_exiting=True)
    assert exit_effects(leaving, only_attempt(leaving), OwnFees()) == ()
    assert of(block(skipped(there, deadline() - 1)), xr.ExitStarted) == []


# The end of a channel's updates


def test_an_exit_that_began_before_its_channel_did_ends_its_updates_and_says_so() -> None:
    assert failures(block(at_rest())) == []
    leaving = as_attempt(at_rest(), is_exiting=True)
    assert failures(block(leaving)) == [(EXITING, True)]


def test_a_channel_that_is_on_chain_ends_its_updates_and_both_sides_see_that() -> None:
    there = on_way(at_rest(), 2)
    assert failures(block(there)) == []
    spent = block(there, spending(only_link(there).present.outpoint))
    assert failures(spent) == [("the channel is on chain", False)]
    swept = block(at_rest(), spending(only_attempt(at_rest()).funding_outpoint))
    ((_, is_told),) = failures(swept)
    assert not is_told


# HTLCs of its own


def test_a_block_that_decides_an_htlc_is_taken_as_its_answer() -> None:
    link = only_link(pending())
    (live,) = link.state.htlcs
    there = on(pending(), buried(pending().chain, 20, link.finished.tx))
    (vout,) = (vout for vout, one in enumerate(link.finished.commitment.outputs) if one.htlc)
    back = on(there, buried(there.chain, DEEP - 1, spending(link.finished.tx.outpoint(vout))))
    assert of(block(there), cr.HtlcDecided) == []
    decided = cr.HtlcDecided(channel_id=link.channel_id, htlc_id=live.htlc.htlc_id, preimage=None)
    seen = block(back)
    assert of(seen, cr.HtlcDecided) == [decided]
    (payment,) = seen.state.book.payments.values()
    assert payment.status == "failed"


def test_what_was_not_signed_before_its_channel_ended_is_back_with_the_next_block() -> None:
    link = only_link(pending())
    (live,) = link.state.htlcs
    proposed = changed(link.state, htlcs=(changed(live, stage=HtlcStage.ADD_PROPOSED),))
    link = changed(link, state=proposed, failure="it broke", failed_height=3)
    over = replace(pending().book, links=pending().book.links.set(link.channel_id, link))
    assert [one.preimage for one in of(block(replace(pending(), book=over)), cr.HtlcDecided)] == [
        None
    ]


def untold(state: ClientState, ended_by: Tx, *, n_steps: int = 0) -> Decision[ClientState]:
    """Return what follows of the block at which an HTLC is given up, below what ended it."""
    (live,) = only_link(state).state.htlcs
    ended = on_way(state, n_steps, ended_by)
    height = give_up_height(live.htlc.cltv_expiry)
    assert of(block(skipped(ended, height - 2)), cr.OutgoingEnded) == []
    return block(skipped(ended, height - 1))


def test_an_htlc_below_a_funding_that_lost_its_place_ends_with_its_channel() -> None:
    """Nobody in it says anything any more, and nobody is told."""
    funding = only_attempt(pending()).funding_tx
    confirmed = pending().chain.confirmed.delete(funding.txid)
    gone = on(pending(), replace(pending().chain, confirmed=confirmed))
    rival = spending(funding.inputs[0].outpoint)
    seen = untold(gone, rival)
    assert [one.reason for one in of(seen, cr.OutgoingEnded)] == [OVERTAKEN]
    assert failures(seen) == [(OVERTAKEN, False)]
    marked = untold(having(gone, mark=StoreMark()), rival)
    assert [one.reason for one in of(marked, cr.OutgoingEnded)] == [OVERTAKEN]
    assert failures(marked) == [], "by its mark it stands still already"


def test_an_htlc_in_what_no_store_knows_ends_once_that_is_deep() -> None:
    seen = untold(pending(), spending(only_link(pending()).present.outpoint), n_steps=4)
    assert [one.reason for one in of(seen, cr.OutgoingEnded)] == [ELSEWHERE]
    again = block(seen.state)
    assert of(again, cr.OutgoingEnded) == []


# A rest


def resting() -> ClientState:
    return pause(leave(at_rest()).state).state


def test_a_rest_ends_by_headers_alone_where_no_block_comes() -> None:
    assert of(by_headers(resting(), deadline() - 1), xr.ExitResumed) == []
    gone_on = by_headers(resting(), deadline())
    assert [one.reason for one in of(gone_on, xr.ExitResumed)] == ["the exit deadline"]
    published = [one.name for one in gone_on.effects if isinstance(one, fx.Broadcast)]
    assert "kickoff_root" in published


def test_a_rest_ends_where_an_htlc_of_its_own_could_be_lost() -> None:
    (live,) = only_link(pending()).state.htlcs
    due = publish_height(only_link(pending()), live.htlc.cltv_expiry, chain=pending().chain)
    attempt_id = only_attempt(pending()).attempt_id
    begun = client_role.decide(pending(), ev.ExitRequested(attempt_id=attempt_id)).state
    rests = client_role.decide(begun, ev.ExitPauseRequested(attempt_id=attempt_id)).state
    assert of(block(skipped(rests, due - 2)), xr.ExitResumed) == []
    gone_on = block(skipped(rests, due - 1))
    assert [one.reason for one in of(gone_on, xr.ExitResumed)] == ["an HTLC expires"]


def test_a_rest_goes_on_though_its_channel_failed_long_ago() -> None:
    """Its own exit ended it: that is no news."""
    (link,) = resting().book.ordered_links
    assert link.failed_height is not None
    blocks = at_rest().config.policy.failed_channel_blocks
    seen = block(skipped(resting(), link.failed_height + 2 * blocks))
    assert of(seen, xr.ExitResumed) == []
    assert seen.state.attempts[only_attempt(at_rest()).attempt_id].is_paused


@cache
def shallow() -> ClientState:
    """Return a client whose funding has one confirmation of the three that it takes."""
    pump = Pump(1, policy=SLOW)
    pump.join()
    pump.build()
    pump.run()
    pump.mine()
    state: ClientState = pump.clients[0].state
    assert not only_attempt(state).ready_sent
    assert not state.book.links
    return state


def test_what_is_not_ready_yet_is_left_and_rests_like_any_other() -> None:
    attempt_id = only_attempt(shallow()).attempt_id
    begun = client_role.decide(shallow(), ev.ExitRequested(attempt_id=attempt_id))
    assert len(of(begun, xr.ExitStarted)) == 1
    rests = client_role.decide(begun.state, ev.ExitPauseRequested(attempt_id=attempt_id))
    assert of(rests, xr.ExitPaused) == [xr.ExitPaused(attempt_id=attempt_id)]
    for state in (shallow(), begun.state):
        assert of(by_headers(state, 1_000), xr.ExitStarted) == []
    with pytest.raises(Rejected) as refused:
        client_role.decide(shallow(), ev.ExitRequested(attempt_id=attempt_id, publishes_stale=True))
    assert refused.value.code == "channel_not_ready"


def test_the_risk_of_a_stale_commitment_is_taken_once() -> None:
    marked = having(at_rest(), mark=StoreMark())
    asked = ev.ExitRequested(attempt_id=only_attempt(marked).attempt_id, publishes_stale=True)
    first = client_role.decide(marked, asked)
    assert of(first, cr.StaleAllowed) == [cr.StaleAllowed(channel_id=only_link(marked).channel_id)]
    assert of(client_role.decide(first.state, asked), cr.StaleAllowed) == []


# States of its leaf


def test_a_state_that_others_signed_is_learned_from_its_block() -> None:
    pump, done = sold(Step.DONE)
    alice = pump.clients[0]
    (attempt,) = alice.state.attempts.values()
    (link,) = alice.state.book.ordered_links
    assert {one.outpoint for one in link.fundings} <= watched(alice.state)
    assert {one.outpoint for one in link.fundings} - {one.outpoint for one in attempt.fundings}, (
        "one of them is not yet a state of its leaf"
    )
    there = on(alice.state, buried(alice.state.chain, 20, kickoff_of(pump)))
    seen = block(there, state_of(pump, done, 1))
    (learned,) = of(seen, ar.StateSigned)
    assert learned.signature == state_of(pump, done, 1).inputs[0].witness[0]


def test_a_state_that_was_replaced_is_left_by_its_poisons_alone() -> None:
    pump, done = sold()
    alice = pump.clients[0]
    state = alice.state
    chain = buried(state.chain, 20, kickoff_of(pump))
    chain = buried(chain, 20, state_of(pump, done, 0))
    over = having(on(state, chain), failure="it broke", failed_height=chain.height)
    late = skipped(over, chain.height + 2 * SELLING.failed_channel_blocks)
    assert of(block(late), xr.ExitStarted) == []
    place = channel_outpoint(done, 0, alice)
    taken = spending(place)
    assert taken.outpoint(0) not in watched(on(state, chain))
    assert taken.outpoint(0) in watched(on(state, buried(chain, 1, taken))), "it may be a cheat's"


def test_what_is_signed_of_poisons_takes_the_place_of_what_waits() -> None:
    """It was signed at the rate of this block."""
    pump, done = sold()
    alice = pump.clients[0]
    chain = buried(alice.state.chain, 20, kickoff_of(pump))
    chain = buried(chain, 2, state_of(pump, done, 0))
    there = on(alice.state, chain)
    attempt = only_attempt(there)
    published = exit_effects(there, attempt, OwnFees())
    poisons = [one.tx for one in published if isinstance(one, fx.Broadcast)]
    assert len(poisons) == len(published) == 2
    there = on(there, buried(chain, 1, *poisons))
    (asked,) = exit_effects(there, attempt, OwnFees())
    assert isinstance(asked, fx.SignPayouts)
    signed = client_role.decide(there, ev.PayoutsSigned(asked=asked, tx=asked.spend.tx))
    assert signed.effects == (
        fx.Broadcast(name=asked.spend.name, tx=asked.spend.tx, replaces=True),
    )
    assert signed.records == ()


# What it holds


def test_the_preimages_that_it_holds_are_those_of_invoices_that_it_is_paid_for() -> None:
    """Another's HTLC of the same hash is not what was asked for: it is not to be had for less."""
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    state: ClientState = alice.state
    ((paid, invoice),) = book(alice).invoices.items()
    unpaid = changed(invoice, payment_hash=OTHER, paid_by=None)
    invoices = state.book.invoices.set(OTHER, unpaid)
    both = replace(state, book=replace(state.book, invoices=invoices))
    assert in_hand(both, only_attempt(both)).preimages == {paid: invoice.preimage}


def test_outputs_of_a_commitment_are_watched_once_it_is_in_a_block() -> None:
    link = only_link(at_rest())
    own = link.finished.tx
    before = watched(on_way(at_rest(), 2))
    assert not before & set(own.outpoints)
    assert set(own.outpoints) <= watched(on_way(at_rest(), 2, own))
