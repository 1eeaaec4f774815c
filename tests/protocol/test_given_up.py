"""HTLCs that an LSP writes off: which, when, and never one that may still be paid."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.protocol.paying_clients import begin_payment, live_factory, lsp_link, newest_link, pay
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, WORTH_MSAT

from cromford.channel.stage import HtlcStage
from cromford.protocol.exiting.channel import given_up, never_signed
from cromford.protocol.exiting.superseded import given_up_with_funding
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book, Errand
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.wire import messages as m

WAITS: Final = 12  # Blocks after its expiry.


@cache
def offered(amount_msat: int) -> tuple[Book, Link]:
    """Return what an LSP has of an HTLC that it offered to Bob for Alice, and that he ignores."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pay(pump, pump.lsp, bob, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        begin_payment(pump, alice, bob, amount_msat)
    link = lsp_link(pump, newest_link(bob))
    (live,) = link.state.htlcs
    assert isinstance(pump.factory.book.owners[link.channel_id, live.htlc.htlc_id], Errand)
    return pump.factory.book, link


def expiry(link: Link) -> int:
    (live,) = link.state.htlcs
    return live.htlc.cltv_expiry


def lost(link: Link) -> cr.HtlcDecided:
    (live,) = link.state.htlcs
    return cr.HtlcDecided(channel_id=link.channel_id, htlc_id=live.htlc.htlc_id, preimage=None)


@pytest.mark.parametrize("after", [-1, 0, 11, 12, 13, 1_000])
def test_one_without_an_output_is_written_off_twelve_blocks_after_its_expiry(after: int) -> None:
    book, link = offered(SMALL_MSAT)
    found = given_up(book, link, height=expiry(link) + after)
    assert found == ((lost(link),) if after >= WAITS else ())


def test_one_with_an_output_is_never_written_off_without_the_chain() -> None:
    """Its channel goes on chain for it; until then its peer may be paid."""
    book, link = offered(WORTH_MSAT)
    assert given_up(book, link, height=expiry(link) + 1_000) == ()


@pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
def test_where_the_funding_lost_its_place_any_is_written_off_in_the_same_time(
    amount_msat: int,
) -> None:
    book, link = offered(amount_msat)
    for after in (0, 11, 12, 13):
        found = list(given_up_with_funding(book, link, height=expiry(link) + after))
        assert found == ([lost(link)] if after >= WAITS else [])


def test_what_was_answered_by_now_is_not_written_off() -> None:
    book, link = offered(SMALL_MSAT)
    (live,) = link.state.htlcs
    key = link.channel_id, live.htlc.htlc_id
    answered = replace(book, owners=book.owners.delete(key))
    assert given_up(answered, link, height=expiry(link) + WAITS) == ()
    assert list(given_up_with_funding(answered, link, height=expiry(link) + WAITS)) == []


def test_what_was_never_signed_is_lost_to_nobody_once_its_channel_is_over() -> None:
    """It is on no commitment, and no signature follows: unless a store forgot what it signed."""
    book, link = offered(WORTH_MSAT)
    (live,) = link.state.htlcs
    proposed = replace(
        link,
        failure="it broke",
        state=replace(link.state, htlcs=(replace(live, stage=HtlcStage.ADD_PROPOSED),)),
    )
    assert never_signed(book, proposed) == (lost(link),)
    assert never_signed(book, replace(proposed, failure=None)) == ()
    assert never_signed(book, replace(proposed, is_behind=True)) == ()
    assert never_signed(book, replace(proposed, mark=StoreMark())) == ()
    assert never_signed(book, replace(link, failure="it broke")) == (), "Bob may be paid by it"
    key = link.channel_id, live.htlc.htlc_id
    answered = replace(book, owners=book.owners.delete(key))
    assert never_signed(answered, proposed) == ()
