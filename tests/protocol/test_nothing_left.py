"""When a client has nothing to look after in a factory: all of its own was taken, for good."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest
from tests.protocol.advanced import kickoff_of
from tests.protocol.old_states import bring_on_chain, look_again, sold, state_of
from tests.protocol.paying_clients import lsp_link, newest_link, pay
from tests.protocol.seen_blocks import buried, spending
from tests.protocol.signed_closes import CLOSE_ID
from tests.protocol.test_ended_forwards import world
from tests.protocol.unanswered import SMALL_MSAT

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.daemon.views.client import summary
from cromford.factory.poison import PoisonKind
from cromford.protocol.exiting import client as exiting
from cromford.protocol.exiting import through
from cromford.protocol.exiting.poisons import held_poisons
from cromford.protocol.exiting.through import is_through
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.watch.poisons import SignedPoison

DEEP: Final = 6
STRANGER: Final = 99


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


@pytest.fixture(scope="module")
def replaced() -> tuple[ClientState, ClientAttempt, dict[PoisonKind, SignedPoison]]:
    """Return a client in a leaf whose first state landed after it was replaced, and its poisons."""
    pump, done = sold()
    alice = pump.clients[0]
    chain = alice.state.chain
    for tx in (kickoff_of(pump), state_of(pump, done, 0)):
        chain = buried(chain, 300, tx)
    state, attempt = replace(alice.state, chain=chain), pump.held(alice)
    return state, attempt, {one.poison.kind: one for one in held_poisons(attempt, chain)}


def own_outpoints(*poisons: SignedPoison) -> list[OutPoint]:
    return [one.own_outpoint for one in poisons if one.own_outpoint is not None]


def test_a_state_that_was_replaced_is_over_once_all_that_poisons_pay_us_was_taken(
    replaced: tuple[ClientState, ClientAttempt, dict[PoisonKind, SignedPoison]],
) -> None:
    state, attempt, held = replaced
    channel, stock = held[PoisonKind.CHANNEL], held[PoisonKind.STOCK]

    def is_over(*blocks: Tx, depth: int = DEEP, attempt: ClientAttempt = attempt) -> bool:
        chain = state.chain
        for tx in blocks[:-1]:
            chain = buried(chain, 300, tx)
        return is_through(replace(state, chain=buried(chain, depth, *blocks[-1:])), attempt)

    own, both = own_outpoints(channel), own_outpoints(channel, stock)
    assert not is_through(state, attempt)
    assert not is_over(channel.tx)
    assert not is_over(channel.tx, spending(*own)), "but for the L-stock"
    assert not is_over(channel.tx, stock.tx)
    assert not is_over(channel.tx, stock.tx, spending(*own))
    assert not is_over(channel.tx, stock.tx, spending(*both), depth=DEEP - 1)
    assert is_over(channel.tx, stock.tx, spending(*both))
    assert is_over(channel.tx, spending(*own), spending(stock.spends)), "somebody was first there"
    assert not is_over(channel.tx, spending(*own), spending(stock.spends), depth=DEEP - 1)
    assert is_over(spending(channel.spends), stock.tx, spending(*own_outpoints(stock)))


def test_a_poison_that_has_nothing_for_us_is_not_waited_for(
    replaced: tuple[ClientState, ClientAttempt, dict[PoisonKind, SignedPoison]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, attempt, held = replaced
    channel = held[PoisonKind.CHANNEL]
    others = replace(held[PoisonKind.STOCK], client=STRANGER)
    assert others.own_outpoint is None
    monkeypatch.setattr(through, "held_poisons", lambda *_: (channel, others))
    taken = buried(state.chain, 300, channel.tx)
    assert not is_through(replace(state, chain=taken), attempt)
    done = buried(taken, DEEP, spending(*own_outpoints(channel)))
    assert is_through(replace(state, chain=done), attempt)


def test_without_its_poisons_a_client_is_not_over_with_a_state_that_was_replaced(
    replaced: tuple[ClientState, ClientAttempt, dict[PoisonKind, SignedPoison]],
) -> None:
    """A restored store lacks them until its LSP hands them over again: they are still its own."""
    state, attempt, held = replaced
    chain = state.chain
    for one in held.values():
        chain = buried(chain, 300, one.tx)
    chain = buried(chain, DEEP, spending(*own_outpoints(*held.values())))
    there = replace(state, chain=chain)
    assert is_through(there, attempt)
    assert not is_through(there, replace(attempt, leaf_states=()))


def test_whoever_took_a_replaced_state_apart_has_no_more_to_do_six_blocks_later() -> None:
    pump, done = sold()
    bring_on_chain(pump, done, 0)
    look_again(pump)
    for client in pump.clients:
        assert not is_through(client.state, pump.held(client))
    pump.mine(3)
    for client in pump.clients:
        assert exiting.arriving_total_sat(client.state) == 0
        assert not is_through(client.state, pump.held(client))
    pump.mine(DEEP)
    for client in pump.clients:
        assert is_through(client.state, pump.held(client))
        assert summary(client.state, pump.held(client), FRESH)["look_blocks"] is None
