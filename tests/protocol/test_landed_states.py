"""A state of a leaf in a block, and what that says of a channel: at which depth, and of which."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advanced import Advance, Step, advance, kickoff_of
from tests.protocol.old_states import sold, state_of
from tests.protocol.paying_clients import lsp_link, newest_link
from tests.protocol.pump import Pump
from tests.protocol.seen_blocks import buried, spending, up_to
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_what_is_at_stake import EXPIRY, having, live

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.channel.terms import Party
from cromford.protocol import client as client_role
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.superseded import (
    SUPERSEDED,
    channel_poison_in,
    decided_by_poison,
    end_if_superseded,
    given_up_with_funding,
    given_up_with_state,
    learn_state,
    stock_poisons_of,
    superseded_stocks,
)
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advance_records import StateSigned
from cromford.protocol.journal.book import Book, Errand
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import STATE_HELD
from cromford.protocol.turn import Turn

DEEP: Final = 6


@pytest.fixture(scope="module")
def twice() -> tuple[Pump, Advance]:
    """Return a leaf in its third state: two were replaced, and clients hold their poisons."""
    pump, _ = sold()
    return pump, advance(pump, pump.clients[0], 1_000)


@pytest.fixture(scope="module")
def untold() -> tuple[Pump, Advance]:
    """Return a leaf whose next state is signed, and no client has heard of it."""
    return sold(Step.DONE)


def landed(
    pump: Pump, done: Advance, chain: KnownChain, state_index: int, depth: int
) -> KnownChain:
    """Return a chain in which one state of the leaf is so deep."""
    return buried(buried(chain, 1, kickoff_of(pump)), depth, state_of(pump, done, state_index))


def own_channel(pump: Pump) -> tuple[Link, KnownChain]:
    """Return the LSP's end of the first client's channel, and its chain."""
    return lsp_link(pump, newest_link(pump.clients[0])), lsp_state(pump).factory(0).chain


# What a block teaches


def learned(client: ClientState, link: Link, under_way: Sequence[bytes]) -> list[Any]:
    turn: Turn[ClientState] = Turn(client, client_role.apply, FRESH)
    learn_state(turn, link, under_way)
    return list(turn.decision.records)


def test_a_state_that_only_others_hold_is_learned_from_the_block_that_has_it(
    untold: tuple[Pump, Advance],
) -> None:
    pump, done = untold
    alice = pump.clients[0]
    link, state = newest_link(alice), alice.state
    assert link.next is not None
    assert link.next.stage < STATE_HELD
    advance_id = link.next.advance_id
    there = replace(state, chain=landed(pump, done, state.chain, 1, 1))
    (signature,) = state_of(pump, done, 1).inputs[0].witness
    assert learned(there, link, [advance_id]) == [
        StateSigned(attempt_id=link.attempt_id, advance_id=advance_id, signature=signature)
    ]
    assert learned(state, link, [advance_id]) == [], "it is in no block"
    before = replace(state, chain=landed(pump, done, state.chain, 0, 1))
    assert learned(before, link, [advance_id]) == [], "that is the one before"
    assert learned(there, link, []) == [], "that advance is over"
    held = changed(link, next=replace(link.next, stage=STATE_HELD))
    assert learned(there, held, [advance_id]) == []
    unknown = changed(link, next=replace(link.next, step=None))
    assert learned(there, unknown, [advance_id]) == []
    assert learned(there, changed(link, next=None), [advance_id]) == []


def test_a_channel_ends_with_a_state_that_was_replaced_and_its_peer_need_not_hear(
    twice: tuple[Pump, Advance],
) -> None:
    """It sees the same block."""
    pump, done = twice
    alice = pump.clients[0]
    for state_index, reasons in ((2, []), (1, [SUPERSEDED]), (0, [SUPERSEDED])):
        chain = landed(pump, done, alice.state.chain, state_index, 1)
        turn: Turn[ClientState] = Turn(replace(alice.state, chain=chain), client_role.apply, FRESH)
        end_if_superseded(turn, newest_link(alice))
        failed = [one for one in turn.decision.records if isinstance(one, cr.ChannelFailed)]
        assert [one.reason for one in failed] == reasons
        assert not [one for one in turn.decision.effects if isinstance(one, fx.Send)]


# Poisons of a channel


def poison_of(pump: Pump, done: Advance, state_index: int) -> Tx:
    return done.leaf.channel_poison(state_index, newest_link(pump.clients[0]).client).tx


def test_the_poison_of_a_channel_is_known_by_the_state_that_it_takes_apart(
    twice: tuple[Pump, Advance],
) -> None:
    pump, done = twice
    link, chain = own_channel(pump)
    for state_index in (0, 1):
        there = landed(pump, done, chain, state_index, 1)
        poison = poison_of(pump, done, state_index)
        assert channel_poison_in(pump.attempt, link, there) is None
        assert channel_poison_in(pump.attempt, link, buried(there, 1, poison)) == poison
        other = spending(poison.inputs[0].outpoint)
        assert channel_poison_in(pump.attempt, link, buried(there, 1, other)) is None
    there = landed(pump, done, chain, 2, 1)
    commitment = spending(link.present.outpoint)
    assert channel_poison_in(pump.attempt, link, buried(there, 1, commitment)) is None


def offering(link: Link) -> tuple[Book, Link]:
    """Return a channel in which the LSP offered one HTLC and was offered one, and its book."""
    key = (link.channel_id, 0)
    book = Book(owners=Map({key: Errand(asker="factory:9", incoming=key)}))
    return book, having(link, live(Party.ACCEPTER, 0), live(Party.OPENER, 0))


def lost(records: Iterable[cr.HtlcDecided]) -> list[tuple[int, bytes | None]]:
    return [(one.htlc_id, one.preimage) for one in records]


def test_what_an_lsp_offered_in_a_channel_is_lost_six_blocks_under_its_poison(
    twice: tuple[Pump, Advance],
) -> None:
    pump, done = twice
    known, chain = own_channel(pump)
    book, link = offering(known)
    there, poison = landed(pump, done, chain, 0, 1), poison_of(pump, done, 0)
    for depth, expected in ((0, []), (DEEP - 1, []), (DEEP, [(0, None)])):
        found = decided_by_poison(book, pump.attempt, link, buried(there, depth, poison))
        assert lost(found) == expected


def test_what_expired_in_a_replaced_state_is_given_back_before_its_poison_comes(
    twice: tuple[Pump, Advance],
) -> None:
    """Six blocks under it nobody but the client will have it, and who paid for it waits."""
    pump, done = twice
    known, chain = own_channel(pump)
    book, link = offering(known)
    gives_up = give_up_height(EXPIRY)

    def given_up(state_index: int | None, depth: int, height: int) -> list[tuple[int, Any]]:
        there = chain
        if state_index is not None:
            there = landed(pump, done, up_to(chain, height - depth - 1), state_index, depth)
            assert there.height == height
        return lost(given_up_with_state(book, link, there))

    assert given_up(0, DEEP, gives_up - 1) == []
    assert given_up(0, DEEP, gives_up) == [(0, None)]
    assert given_up(1, DEEP, gives_up + 100) == [(0, None)]
    assert given_up(0, DEEP - 1, gives_up + 100) == []
    assert given_up(2, DEEP, gives_up + 100) == [], "in a state that lives it may be claimed"
    assert given_up(None, 0, gives_up + 100) == []


def test_what_expired_below_a_funding_that_lost_its_place_is_given_back(
    twice: tuple[Pump, Advance],
) -> None:
    pump, _ = twice
    book, link = offering(own_channel(pump)[0])
    gives_up = give_up_height(EXPIRY)
    assert lost(given_up_with_funding(book, link, height=gives_up - 1)) == []
    assert lost(given_up_with_funding(book, link, height=gives_up)) == [(0, None)]


def test_stocks_of_all_states_that_were_replaced_are_the_clients(
    twice: tuple[Pump, Advance],
) -> None:
    pump, done = twice
    factory = lsp_state(pump).factory(0)
    poisons = [done.leaf.stock_poison(state_index).tx for state_index in (0, 1)]
    assert stock_poisons_of(factory) == {tx.txid for tx in poisons}
    assert superseded_stocks(factory) == {tx.inputs[0].outpoint for tx in poisons}
