"""What waiting could lose in a channel, HTLC by HTLC, and what is worth leaving for."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.channel import specimen
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.seen_blocks import up_to
from tests.protocol.unanswered import chain_at

from cromford.changed import changed
from cromford.channel.stage import HtlcStage, LiveHtlc, Removal
from cromford.channel.terms import Party
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.stake import (
    htlcs_at_stake,
    is_failed_for_long,
    is_htlc_at_stake,
    is_just_back,
    is_worth_an_exit,
    may_be_worth_an_exit,
    patient,
)
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.book import Book, Errand, Forward, OwnInvoice, Payment
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees
from cromford.watch.worth import sweep_sat

EXPIRY: Final = 1_000
OWN_MSAT: Final = 20_000_123
WORTH_MSAT: Final = 9_000_000
FEES: Final = OwnFees()


@pytest.fixture(scope="module")
def ends() -> tuple[Factory, Link, Link]:
    """Return a factory, and both ends of a client's channel in it, who owns 20,000.123 sat."""
    pump = live_factory(1)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, OWN_MSAT).status == "paid"
    link = newest_link(alice)
    return pump.factory, lsp_link(pump, link), link


@pytest.fixture
def link(ends: tuple[Factory, Link, Link]) -> Link:
    """Return the client's end of it."""
    return ends[2]


def live(
    offered_by: Party,
    htlc_id: int = 0,
    *,
    amount_msat: int = WORTH_MSAT,
    expiry: int = EXPIRY,
    stage: HtlcStage = HtlcStage.LOCKED_IN,
    removal: Removal | None = None,
) -> LiveHtlc:
    htlc = specimen.htlc(offered_by, htlc_id, amount_msat, expiry=expiry)
    return LiveHtlc(htlc=htlc, stage=stage, removal=removal)


def having(link: Link, *htlcs: LiveHtlc) -> Link:
    return changed(link, state=changed(link.state, htlcs=htlcs))


def payment(number: int, *, preimage: bytes | None = None) -> Payment:
    return Payment(
        payment_hash=specimen.payment_hash(number),
        payee=b"",
        amount_msat=0,
        fee_msat=0,
        description="",
        text="",
        htlc=(b"", 0),
        number=number,
        preimage=preimage,
    )


def owing(link: Link, *payments: Payment) -> Book:
    """Return a book in which HTLCs of ours, from the first on, are for these payments."""
    owners = {(link.channel_id, place): one.payment_hash for place, one in enumerate(payments)}
    return Book(owners=Map(owners), payments=Map({one.payment_hash: one for one in payments}))


PREIMAGE: Final = specimen.preimage(0)
TAKEN: Final = Removal(preimage=PREIMAGE)
OURS, THEIRS = Party.ACCEPTER, Party.OPENER  # Of a client's channel.


# One HTLC


def test_of_our_htlcs_those_are_at_stake_that_may_yet_come_back(link: Link) -> None:
    one = having(link, live(OURS))
    pending, shown = owing(link, payment(0)), owing(link, payment(0, preimage=PREIMAGE))
    assert len(htlcs_at_stake(pending, one)) == 1
    assert htlcs_at_stake(shown, one) == [], "the peer showed its preimage"
    assert htlcs_at_stake(Book(), one) == [], "it is decided"
    proposed = having(link, live(OURS, stage=HtlcStage.ADD_PROPOSED))
    assert htlcs_at_stake(pending, proposed) == [], "it is on no commitment"


def test_what_we_pay_ourselves_is_the_peers_to_take_once_we_showed_the_preimage(
    link: Link,
) -> None:
    one = having(link, live(OURS))
    invoice = OwnInvoice(
        payment_hash=specimen.payment_hash(0),
        preimage=PREIMAGE,
        payment_secret=b"",
        amount_msat=WORTH_MSAT,
        description="",
        expires_at=0,
        text="",
        number=1,
    )
    for paid_by, n_at_stake in ((None, 1), ((b"other", 3), 0)):
        there = replace(invoice, paid_by=paid_by)
        book = changed(owing(link, payment(0)), invoices=Map({there.payment_hash: there}))
        assert len(htlcs_at_stake(book, one)) == n_at_stake


def test_of_the_peers_htlcs_those_are_at_stake_that_we_took_or_are_owed(link: Link) -> None:
    one = having(link, live(THEIRS))
    key = (link.channel_id, 0)
    forward = Forward(
        payment_hash=specimen.payment_hash(0),
        incoming=key,
        to="factory:1",
        payee=b"",
        amount_msat=WORTH_MSAT,
        fee_msat=0,
    )
    waiting = Book(forwards=Map({key: forward}))
    owed = Book(forwards=Map({key: replace(forward, preimage=PREIMAGE)}))
    assert htlcs_at_stake(Book(), one) == []
    assert htlcs_at_stake(waiting, one) == [], "nobody showed its preimage"
    assert len(htlcs_at_stake(owed, one)) == 1
    removed = having(link, live(THEIRS, stage=HtlcStage.REMOVE_SIGNED, removal=TAKEN))
    assert len(htlcs_at_stake(Book(), removed)) == 1, "until it is in our balance for good"
    back = live(THEIRS, stage=HtlcStage.REMOVE_SIGNED, removal=Removal(reason=b"no"))
    assert htlcs_at_stake(owed, having(link, back)) == [], "we gave it back"


def test_without_an_output_in_our_own_commitment_nothing_is_at_stake(link: Link) -> None:
    """To take one costs more than to take one back, so that it is trimmed up to more."""
    terms = link.setting.terms
    costs = {one: terms.htlc_tx_cost_sat(is_offered=one is OURS) for one in (OURS, THEIRS)}
    assert costs[OURS] != costs[THEIRS]
    for party in (OURS, THEIRS):
        least_msat = 1_000 * (terms.dust_limit_sat + costs[party])
        for amount_msat, n_at_stake in ((least_msat - 1, 0), (least_msat, 1)):
            removal = None if party is OURS else TAKEN
            one = having(link, live(party, amount_msat=amount_msat, removal=removal))
            assert len(htlcs_at_stake(owing(link, payment(0)), one)) == n_at_stake


# When to leave for one


def test_a_channel_is_left_when_the_first_of_those_that_cannot_wait_is_due(link: Link) -> None:
    """Both sides count from 0: one of ours that can wait says nothing of the peer's."""
    chain = chain_at(100)
    ours, theirs = live(OURS, expiry=EXPIRY), live(THEIRS, expiry=EXPIRY + 50, removal=TAKEN)
    book = owing(link, payment(0))

    def is_due(height: int, *htlcs: LiveHtlc, patient: frozenset[int] = frozenset()) -> bool:
        there = having(link, *htlcs)
        return is_htlc_at_stake(book, there, chain=chain, height=height, patient=patient)

    due = publish_height(link, EXPIRY, chain=chain)
    both, waits = (ours, theirs), frozenset({0})
    assert not is_due(2 * EXPIRY)
    assert (is_due(due - 1, *both), is_due(due, *both)) == (False, True)
    assert not is_due(due, ours, patient=waits)
    assert not is_due(due + 49, *both, patient=waits)
    assert is_due(due + 50, *both, patient=waits)
    assert is_due(due, ours, patient=frozenset({1}))


@pytest.mark.parametrize(
    ("stale", "fresh_since", "height", "is_back"),
    [
        (None, -1, 3, False),
        (None, 0, 5, True),
        (None, 0, 6, False),
        (None, 100, 105, True),
        (None, 100, 106, False),
        ("blocks are missing", -1, 3, True),
        ("blocks are missing", 100, 500, True),
    ],
)
def test_somebody_is_just_back_while_it_reads_and_six_blocks_from_then(
    stale: str | None, fresh_since: int, height: int, *, is_back: bool
) -> None:
    assert is_just_back(Facts(stale=stale, fresh_since=fresh_since), height=height) is is_back


def test_what_was_paid_by_ourselves_waits_while_we_are_just_back_and_a_clients_for_six_blocks(
    ends: tuple[Factory, Link, Link],
) -> None:
    factory, link, _ = ends
    ours, theirs = live(Party.OPENER, 0), live(Party.ACCEPTER, 1, removal=TAKEN)
    there = having(link, ours, theirs)
    chain = up_to(factory.chain, 500)
    due = publish_height(link, EXPIRY, chain=chain)
    own = owing(link, payment(0))
    errand = Errand(asker="factory:7", incoming=(b"", 0))
    forwarded = Book(owners=Map({(link.channel_id, 0): errand}))

    def waiting(book: Book, header_height: int, **facts: Any) -> frozenset[int]:
        known = replace(factory, chain=chain, book=book)
        said = Facts(header_height=header_height, **facts)
        turn: Turn[Factory] = Turn(known, apply_to_factory, said)
        return patient(turn, there)

    back = {"stale": None, "fresh_since": 500}
    assert waiting(own, due + 300, **back) == {0}
    assert waiting(forwarded, due + 5, **back) == {0}
    assert waiting(forwarded, due + 6, **back) == frozenset()
    assert waiting(own, due, stale=None, fresh_since=400) == frozenset(), "it is long back"
    assert waiting(own, due, stale="blocks are missing") == {0}


# What is worth it


def with_costs(link: Link, exit_cost_sat: int) -> Link:
    return changed(link, exit_cost_sat=exit_cost_sat)


def test_an_exit_is_worth_it_for_more_than_its_sweep_and_its_least_or_for_an_htlc(
    link: Link,
) -> None:
    own_sat, poor = OWN_MSAT // 1_000, OwnFees(estimates=((1008, 240_000),))
    assert sweep_sat(FEES) < own_sat
    assert is_worth_an_exit(Book(), with_costs(link, own_sat - 1), FEES)
    assert not is_worth_an_exit(Book(), with_costs(link, own_sat), FEES)
    assert sweep_sat(poor) > own_sat
    assert not is_worth_an_exit(Book(), with_costs(link, 0), poor), "its sweep takes all of it"
    one = having(with_costs(link, own_sat), live(OURS))
    assert is_worth_an_exit(owing(link, payment(0)), one, poor)
    assert not is_worth_an_exit(Book(), one, poor)


def test_a_store_that_may_lack_state_leaves_for_what_both_stores_found(link: Link) -> None:
    least_sat = max(link.exit_cost_sat, sweep_sat(FEES))
    poor = with_costs(link, OWN_MSAT)
    assert may_be_worth_an_exit(Book(), link, FEES)
    assert not may_be_worth_an_exit(Book(), poor, FEES)
    unknown = changed(poor, mark=StoreMark())
    assert unknown.is_balance_unknown
    assert may_be_worth_an_exit(Book(), unknown, FEES), "all of it may be ours"
    for agreed_msat, is_worth in (
        (1_000 * least_sat, False),
        (1_000 * least_sat + 999, False),
        (1_000 * (least_sat + 1), True),
    ):
        found = changed(link, mark=StoreMark(agreed_msat=agreed_msat))
        assert not found.is_balance_unknown
        assert may_be_worth_an_exit(Book(), found, FEES) is is_worth


def test_a_channel_failed_for_long_so_many_blocks_after_it_did(link: Link) -> None:
    def is_long(failed: Link, height: int) -> bool:
        return is_failed_for_long(failed, failed_channel_blocks=144, height=height)

    assert not is_long(link, 10_000)
    failed = changed(link, failure="it did", failed_height=500)
    assert [is_long(failed, height) for height in (500, 643, 644, 9_000)] == [
        False,
        False,
        True,
        True,
    ]


def test_facts_of_a_fresh_chain_say_that_nobody_was_away() -> None:
    assert not is_just_back(FRESH, height=0)
