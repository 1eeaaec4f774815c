"""What a close owes by a store that is whole, or was restored, or whose peer's was: each alone."""

from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.closes import BALANCES_MSAT, closable_factory, links
from tests.protocol.pump import Pump

from cromford.channel.content import Htlc
from cromford.channel.stage import HtlcStage, LiveHtlc
from cromford.channel.terms import Party
from cromford.protocol.closing import restored as rs
from cromford.protocol.closing.rules import problem_with_channel
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.wire.messages import NO_BALANCE

SEAT = 1
DUE_MSAT = BALANCES_MSAT[SEAT - 1]
MARK = StoreMark(peer_hash=b"\x01" * 32)


@pytest.fixture(scope="module")
def pump() -> Pump:
    """Return a world that these tests only look at."""
    return closable_factory(2)


def own_link(pump: Pump) -> Link:
    """Return a channel as its client sees it."""
    return links(pump)[SEAT][0]


def lsp_link(pump: Pump) -> Link:
    """Return the same as the LSP sees it."""
    return links(pump)[SEAT][1]


def total_msat(link: Link) -> int:
    return link.state.opener_msat + link.state.accepter_msat


def test_whose_stores_were_restored_is_told_by_their_sides(pump: Pump) -> None:
    link = lsp_link(pump)
    assert rs.restored_sides(link) == ()
    assert rs.restored_sides(replace(link, mark=MARK)) == ("lsp",)
    assert rs.restored_sides(replace(link, is_behind=True)) == ("lsp",)
    assert rs.restored_sides(replace(link, peer_is_behind=True)) == ("client",)
    assert rs.restored_sides(replace(link, mark=MARK, peer_is_behind=True)) == ("lsp", "client")


def test_whole_stores_say_the_balance_and_an_lsp_pays_just_that(pump: Pump) -> None:
    for link in (own_link(pump), lsp_link(pump), replace(lsp_link(pump), peer_is_behind=True)):
        assert rs.known_due_msat(link) == rs.most_due_msat(link) == rs.named_msat(link) == DUE_MSAT
    link = lsp_link(pump)
    assert rs.word_msat(link, DUE_MSAT - 1) == DUE_MSAT - 1
    assert rs.problem_with_word(link, DUE_MSAT) is None
    for named_msat in (DUE_MSAT - 1, DUE_MSAT + 1):
        said = rs.problem_with_word(link, named_msat)
        assert said is not None
        assert said.startswith("balance_msat: expected ")


def test_what_a_restored_client_does_not_name_is_what_its_whole_lsp_says(pump: Pump) -> None:
    for link in (replace(own_link(pump), is_behind=True), replace(own_link(pump), mark=MARK)):
        assert rs.known_due_msat(link) is None
        assert rs.named_msat(link) == NO_BALANCE
    assert rs.word_msat(replace(lsp_link(pump), peer_is_behind=True), NO_BALANCE) == DUE_MSAT


def test_a_restored_lsp_takes_any_number_that_leaves_it_what_it_knows_to_be_its_own(
    pump: Pump,
) -> None:
    for link in (replace(lsp_link(pump), is_behind=True), replace(lsp_link(pump), mark=MARK)):
        assert rs.known_due_msat(link) is None
        assert rs.most_due_msat(link) == DUE_MSAT
        assert rs.word_msat(link, NO_BALANCE) is None
        for named_msat in (0, DUE_MSAT - 1, DUE_MSAT):
            assert rs.word_msat(link, named_msat) == named_msat
            assert rs.problem_with_word(link, named_msat) is None
        assert rs.problem_with_word(link, DUE_MSAT + 1) == rs.TOO_LITTLE_FOR_US


def test_two_restored_stores_that_were_compared_say_what_they_found(pump: Pump) -> None:
    """Whatever the older one of them says by itself."""
    link, theirs = own_link(pump), lsp_link(pump)
    found_msat = DUE_MSAT + 7_000
    link = replace(link, mark=replace(MARK, agreed_msat=found_msat))
    left_msat = total_msat(theirs) - found_msat
    theirs = replace(theirs, mark=replace(MARK, agreed_msat=left_msat), peer_is_behind=True)
    for one in (link, theirs):
        assert rs.known_due_msat(one) == rs.named_msat(one) == found_msat
    assert rs.most_due_msat(theirs) == found_msat
    assert rs.word_msat(theirs, NO_BALANCE) == found_msat
    assert rs.problem_with_word(theirs, found_msat) is None
    assert rs.problem_with_word(theirs, found_msat - 1) is not None


def test_of_an_htlc_a_restored_client_cannot_know_that_it_is_still_there(pump: Pump) -> None:
    """Its LSP does, unless that one's store was restored as well: then nothing is known of it."""
    htlc = LiveHtlc(
        htlc=Htlc(
            offered_by=Party.OPENER,
            htlc_id=9,
            amount_msat=1_000_000,
            payment_hash=b"\x05" * 32,
            cltv_expiry=500,
        ),
        stage=HtlcStage.LOCKED_IN,
    )

    def said(link: Link, **changes: Any) -> str | None:
        pending = replace(link, state=replace(link.state, htlcs=(htlc,)), **changes)
        return problem_with_channel(pending, pump.factory.chain, height=pump.chain.height)

    assert said(own_link(pump)) == said(lsp_link(pump)) == "an HTLC is pending"
    assert said(own_link(pump), is_behind=True) is None
    assert said(own_link(pump), peer_is_behind=True) == "an HTLC is pending"
    assert said(lsp_link(pump), peer_is_behind=True) == "an HTLC is pending"
    assert said(lsp_link(pump), is_behind=True) == "an HTLC is pending"
    assert said(lsp_link(pump), is_behind=True, peer_is_behind=True) == rs.NOT_COMPARED
