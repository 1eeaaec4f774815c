"""When a client leaves by itself, to the block, and what keeps it from that."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_looked_after import link as pending_link
from tests.protocol.test_looked_after import pending
from tests.protocol.test_what_a_client_leaves import at_rest, block, deadline, skipped
from tests.protocol.unanswered import only_expiry

from cromford.bitcoin.tx import OutPoint
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.link import Link
from cromford.watch.feerates import OwnFees

DEAR: Final = replace(FRESH, fees=OwnFees(estimates=((1008, 250_000),)))  # 1,000 sat/vB.
FAILED: Final = "it broke"


def channel(state: ClientState) -> Link:
    (link,) = state.book.ordered_links
    return link


def having(state: ClientState, **changes: Any) -> ClientState:
    """Return a client whose channel is otherwise."""
    link = replace(channel(state), **changes)
    book = replace(state.book, links=state.book.links.set(link.channel_id, link))
    return replace(state, book=book)


def reason_at(state: ClientState, height: int, facts: Facts = FRESH) -> str | None:
    """Return why a client leaves with the block of a height; None if it does not."""
    decision = block(skipped(state, height - 1), facts=facts)
    started = [one.reason for one in decision.records if isinstance(one, xr.ExitStarted)]
    assert all(started)
    assert len(started) <= 1
    return started[0] if started else None


def test_at_its_exit_deadline_it_leaves_for_a_balance_that_is_worth_it() -> None:
    why = "the exit deadline"
    told = [reason_at(at_rest(), deadline() + after) for after in (-1, 0, 1, 100)]
    assert told == [None, why, why, why]
    assert reason_at(at_rest(), deadline(), DEAR) is None
    marked = having(at_rest(), is_behind=True)
    assert reason_at(marked, deadline(), DEAR) == why, "any of it may be its own"


def test_for_an_htlc_of_its_own_it_leaves_in_time_whatever_fees_are() -> None:
    due = publish_height(pending_link(), only_expiry(pending_link()), chain=pending().chain)
    why = "an HTLC expires"
    for facts in (FRESH, DEAR):
        told = [reason_at(pending(), due + after, facts) for after in (-1, 0, 1)]
        assert told == [None, why, why]


def test_who_was_away_gives_the_lsp_six_blocks_to_pay_it_back() -> None:
    """What it paid itself only the preimage takes: nothing is lost by it."""
    due = publish_height(pending_link(), only_expiry(pending_link()), chain=pending().chain)
    back = replace(FRESH, fresh_since=due)
    told = [reason_at(pending(), due + after, back) for after in (0, 5, 6)]
    assert told == [None, None, "an HTLC expires"]
    reading = replace(FRESH, stale="its blocks are behind")
    assert reason_at(pending(), due, reading) is None


def failed() -> ClientState:
    return having(at_rest(), failure=FAILED, failed_height=at_rest().chain.height)


def patience() -> int:
    blocks: int = at_rest().config.policy.failed_channel_blocks
    return blocks


def test_a_channel_that_failed_is_left_a_day_later_if_that_is_worth_it() -> None:
    height = at_rest().chain.height
    why = f"the channel failed at height {height}: {FAILED}"
    told = [reason_at(failed(), height + patience() + after) for after in (-1, 0, 1)]
    assert told == [None, why, why]
    assert reason_at(failed(), height + patience(), DEAR) is None
    assert reason_at(at_rest(), height + patience()) is None


def test_what_stands_still_because_of_a_close_has_not_failed() -> None:
    state = failed()
    (attempt,) = state.attempts.values()
    close = SignedClose(
        close_id=b"\x01" * 32,
        outpoint=attempt.funding_outpoint,
        balance_msat=0,
        is_finished=True,
    )
    frozen = having(state, closes=(close,))
    height = state.chain.height
    assert reason_at(frozen, height + patience()) is None
    assert reason_at(frozen, deadline()) == "the exit deadline", "an exit beside it is in time"


@pytest.mark.parametrize("place", ["funding", "channel"])
def test_what_is_spent_is_left_by_nobody(place: str) -> None:
    """Its funding went elsewhere, or its own output did: no exit leads to it any more."""
    state = at_rest()
    (attempt,) = state.attempts.values()
    where: OutPoint = (
        attempt.funding_outpoint if place == "funding" else channel(state).present.outpoint
    )
    spent = block(state, spend_of(where, 1_000)).state
    assert reason_at(spent, deadline()) is None


def test_while_its_funding_is_off_the_chain_it_waits() -> None:
    state = at_rest()
    (attempt,) = state.attempts.values()
    confirmed = state.chain.confirmed.delete(attempt.funding_tx.txid)
    gone = replace(state, chain=replace(state.chain, confirmed=confirmed))
    assert reason_at(gone, deadline()) is None
    assert reason_at(state, deadline()) is not None


def test_an_exit_that_is_under_way_is_not_begun_again() -> None:
    begun = block(skipped(at_rest(), deadline() - 1)).state
    assert begun.attempts[next(iter(begun.attempts))].is_exiting
    assert reason_at(begun, deadline() + 1) is None


def reason_by_headers(state: ClientState, header_height: int) -> str | None:
    """Return why a client leaves that only hears of blocks; None if it does not."""
    facts = replace(FRESH, stale="no block comes", header_height=header_height)
    decision = client_role.decide(state, ev.FactsChanged(), facts)
    started = [one.reason for one in decision.records if isinstance(one, xr.ExitStarted)]
    assert all(started)
    assert len(started) <= 1
    return started[0] if started else None


def test_where_no_block_comes_it_leaves_in_time_by_the_headers_and_waits_for_nobody() -> None:
    due = publish_height(pending_link(), only_expiry(pending_link()), chain=pending().chain)
    told = [reason_by_headers(pending(), due + after) for after in (-1, 0, 1)]
    assert told == [None, "an HTLC expires", "an HTLC expires"]
    told = [reason_by_headers(at_rest(), deadline() + after) for after in (-1, 0, 1)]
    assert told == [None, "the exit deadline", "the exit deadline"]
    begun = block(skipped(at_rest(), deadline() - 1)).state
    assert reason_by_headers(begun, deadline() + 1) is None, "it does so already"
