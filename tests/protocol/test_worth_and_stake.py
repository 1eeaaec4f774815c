"""When a channel is worth an exit, when it has to be left, and who may wait: in numbers."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.protocol.paying_clients import live_factory
from tests.protocol.test_leaving import QUICK
from tests.protocol.unanswered import WORTH_MSAT, only_expiry, pending_for

from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.stake import (
    balance_output_sat,
    failed_long_ago,
    htlcs_at_stake,
    is_failed_for_long,
    is_htlc_at_stake,
    is_just_back,
    is_worth_an_exit,
    may_be_worth_an_exit,
)
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.watch.feerates import OwnFees
from cromford.watch.worth import sweep_sat

FEES: Final = OwnFees(estimates=((1008, 2_000),))  # 8 sat/vB: a sweep costs more than dust.


@cache
def pending() -> tuple[ClientState, Link]:
    """Return a client that offered an HTLC which nobody answers, and its channel."""
    pump = live_factory(3, policy=QUICK)
    alice, link = pending_for(pump, "payer", WORTH_MSAT)
    return alice.state, link


def book() -> Book:
    return pending()[0].book


def owning(amount_sat: int, *, holds: bool = False) -> Link:
    """Return the channel with this balance, and with its HTLC or without."""
    _, link = pending()
    htlcs = link.state.htlcs if holds else ()
    offered_msat = sum(live.htlc.amount_msat for live in htlcs)
    own_msat = MSAT_PER_SAT * amount_sat + offered_msat
    link = replace(link, state=replace(link.state, accepter_msat=own_msat, htlcs=htlcs))
    assert balance_output_sat(link) == amount_sat
    return link


def least_sat() -> int:
    least = sweep_sat(FEES)
    assert least > pending()[1].exit_cost_sat
    return least


def test_a_balance_is_worth_an_exit_if_it_is_more_than_its_sweep_costs() -> None:
    assert not is_worth_an_exit(book(), owning(least_sat()), FEES)
    assert is_worth_an_exit(book(), owning(least_sat() + 1), FEES)
    assert is_worth_an_exit(book(), owning(0, holds=True), FEES), "an HTLC always is"
    cheap = OwnFees(estimates=((1008, 25),))
    fixed = pending()[1].exit_cost_sat
    assert sweep_sat(cheap) < fixed
    assert not is_worth_an_exit(book(), owning(fixed), cheap)
    assert is_worth_an_exit(book(), owning(fixed + 1), cheap)


def test_a_store_that_may_lack_state_leaves_for_what_may_be_its_own() -> None:
    """Until both stores were compared any of it may be; then what they found counts."""
    little, enough = owning(least_sat()), owning(least_sat() + 1)
    assert not may_be_worth_an_exit(book(), little, FEES)
    assert may_be_worth_an_exit(book(), enough, FEES)
    assert may_be_worth_an_exit(book(), replace(little, mark=StoreMark()), FEES)
    assert may_be_worth_an_exit(book(), replace(little, is_behind=True), FEES)
    for found_msat, is_worth_it in (
        (MSAT_PER_SAT * least_sat() + 999, False),
        (MSAT_PER_SAT * (least_sat() + 1), True),
    ):
        marked = replace(enough, mark=StoreMark(agreed_msat=found_msat))
        assert may_be_worth_an_exit(book(), marked, FEES) is is_worth_it


def test_an_htlc_has_to_be_left_for_from_its_height_on_unless_it_can_wait() -> None:
    state, link = pending()
    due = publish_height(link, only_expiry(link), chain=state.chain)
    (htlc,) = htlcs_at_stake(state.book, link)

    def has_to(height: int, *patient: int) -> bool:
        return is_htlc_at_stake(state.book, link, chain=state.chain, height=height, patient=patient)

    assert [has_to(height) for height in (due - 1, due, due + 1)] == [False, True, True]
    assert not has_to(due + 1, htlc.htlc_id)
    assert has_to(due + 1, htlc.htlc_id + 1)


def test_one_that_it_was_offered_can_never_wait_whatever_its_number() -> None:
    """Its payer may take it back from its expiry on."""
    pump = live_factory(3, policy=QUICK)
    bob, link = pending_for(pump, "payee", WORTH_MSAT)
    (htlc,) = htlcs_at_stake(bob.state.book, link)
    due = publish_height(link, htlc.cltv_expiry, chain=bob.state.chain)
    for height, has_to in ((due - 1, False), (due, True)):
        assert has_to is is_htlc_at_stake(
            bob.state.book, link, chain=bob.state.chain, height=height, patient=[htlc.htlc_id]
        )


def test_what_is_on_no_commitment_or_has_no_output_is_not_at_stake() -> None:
    state, link = pending()
    (live,) = link.state.htlcs
    small = replace(live, htlc=replace(live.htlc, amount_msat=1_000))
    for htlcs in ((small,), ()):
        changed = replace(link, state=replace(link.state, htlcs=htlcs))
        assert htlcs_at_stake(state.book, changed) == []


@pytest.mark.parametrize(
    ("facts", "height", "is_back"),
    [
        (FRESH, 100, False),  # It is not known that it was away.
        (FRESH, 3, False),
        (replace(FRESH, fresh_since=0), 0, True),
        (replace(FRESH, fresh_since=0), 5, True),
        (replace(FRESH, fresh_since=0), 6, False),
        (replace(FRESH, fresh_since=100), 105, True),
        (replace(FRESH, fresh_since=100), 106, False),
        (replace(FRESH, stale="no block comes"), 1_000, True),
        (replace(FRESH, stale="no block comes", fresh_since=100), 1_000, True),
    ],
)
def test_who_was_away_waits_for_six_blocks_for_the_other_side_to_come_back(
    facts: Facts, height: int, *, is_back: bool
) -> None:
    assert is_just_back(facts, height=height) is is_back


def test_a_channel_that_failed_is_left_after_so_many_blocks_and_says_why() -> None:
    link = replace(pending()[1], failure="it broke", failed_height=100)

    def is_long_ago(height: int) -> bool:
        return is_failed_for_long(link, failed_channel_blocks=144, height=height)

    assert [is_long_ago(height) for height in (243, 244, 245)] == [False, True, True]
    assert failed_long_ago(link) == "the channel failed at height 100: it broke"
    whole = pending()[1]
    assert not is_failed_for_long(whole, failed_channel_blocks=0, height=1_000)
