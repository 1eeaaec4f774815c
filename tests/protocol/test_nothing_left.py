"""When a client has nothing to look after in a factory: all of its own was taken, for good."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest
from tests.protocol.advanced import kickoff_of
from tests.protocol.old_states import sold, state_of
from tests.protocol.paying_clients import lsp_link, newest_link, pay
from tests.protocol.seen_blocks import buried, spending
from tests.protocol.signed_closes import CLOSE_ID
from tests.protocol.test_ended_forwards import world
from tests.protocol.unanswered import SMALL_MSAT

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.protocol.exiting.through import is_through
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link

DEEP: Final = 6


@dataclass(frozen=True, kw_only=True)
class Home:
    """A client with a balance, its factory, its channel, and what its LSP had signed before."""

    state: ClientState
    attempt: ClientAttempt
    link: Link
    lsp_link: Link
    revoked: Tx

    def is_through(self, chain: KnownChain, link: Link | None = None) -> bool:
        state = replace(self.state, chain=chain)
        if link is not None:
            book = changed(state.book, links=state.book.links.set(link.channel_id, link))
            state = replace(state, book=book)
        return is_through(state, self.attempt)

    def landed(self, commitment: Tx) -> KnownChain:
        return buried(self.state.chain, 300, commitment)


@pytest.fixture(scope="module")
def home() -> Home:
    """Return one of two clients."""
    pump = world()
    alice = pump.clients[0]
    revoked = lsp_link(pump, newest_link(alice)).finished.tx
    assert pay(pump, pump.lsp, alice, SMALL_MSAT).status == "paid"
    link = newest_link(alice)
    return Home(
        state=alice.state,
        attempt=pump.held(alice),
        link=link,
        lsp_link=lsp_link(pump, link),
        revoked=revoked,
    )


def swept(home: Home) -> tuple[Link, Tx]:
    return home.link, spending(home.attempt.funding_outpoint)


def closed(home: Home) -> tuple[Link, Tx]:
    outpoint = home.attempt.funding_outpoint
    tx = spending(outpoint, sat=2_000)
    close = SignedClose(
        close_id=CLOSE_ID, outpoint=outpoint, balance_msat=0, is_finished=True, txids=(tx.txid,)
    )
    return changed(home.link, closes=(close,)), tx


def closed_on_chain(home: Home) -> tuple[Link, Tx]:
    """The channel's own output, which no branch stands before."""
    outpoint = home.link.present.outpoint
    tx = spending(outpoint, sat=2_000)
    close = SignedClose(
        close_id=CLOSE_ID, outpoint=outpoint, balance_msat=0, is_finished=True, txids=(tx.txid,)
    )
    return changed(home.link, closes=(close,)), tx


@pytest.mark.parametrize("ended_by", [swept, closed, closed_on_chain])
def test_a_channel_that_something_else_ended_is_over_six_blocks_later(
    home: Home, ended_by: Callable[[Home], tuple[Link, Tx]]
) -> None:
    link, tx = ended_by(home)
    assert not home.is_through(home.state.chain, link)
    assert not home.is_through(buried(home.state.chain, DEEP - 1, tx), link)
    assert home.is_through(buried(home.state.chain, DEEP, tx), link)


def balance_in(commitment: Tx) -> OutPoint:
    """Return the client's balance: of 30,000 sat and a little more."""
    (vout,) = (
        vout for vout, one in enumerate(commitment.outputs) if 29_000 < one.amount_sat < 31_000
    )
    return commitment.outpoint(vout)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_channel_on_chain_is_over_once_our_balance_was_taken_six_blocks_ago(
    home: Home, whose: str
) -> None:
    commitment = {"ours": home.link, "theirs": home.lsp_link}[whose].finished.tx
    balance = balance_in(commitment)
    landed = home.landed(commitment)
    assert not home.is_through(landed)
    assert not home.is_through(buried(landed, DEEP - 1, spending(balance)))
    assert home.is_through(buried(landed, DEEP, spending(balance)))


def test_where_nothing_is_ours_the_output_alone_has_to_be_spent_for_good(home: Home) -> None:
    gone = spending(home.link.present.outpoint)
    assert not home.is_through(buried(home.state.chain, DEEP - 1, gone))
    assert home.is_through(buried(home.state.chain, DEEP, gone))


def test_what_a_revoked_commitment_holds_is_still_to_be_taken(home: Home) -> None:
    """What it says has to be looked up first: until then nothing of it is known."""
    assert not home.is_through(home.landed(home.revoked))


def test_a_factory_without_a_channel_yet_is_not_over(home: Home) -> None:
    _, sweep = swept(home)
    nothing = replace(home, state=replace(home.state, book=Book()))
    assert not nothing.is_through(buried(home.state.chain, DEEP, sweep))


def test_a_state_that_was_replaced_is_looked_after_by_poisons() -> None:
    pump, done = sold()
    alice = pump.clients[0]
    chain = alice.state.chain
    for tx in (kickoff_of(pump), state_of(pump, done, 0)):
        chain = buried(chain, 1, tx)
    number = newest_link(alice).client
    poison = done.leaf.channel_poison(0, number).tx
    state = replace(alice.state, chain=buried(chain, DEEP, poison))
    assert not is_through(state, pump.held(alice)), "its output is still to be taken"
