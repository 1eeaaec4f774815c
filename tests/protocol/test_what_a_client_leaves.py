"""A client's exit as it is begun, paused and gone on with: what is remembered, and published."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.protocol.paying_clients import live_factory, pay
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_leaving import QUICK
from tests.protocol.unanswered import FIRST_MSAT

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.exiting.client import exit_effects, in_hand, watched
from cromford.protocol.exiting.in_hand import Risk
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.turn import Decision
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32
FEES: Final = OwnFees()


@cache
def at_rest() -> ClientState:
    """Return a client that has money in a factory in which nothing happens."""
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    state: ClientState = alice.state
    return state


def attempt_id() -> bytes:
    (found,) = at_rest().attempts
    return found


def leave(state: ClientState) -> Decision[ClientState]:
    return client_role.decide(state, ev.ExitRequested(attempt_id=attempt_id()))


def pause(state: ClientState, facts: Facts = FRESH) -> Decision[ClientState]:
    return client_role.decide(state, ev.ExitPauseRequested(attempt_id=attempt_id()), facts)


def block(state: ClientState, *txs: Tx, facts: Facts = FRESH) -> Decision[ClientState]:
    height = state.chain.height + 1
    block_hash = Txid(height.to_bytes(32, "big"))
    return client_role.decide(
        state, ev.BlockAdded(height=height, block_hash=block_hash, txs=txs), facts
    )


def exits(decision: Decision[ClientState]) -> list[object]:
    kinds = (xr.ExitStarted, xr.ExitPaused, xr.ExitResumed)
    return [one for one in decision.records if isinstance(one, kinds)]


def published(decision: Decision[ClientState]) -> list[str]:
    return [one.name for one in decision.effects if isinstance(one, fx.Broadcast)]


def deadline() -> int:
    (link,) = at_rest().book.ordered_links
    height = link.remaining(at_rest().chain).exit_deadline_height
    assert height is not None
    return height


def test_a_balance_has_to_be_on_chain_a_day_before_the_expiry() -> None:
    state = at_rest()
    (attempt,) = state.attempts.values()
    (link,) = state.book.ordered_links
    risk = Risk(end_height=link.expiry_height - 144, amount_sat=FIRST_MSAT // 1000)
    assert in_hand(state, attempt).stake.risks == (risk,)


def test_an_exit_is_begun_once_ends_the_updates_and_publishes_the_root() -> None:
    state = at_rest()
    assert exit_effects(state, state.attempts[attempt_id()], FEES) == ()
    first = leave(state)
    client = state.attempts[attempt_id()].client
    assert exits(first) == [
        xr.ExitStarted(attempt_id=attempt_id(), client=client, reason="the operator's wish")
    ]
    (failed,) = (one for one in first.records if isinstance(one, cr.ChannelFailed))
    assert failed.reason == "leaving by an exit"
    told = [one.message for one in first.effects if isinstance(one, fx.Send)]
    assert [type(one) for one in told] == [m.ChannelFailure]
    assert published(first) == ["kickoff_root"]
    (since,) = (one for one in first.records if isinstance(one, xr.FirstPublished))
    assert since.height == state.chain.height
    again = leave(first.state)
    assert again.records == ()
    assert published(again) == ["kickoff_root"]
    assert [one.name for one in exit_effects_of(first.state)] == ["kickoff_root"]


def exit_effects_of(state: ClientState) -> list[fx.Broadcast]:
    effects = exit_effects(state, state.attempts[attempt_id()], FEES)
    return [one for one in effects if isinstance(one, fx.Broadcast)]


def test_an_exit_rests_until_its_owner_goes_on_with_it() -> None:
    leaving = leave(at_rest()).state
    resting = pause(leaving)
    assert exits(resting) == [xr.ExitPaused(attempt_id=attempt_id())]
    assert exit_effects_of(resting.state) == []
    assert pause(resting.state).records == (), "it rests already"
    after = block(resting.state)
    assert (exits(after), published(after)) == ([], [])
    resumed = leave(after.state)
    assert exits(resumed) == [xr.ExitResumed(attempt_id=attempt_id(), reason="the operator's wish")]
    assert published(resumed) == ["kickoff_root"]


def test_an_exit_rests_no_longer_than_to_its_deadline_by_the_highest_block_that_is_known() -> None:
    leaving = leave(at_rest()).state
    resting = pause(leaving).state
    in_time = replace(FRESH, header_height=deadline() - 1)
    assert exits(pause(leaving, in_time)) == [xr.ExitPaused(attempt_id=attempt_id())]
    assert exits(block(resting, facts=in_time)) == []
    late = replace(FRESH, header_height=deadline())
    with pytest.raises(Rejected, match="the exit cannot wait: the exit deadline") as refused:
        pause(leaving, late)
    assert refused.value.code == "exit_is_due"
    gone_on = block(resting, facts=late)
    assert exits(gone_on) == [xr.ExitResumed(attempt_id=attempt_id(), reason="the exit deadline")]
    assert published(gone_on) == ["kickoff_root"]


def test_only_an_exit_that_was_begun_rests_and_only_a_factory_of_ones_own_is_left() -> None:
    for event, code in (
        (ev.ExitPauseRequested(attempt_id=OTHER), "factory_not_found"),
        (ev.ExitPauseRequested(attempt_id=attempt_id()), "not_exiting"),
        (ev.ExitRequested(attempt_id=OTHER), "factory_not_found"),
        (
            ev.ExitRequested(attempt_id=attempt_id(), publishes_stale=True),
            "store_not_restored",
        ),
    ):
        with pytest.raises(Rejected) as refused:
            client_role.decide(at_rest(), event)
        assert refused.value.code == code


@pytest.mark.parametrize(("before_blocks", "is_early"), [(100, True), (0, True), (-1, False)])
def test_what_was_swept_above_its_channel_is_told_and_left_by_nobody(
    before_blocks: int, *, is_early: bool
) -> None:
    """Up to its expiry only all together spend it: then somebody else has a client's own key."""
    state = at_rest()
    (link,) = state.book.ordered_links
    attempt = state.attempts[attempt_id()]
    sweep = spend_of(attempt.funding_outpoint, 1_000)
    state = skipped(state, attempt.terms.expiry_height - before_blocks - 1)
    swept = block(state, sweep)
    (failed,) = (one for one in swept.records if isinstance(one, cr.ChannelFailed))
    assert ("look for a copy of the seed" in failed.reason) is is_early
    assert exits(swept) == []
    assert link.funding_on(swept.state.chain).outpoint in watched(swept.state)
    with pytest.raises(Rejected, match=str(sweep.txid)) as refused:
        leave(swept.state)
    assert refused.value.code == "factory_swept"
    assert exit_effects_of(swept.state) == []


def skipped(state: ClientState, height: int) -> ClientState:
    """Return a client that has read blocks up to a height, and none of its own accord left for."""
    ref = replace(state.chain.recent[-1], height=height)
    return replace(state, chain=replace(state.chain, recent=(ref,)))


def test_its_channel_is_looked_after_before_its_output_is_on_chain() -> None:
    state = at_rest()
    attempt = state.attempts[attempt_id()]
    link = next(iter(state.book.links.values()))
    assert {attempt.funding_outpoint, link.present.outpoint} <= watched(state)
