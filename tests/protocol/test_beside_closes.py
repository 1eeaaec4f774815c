"""Closes that everybody signed, beside an exit and in its place: what follows from which block."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.paying_clients import live_factory
from tests.protocol.seen_blocks import ELSEWHERE, buried, spending, with_blocks
from tests.protocol.test_lsp_sweeps import SHORT
from tests.protocol.test_what_is_at_stake import having, live

from cromford import effects as fx
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.changed import changed
from cromford.channel.terms import Party
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.exiting.closes import (
    arriving_of_closes_sat,
    beside_closes,
    child_cost_sat,
    close_anchors,
    is_closed,
    on_closed,
    tell_closed,
    tell_closed_for_good,
)
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.book import Errand
from cromford.protocol.journal.closes import FinishedClose, SignedClose
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import OwnFees

DEEP: Final = 6
OURS: Final = bytes.fromhex("5120") + b"\x01" * 32
FIRST, SECOND = b"a" * 32, b"b" * 32  # The names of two closes, in their order.


@pytest.fixture(scope="module")
def factory() -> Factory:
    """Return a factory of four clients, two to a leaf, with the root in blocks."""
    factory = live_factory(4, policy=SHORT).factory
    signed = factory.attempt.signed_txs
    chain = with_blocks(factory.chain, [signed["kickoff_root"]], [signed["state_root"]])
    return replace(factory, chain=chain)


def child(factory: Factory, place: int) -> OutPoint:
    """Return an output of the root's state: what is above one of the leaves."""
    return factory.attempt.signed_txs["state_root"].outpoint(place)


def close_of(
    outpoint: OutPoint, *amounts_sat: int, script: bytes = OURS, name: bytes = FIRST
) -> FinishedClose:
    """Return a close with transactions that pay these to a script, and an anchor each."""
    txs = tuple(
        Tx(
            version=3,
            inputs=(TxIn(outpoint=outpoint, nsequence=0xFFFFFFFD),),
            outputs=(
                TxOut(amount_sat=amount_sat, script_pubkey=script),
                TxOut(amount_sat=500, script_pubkey=ELSEWHERE),
                TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT),
            ),
        )
        for amount_sat in amounts_sat
    )
    return FinishedClose(close_id=name, outpoint=outpoint, txs=txs)


def signed(close: FinishedClose) -> SignedClose:
    return SignedClose(
        close_id=close.close_id,
        outpoint=close.outpoint,
        balance_msat=0,
        is_finished=True,
        txids=close.txids,
    )


def closing(factory: Factory, *closes: FinishedClose) -> Factory:
    """Return a factory, and all its channels, with these closes."""
    every = tuple(signed(one) for one in closes)
    links = {name: changed(link, closes=every) for name, link in factory.book.links.items()}
    return replace(
        factory,
        closed=Map({one.close_id: one for one in closes}),
        book=changed(factory.book, links=Map(links)),
    )


def seen(factory: Factory, *txs: Tx, depth: int = 1) -> Factory:
    return replace(factory, chain=buried(factory.chain, depth, *txs))


def turn_of(factory: Factory) -> Any:
    turn: Turn[Factory] = Turn(factory, apply_to_factory, FRESH)
    return turn


def first_link(factory: Factory) -> Link:
    return factory.book.ordered_links[0]


# Beside an exit


def test_what_spends_the_same_as_a_close_is_as_good_as_it_and_published_only_by_who_leaves(
    factory: Factory,
) -> None:
    """Who stays would pay to keep out what it agreed on."""
    close = close_of(child(factory, 0), 9_000, 8_000)
    closed = {close.close_id: close}
    bumping = Bumping(fee_sat=1, feerate_sat_per_kw=2, budget_sat=3, fees=OwnFees())
    tx, other = spending(child(factory, 0)), spending(child(factory, 1))
    leaving = fx.Broadcast(name="leaving", tx=tx, bumping=bumping)
    staying = fx.Broadcast(name="staying", tx=tx)
    beside = fx.Broadcast(name="beside", tx=other, bumping=bumping)
    asking = fx.LookUpSpenders(factories=(0,), outpoints=(child(factory, 0),))
    effects = (asking, staying, leaving, beside)
    twinned = replace(leaving, bumping=replace(bumping, twins=close.txids))
    assert beside_closes(effects, closed) == (asking, twinned, beside)
    assert beside_closes(iter(effects), {}) == effects


# In a block


def test_a_close_in_a_block_ends_its_channel_once_it_is_six_deep(factory: Factory) -> None:
    """Of what the LSP offered none is paid any more: the close paid the client for all of its."""
    close = close_of(child(factory, 0), 9_000)
    there = closing(factory, close)
    link = having(first_link(there), live(Party.OPENER, 0), live(Party.ACCEPTER, 0))
    key = (link.channel_id, 0)
    there = replace(
        there,
        book=changed(
            there.book,
            links=there.book.links.set(link.channel_id, link),
            owners=Map({key: Errand(asker="factory:9", incoming=key)}),
        ),
    )

    def told(at: Factory) -> tuple[Any, ...]:
        turn = turn_of(at)
        on_closed(turn, at.book.links[link.channel_id])
        assert not [one for one in turn.decision.effects if isinstance(one, fx.Send)]
        return tuple(turn.decision.records)

    assert told(there) == ()
    assert told(seen(there, *close.txs, depth=DEEP - 1)) == ()
    failed, decided = told(seen(there, *close.txs, depth=DEEP))
    assert isinstance(failed, cr.ChannelFailed)
    assert (failed.channel_id, failed.reason) == (link.channel_id, CLOSED_TOGETHER)
    assert decided == cr.HtlcDecided(channel_id=link.channel_id, htlc_id=0, preimage=None)
    assert is_closed(link, seen(there, *close.txs).chain)
    assert not is_closed(link, there.chain)
    assert not is_closed(None, seen(there, *close.txs).chain)


def test_a_block_tells_the_closes_in_it_each_once_and_what_they_pay_us(factory: Factory) -> None:
    waits = close_of(child(factory, 1), 7_000, name=FIRST)
    close = close_of(child(factory, 0), 9_000, name=SECOND)
    there = closing(factory, waits, close)

    def told(at: Factory, script: bytes = OURS) -> list[Any]:
        turn = turn_of(at)
        tell_closed(turn, at.book.ordered_links, payout_script=script)
        return list(turn.decision.records)

    done = seen(there, *close.txs)
    (tx,) = close.txs
    confirmed = cl.CloseConfirmed(
        attempt_id=factory.attempt.attempt_id,
        close_id=SECOND,
        height=done.chain.height,
        txid=bytes(tx.txid),
        amount_sat=9_000,
    )
    assert told(there) == []
    assert told(done) == [confirmed], "of four channels"
    assert [one.amount_sat for one in told(done, ELSEWHERE)] == [500]
    assert told(seen(there, *close.txs, depth=2)) == [], "with the block before"
    assert told(seen(there, spending(close.outpoint))) == [], "that is not the close"


def test_what_closes_spent_for_good_is_told_once(factory: Factory) -> None:
    waits = close_of(child(factory, 1), 7_000, name=FIRST)
    close = close_of(child(factory, 0), 9_000, name=SECOND)
    there = closing(factory, waits, close)
    clients = tuple(one for one in range(1, 5) if factory.attempt.leaf_name(one) == "0")

    def told(at: Factory) -> list[Any]:
        turn = turn_of(at)
        tell_closed_for_good(turn)
        return list(turn.decision.records)

    assert told(there) == []
    assert told(seen(there, *close.txs, depth=DEEP - 1)) == []
    done = seen(there, *close.txs, depth=DEEP)
    (part,) = told(done)
    assert (part.clients, part.amount_sat) == (
        clients,
        factory.attempt.tree.node_by_name["state_root"].outputs[0].amount_sat,
    )
    assert told(replace(done, closed_seats=frozenset(clients))) == []
    assert told(seen(there, spending(close.outpoint), depth=DEEP)) == []


def test_what_waits_for_a_block_pays_us_what_its_poorest_transaction_does(
    factory: Factory,
) -> None:
    close = close_of(child(factory, 0), 9_000, 8_000)
    unborn = close_of(OutPoint(txid=close.txids[0], vout=1), 50_000, name=SECOND)
    closed = {one.close_id: one for one in (close, unborn)}
    there = closing(factory, close)
    assert arriving_of_closes_sat(closed, there.chain, [OURS]) == 8_000
    assert arriving_of_closes_sat(closed, there.chain, [OURS, ELSEWHERE]) == 8_500
    done = seen(there, close.txs[0])
    assert arriving_of_closes_sat({FIRST: close}, done.chain, [OURS]) == 0, "it is in the wallet"


# Children of a close


def in_block(factory: Factory, tx: Tx, *above: Tx) -> Factory:
    chain: KnownChain = with_blocks(factory.chain, [tx], above)
    return replace(factory, chain=chain)


def test_a_child_of_a_close_cost_what_it_took_of_our_payout(factory: Factory) -> None:
    ours = factory.attempt.payout_script
    close = close_of(child(factory, 0), 9_000, script=ours)
    there = closing(factory, close)
    (tx,) = close.txs
    anchor = tx.outpoint(2)

    def paying(amount_sat: int, *outpoints: OutPoint, script: bytes = ours) -> Tx:
        return replace(
            spending(*outpoints),
            outputs=(TxOut(amount_sat=amount_sat, script_pubkey=script),),
        )

    assert close_anchors(there) == frozenset()
    assert child_cost_sat(there, close) == 0
    done = in_block(there, tx)
    assert close_anchors(done) == {anchor}
    assert child_cost_sat(done, close) == 0, "it has no child"
    own = paying(7_500, anchor, tx.outpoint(0))
    assert child_cost_sat(in_block(there, tx, own), close) == 1_500
    strange = paying(7_500, anchor, script=ELSEWHERE)
    assert child_cost_sat(in_block(there, tx, strange), close) == 0, "it spends nothing of ours"
    generous = paying(7_500, anchor)
    assert child_cost_sat(in_block(there, tx, generous), close) == 0
    theirs = paying(400, anchor, tx.outpoint(1), script=ELSEWHERE)
    assert child_cost_sat(in_block(there, tx, theirs), close) == 0
    payout = paying(1_000, tx.outpoint(0))
    assert child_cost_sat(in_block(there, tx, payout), close) == 0, "that is no child of it"
