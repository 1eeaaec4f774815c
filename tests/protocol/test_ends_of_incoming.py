"""How an HTLC ended that went down with its payer's channel: by what blocks show, how deep."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest
from immutables import Map
from tests.protocol.exits import ExitPump
from tests.protocol.old_states import told as told_of
from tests.protocol.paying_clients import book, lsp_link, make_invoice, newest_link, pay
from tests.protocol.seen_blocks import buried, spending, up_to, with_blocks
from tests.protocol.signed_closes import CLOSE_ID
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_ended_forwards import (
    held_on,
    paid_on,
    refused_on,
    shown,
    told_in_vain,
    world,
)
from tests.protocol.unanswered import SMALL_MSAT, WORTH_MSAT

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.channel.stage import LiveHtlc
from cromford.protocol import events as ev
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.channel import ELSEWHERE, OVERTAKEN, SWEPT_ABOVE
from cromford.protocol.exiting.incoming import NO_OUTPUT, PAYERS, TAKEN, ended_with_channel
from cromford.protocol.exiting.lsp import in_hand
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

Ends = list[tuple[str, int]]  # Of each HTLC: how it ended, and what was paid on for it, in msat.


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The LSP's factory as it is, its channel with a client, and that one's own commitment."""

    factory: Factory
    link: Link
    commitment: Tx

    def ends(self, chain: KnownChain, link: Link | None = None) -> Ends:
        """Return which HTLCs ended with the channel by this chain, and how."""
        there = replace(self.factory, chain=chain)
        found = ended_with_channel(there, self.link if link is None else link, in_hand)
        return [(one.reason, one.paid_msat) for one in found]

    def landed(self, depth: int, *above: Tx) -> KnownChain:
        """Return a chain that has the commitment this deep, and these in the block after it."""
        there = with_blocks(self.factory.chain, (self.commitment,), above)
        return up_to(there, self.factory.chain.height + depth)

    @property
    def outputs(self) -> dict[int, OutPoint]:
        """Where HTLCs are in the commitment, by their ids."""
        commitment = next(
            one.commitment
            for one in self.link.peer_commitments_on(self.link.present)
            if one.commitment.tx.txid == self.commitment.txid
        )
        outputs = zip(commitment.tx.outpoints, commitment.outputs, strict=True)
        return {one.htlc.htlc_id: where for where, one in outputs if one.htlc is not None}

    @property
    def output(self) -> OutPoint:
        """The only HTLC's."""
        (output,) = self.outputs.values()
        return output


def scene_of(pump: ExitPump) -> Scene:
    alice = newest_link(pump.clients[0])
    return Scene(
        factory=lsp_state(pump).factory(0),
        link=lsp_link(pump, alice),
        commitment=alice.finished.tx,
    )


@pytest.fixture(scope="module")
def paid() -> Scene:
    """An HTLC with an output that was paid on, and that its payer was never asked for."""
    pump = world()
    paid_on(pump, WORTH_MSAT)
    return scene_of(pump)


@pytest.fixture(scope="module")
def refused() -> Scene:
    """One that its payee refused."""
    pump = world()
    refused_on(pump, WORTH_MSAT)
    return scene_of(pump)


@pytest.fixture(scope="module")
def told() -> Scene:
    """One of which the payer was told the preimage, and gave no commitment without it."""
    pump = world()
    told_in_vain(pump, WORTH_MSAT, hears=False)
    return scene_of(pump)


PAID: Final = [(TAKEN, WORTH_MSAT)]
DEEP: Final = 6


def test_what_was_paid_on_is_ours_until_somebody_took_its_output_six_blocks_ago(
    paid: Scene,
) -> None:
    taking = spending(paid.output)
    assert paid.ends(paid.factory.chain) == []
    assert paid.ends(paid.landed(DEEP - 1)) == []
    assert paid.ends(paid.landed(300)) == [], "its preimage may claim it yet"
    assert paid.ends(buried(paid.landed(300), DEEP - 1, taking)) == []
    assert paid.ends(buried(paid.landed(300), DEEP, taking)) == PAID


def test_what_was_refused_is_its_payers_once_the_commitment_is_six_deep(refused: Scene) -> None:
    assert refused.ends(refused.landed(DEEP - 1)) == []
    assert refused.ends(refused.landed(DEEP)) == [(PAYERS, 0)]


@pytest.mark.parametrize("waits", ["arrived", "held"])
def test_what_waits_for_its_payee_is_its_payers_with_the_commitment(waits: str) -> None:
    """A payee that is away is not asked any more: nothing was paid on, and nothing will be."""
    pump = world()
    held_on(pump, WORTH_MSAT)
    scene = scene_of(pump)
    if waits == "arrived":
        book_of = scene.factory.book
        (key,) = book_of.held
        waiting = replace(book_of, held=Map(), held_for=Map(), arrived=Map({key: None}))
        scene = replace(scene, factory=replace(scene.factory, book=waiting))
    assert scene.ends(scene.landed(DEEP - 1)) == []
    assert scene.ends(scene.landed(DEEP)) == [(PAYERS, 0)]


def test_nothing_is_over_of_what_goes_on_elsewhere(paid: Scene) -> None:
    """Its payee may still show the preimage, and then it is ours: whatever became of the output."""
    ((key, forward),) = paid.factory.book.forwards.items()
    pending = changed(forward, preimage=None)
    there = replace(paid.factory.book, forwards=Map({key: pending}), resolved=Map())
    waiting = replace(paid, factory=replace(paid.factory, book=there))
    assert waiting.ends(buried(paid.landed(300), DEEP, spending(paid.output))) == []


def swept(scene: Scene) -> tuple[Link, Tx]:
    return scene.link, spending(scene.factory.attempt.funding_outpoint)


def closed(scene: Scene) -> tuple[Link, Tx]:
    outpoint = scene.factory.attempt.funding_outpoint
    tx = spending(outpoint, sat=2_000)
    close = SignedClose(
        close_id=CLOSE_ID, outpoint=outpoint, balance_msat=0, is_finished=True, txids=(tx.txid,)
    )
    return changed(scene.link, closes=(close,)), tx


def elsewhere(scene: Scene) -> tuple[Link, Tx]:
    return scene.link, spending(scene.link.present.outpoint)


@pytest.mark.parametrize(
    ("ended_by", "reason"),
    [(swept, SWEPT_ABOVE), (closed, CLOSED_TOGETHER), (elsewhere, ELSEWHERE)],
)
def test_what_took_the_channel_ends_what_waited_in_it_six_blocks_later(
    paid: Scene, ended_by: Callable[[Scene], tuple[Link, Tx]], reason: str
) -> None:
    link, tx = ended_by(paid)
    assert paid.ends(buried(paid.factory.chain, DEEP - 1, tx), link) == []
    assert paid.ends(buried(paid.factory.chain, DEEP, tx), link) == [(reason, WORTH_MSAT)]


def test_what_waits_below_a_funding_that_lost_its_place_ends_with_its_expiry(paid: Scene) -> None:
    """The same height at which the LSP gives back what it offered in such a channel."""
    (coin, *_) = paid.factory.attempt.funding_tx.inputs
    rival = spending(coin.outpoint)
    gives_up = give_up_height(_incoming(paid.link)[0].htlc.cltv_expiry)
    chain = buried(paid.factory.chain, DEEP, rival)
    assert paid.ends(up_to(chain, gives_up - 1)) == []
    assert paid.ends(up_to(chain, gives_up)) == [(OVERTAKEN, WORTH_MSAT)]
    shallow = up_to(paid.factory.chain, gives_up)
    assert paid.ends(buried(shallow, DEEP - 1, rival)) == []


def _incoming(link: Link) -> list[LiveHtlc]:
    return [live for live in link.state.htlcs if live.htlc.offered_by is not link.me]


def test_an_htlc_of_ours_with_the_same_number_is_none_of_its_payers(paid: Scene) -> None:
    """Both sides count their HTLCs from 0."""
    (theirs,) = _incoming(paid.link)
    ours = changed(theirs, htlc=changed(theirs.htlc, offered_by=paid.link.me))
    both = changed(paid.link, state=changed(paid.link.state, htlcs=(ours, theirs)))
    assert paid.ends(buried(paid.landed(300), DEEP, spending(paid.output)), both) == PAID


# What its payer was told the preimage of, and did not give


def test_what_a_payer_was_told_is_lost_when_somebody_took_its_output_without_the_preimage(
    told: Scene,
) -> None:
    ((_, preimage),) = in_hand(told.factory, told.link.client).preimages.items()
    assert told.ends(told.landed(300)) == [], "it is ours to take yet"
    theirs = spending(told.output, witness=(bytes(64),))
    assert told.ends(buried(told.landed(300), DEEP - 1, theirs)) == []
    assert told.ends(buried(told.landed(300), DEEP, theirs)) == PAID
    ours = spending(told.output, witness=(bytes(64), preimage))
    assert told.ends(buried(told.landed(300), DEEP, ours)) == [], "we have it"


def test_what_a_payer_was_told_is_not_lost_where_nothing_shows_that_it_is(told: Scene) -> None:
    taken = spending(told.output)
    there = buried(told.landed(2), DEEP - 2, taken)
    assert there.depth(told.commitment.txid) == DEEP
    assert told.ends(there) == []
    unknown = spending(told.link.present.outpoint)
    assert told.ends(buried(told.factory.chain, 300, unknown)) == []


def test_what_counts_as_lost_already_is_not_lost_again(told: Scene) -> None:
    (place,) = told.factory.book.finished
    lost = changed(told.factory.book.finished[place], ended=TAKEN)
    there = replace(told.factory.book, finished=Map({place: lost}))
    again = replace(told, factory=replace(told.factory, book=there))
    assert again.ends(buried(again.landed(300), DEEP, spending(told.output))) == []


def test_what_a_payer_was_told_and_has_in_its_balance_no_more_is_not_lost() -> None:
    """Its newest commitment has no such HTLC: the amount is ours there."""
    pump = world()
    told_in_vain(pump, WORTH_MSAT, hears=True)
    scene = scene_of(pump)
    assert _incoming(scene.link), "until it revokes the one before"
    assert scene.ends(scene.landed(300)) == []


def test_what_a_payer_was_told_and_that_has_no_output_is_lost_with_the_commitment() -> None:
    pump = world()
    told_in_vain(pump, SMALL_MSAT, hears=False)
    scene = scene_of(pump)
    assert scene.ends(scene.landed(DEEP - 1)) == []
    assert scene.ends(scene.landed(DEEP)) == [(NO_OUTPUT, SMALL_MSAT)]


def test_what_a_payer_was_told_is_ours_by_the_penalty_if_it_publishes_what_it_revoked() -> None:
    """The penalty takes the output without a preimage, and it is the LSP's all the same."""
    pump = world()
    alice, bob = pump.clients
    pump.trap(bob, pump.lsp, m.UpdateFulfillHtlc)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    cheat = newest_link(alice).finished.tx
    assert pay(pump, pump.lsp, alice, SMALL_MSAT).status == "paid"
    with pump.tampering(lambda _by, to, message: () if to is alice else (message,)):
        pump.heal(bob)
        pump.run()
    link = newest_link(alice)
    assert _incoming(lsp_link(pump, link))
    pump.disconnect(alice)
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    while pump.chain.coin(link.present.outpoint) is None:
        pump.mine()
    pump.chain.mempool.clear()
    pump.chain.broadcast(cheat)
    pump.mine(3 * DEEP)
    assert pump.lsp.state.chain.spends[link.present.outpoint].txid == cheat.txid
    assert shown(pump) == ("paid", None)
    assert told_of(pump.lsp, cr.IncomingEnded) == []


# Several at once


@pytest.fixture(scope="module")
def two() -> Scene:
    """Two HTLCs of one payer with outputs: to a payee that does not answer, and one paid on."""
    pump = world(n_clients=3)
    alice, _, carol = pump.clients
    pump.trap(carol, pump.lsp, m.UpdateFulfillHtlc)
    pump.handle(alice, make_invoice(pump, carol, WORTH_MSAT // 2))
    pump.run()
    pump.handle(alice, make_invoice(pump, pump.clients[1], WORTH_MSAT))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    statuses = sorted(one.status for one in book(pump.lsp).forwards.values())
    assert statuses == ["paid", "pending"]
    return scene_of(pump)


def test_each_ends_by_its_own_output_whatever_became_of_the_other(two: Scene) -> None:
    pending, paid_on_id = sorted(two.outputs)
    other, own = spending(two.outputs[pending]), spending(two.outputs[paid_on_id])
    assert two.ends(buried(two.landed(300), DEEP, other)) == []
    assert two.ends(buried(two.landed(300), DEEP, own)) == PAID
    there = replace(two.factory, chain=buried(two.landed(300), DEEP, own))
    (ended,) = ended_with_channel(there, two.link, in_hand)
    assert (ended.channel_id, ended.htlc_id) == (two.link.channel_id, paid_on_id)
