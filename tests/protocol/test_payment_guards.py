"""What is never offered, shown, taken back or left behind, whatever happens to a payment."""

from collections import Counter
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    POLICY,
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    open_factory,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_late_answers import SlowPump
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import (
    FIRST_MSAT,
    SMALL_MSAT,
    WORTH_MSAT,
    mine_to,
    only_expiry,
    pending_for,
)

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Forward
from cromford.protocol.journal.failures import Failure
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(5)

EXPOSURE_MAX_MSAT: Final = 5_000_000  # max_dust_htlc_exposure_msat, by default.
CROSSING_MSAT: Final = 818_182  # With the LSP's fee an HTLC of 820,000.


def decided(node: PumpNode) -> Counter[tuple[bytes, int]]:
    """Return how often the chain decided each HTLC, by a node's journal."""
    records = node.store.remembered
    return Counter(
        (record.channel_id, record.htlc_id)
        for record in records
        if isinstance(record, cr.HtlcDecided)
    )


# A funding that left the chain


def two_factories() -> tuple[Pump, PumpNode, PumpNode, PumpNode]:
    """Return Alice and Bob in one factory, Carol in the next, all of them with money."""
    pump = Pump(3, policy=POLICY)
    alice, bob, carol = pump.clients
    pump.join(alice, bob)
    pump.build()
    pump.run()
    pump.mine()
    pump.join(carol)
    pump.build()
    pump.run()
    pump.mine()
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    assert newest_link(alice).attempt_id != newest_link(carol).attempt_id
    return pump, alice, bob, carol


def lose_funding(pump: Pump, client: PumpNode) -> None:
    """Let the LSP see a chain that is longer and has all but the funding of a client's factory."""
    lsp = pump.lsp
    lost: Txid = lsp.state.attempts[newest_link(client).attempt_id].funding_tx.txid
    txs: list[Tx] = []
    while lsp.state.chain.depth(lost):
        height = lsp.state.chain.height
        txs[:0] = pump.chain.blocks[height][1]
        pump.handle(lsp, ev.BlockRemoved(height=height))
    kept = tuple(tx for tx in txs if tx.txid != lost)
    for _ in range(6):
        height = lsp.state.chain.height + 1
        block_hash = Txid(height.to_bytes(32, "big"))
        event = ev.BlockAdded(height=height, block_hash=block_hash, txs=lsp.relevant(kept))
        pump.handle(lsp, event)
        kept = ()


def test_the_lsp_forwards_into_no_channel_whose_funding_left_the_chain() -> None:
    pump, alice, bob, carol = two_factories()
    lose_funding(pump, alice)
    request = make_invoice(pump, alice, WORTH_MSAT)
    pump.handle(carol, request)
    pump.run()
    (held,) = book(pump.lsp).held.values()
    assert held.reason == "the payee has no other channel here"
    pump.pass_holds()
    payment = book(carol).payments[request.payment_hash]
    assert payment.failure == NOT_DELIVERED.reason
    assert balance(alice).own_msat == balance(bob).own_msat == FIRST_MSAT
    assert not lsp_link(pump, newest_link(alice)).state.htlcs


def test_the_lsp_forwards_nothing_out_of_a_channel_whose_funding_left_the_chain() -> None:
    pump, alice, _, carol = two_factories()
    lose_funding(pump, alice)
    request = make_invoice(pump, carol, WORTH_MSAT)
    pump.handle(alice, request)
    pump.run()
    payment = book(alice).payments[request.payment_hash]
    assert payment.failure == Failure.TEMPORARY_CHANNEL_FAILURE.reason
    assert book(carol).invoices[request.payment_hash].status == "open"
    assert balance(carol).own_msat == FIRST_MSAT


# What would be lost to fees


@pytest.mark.parametrize("over_msat", [0, 1])
def test_a_payee_gives_an_overexposed_htlc_back_and_shows_no_preimage(over_msat: int) -> None:
    """Both sides add at one moment; exactly the limit is not over it."""
    pump = live_factory(2)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    pump.disconnect(bob)
    crossing = [make_invoice(pump, bob, CROSSING_MSAT) for _ in range(5)]
    amount_msat = EXPOSURE_MAX_MSAT - 5 * 820_000 + over_msat
    request = make_invoice(pump, alice, amount_msat)
    pump.handle(pump.lsp, request)
    for cross in crossing:
        pump.handle(alice, cross)
    pump.run(until=lambda: bool(answers_of(pump, alice)))
    link = newest_link(alice)
    own = [live.htlc.amount_msat for live in link.state.htlcs if live.htlc.offered_by is link.me]
    assert own == [820_000] * 5, "all are pending as she answers"
    (answer,) = answers_of(pump, alice)
    if over_msat:
        reason = Failure.TEMPORARY_CHANNEL_FAILURE.reason
        assert answer == m.UpdateFailHtlc(channel_id=link.channel_id, htlc_id=1, reason=reason)
        assert book(alice).invoices[request.payment_hash].status == "open"
    else:
        assert isinstance(answer, m.UpdateFulfillHtlc)
        assert book(alice).invoices[request.payment_hash].status == "paid"


def answers_of(pump: Pump, node: PumpNode) -> list[m.UpdateFulfillHtlc | m.UpdateFailHtlc]:
    """Return how a payee answered all that it was offered after its first HTLC."""
    answers: list[m.UpdateFulfillHtlc | m.UpdateFailHtlc] = []
    answers += pump.sent(node, m.UpdateFulfillHtlc)
    answers += pump.sent(node, m.UpdateFailHtlc)
    return [one for one in answers if one.htlc_id > 0]


# A preimage that was shown


AMOUNTS: Final = pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
ENDS: Final = pytest.mark.parametrize("ends", ["disconnection", "failure", "fail"])


def end(pump: Pump, node: PumpNode, peer: PumpNode, ends: str) -> None:
    """Let a peer that has just shown a preimage go for ever, perhaps with other words."""
    channel_id = newest_link(peer if node is pump.lsp else node).channel_id
    last_words: dict[str, m.Message] = {
        "failure": m.ChannelFailure(channel_id=channel_id, reason="no more"),
        "fail": m.UpdateFailHtlc(channel_id=channel_id, htlc_id=0, reason=b"\x10\x07"),
    }
    if ends in last_words:
        pump.tell(node, peer, last_words[ends])
    pump.wire.clear()
    pump.disconnect(peer if node is pump.lsp else node)
    peer.die()


@pytest.mark.sampled(1)
@AMOUNTS
@ENDS
def test_once_a_preimage_was_shown_nothing_makes_the_payment_a_failure(
    amount_msat: int, ends: str
) -> None:
    """The LSP is gone for ever then: Alice may even take her HTLC back on chain."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, amount_msat)
    pump.handle(alice, request)
    pump.run(until=lambda: book(alice).payments[request.payment_hash].preimage is not None)
    (live,) = newest_link(alice).state.htlcs
    end(pump, alice, pump.lsp, ends)
    while pump.chain.height < live.htlc.cltv_expiry + 2 * newest_link(alice).exit_blocks:
        assert book(alice).payments[request.payment_hash].status == "paid"
        pump.mine()
    pump.restart(alice)
    payment = book(alice).payments[request.payment_hash]
    assert (payment.status, payment.failure) == ("paid", None)
    assert replace(payment, failure=b"\x10\x07").status == "paid", "a preimage outweighs it"
    assert set(decided(alice).values()) <= {1}


@pytest.mark.sampled(1)
@AMOUNTS
@ENDS
def test_once_a_preimage_was_shown_nothing_makes_the_forward_a_failure(
    amount_msat: int, ends: str
) -> None:
    """Bob is gone then, and Alice is away: the LSP may take its HTLC back on chain, and is paid."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.handle(alice, make_invoice(pump, bob, amount_msat))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run(until=lambda: forward_of(pump).preimage is not None)
    end(pump, pump.lsp, bob, ends)
    expiry = newest_link(alice).state.htlcs[0].htlc.cltv_expiry
    while pump.chain.height < expiry + 20:
        assert forward_of(pump).status == "paid"
        pump.mine()
    assert set(decided(pump.lsp).values()) <= {1}
    pump.connect(alice)
    pump.run()
    pump.mine(6 * newest_link(alice).exit_blocks)
    forward = forward_of(pump)
    assert (forward.status, forward.failure) == ("paid", None)
    assert replace(forward, failure=b"\x10\x07").status == "paid", "a preimage outweighs it"
    assert set(decided(pump.lsp).values()) <= {1}


def forward_of(pump: Pump) -> Forward:
    """Return the only forward there ever was."""
    known = book(pump.lsp)
    (forward,) = (*known.forwards.values(), *known.finished.values())
    return forward


def test_a_payment_that_a_preimage_paid_is_not_written_off() -> None:
    """Too small for an exit, it is never finished in the channel: nothing more is decided."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.handle(alice, make_invoice(pump, bob, SMALL_MSAT))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.run(until=lambda: forward_of(pump).preimage is not None)
    # Bob never answers the LSP's signatures, so that his HTLC stays with its preimage.
    with pump.tampering(mute(bob, pump.lsp, m.CommitmentSigned, m.RevokeAndAck)):
        pump.run()
        link = lsp_link(pump, newest_link(bob))
        (live,) = link.state.htlcs
        pump.mine(live.htlc.cltv_expiry + 20 - pump.chain.height)
    assert not decided(pump.lsp)
    assert lsp_link(pump, newest_link(bob)).failure is None


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("side", "status"), [("lsp", "failed"), ("payee", "paid")])
def test_the_chain_decides_each_htlc_once(side: str, status: str) -> None:
    """It comes back to the LSP, or the payee takes it by its preimage."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    _, link = pending_for(pump, side, WORTH_MSAT)
    (payment,) = book(alice).payments
    mine_to(pump, only_expiry(link) + 2 * link.exit_blocks)
    pump.restart(pump.lsp)
    pump.mine(10)
    assert decided(pump.lsp) == {(newest_link(bob).channel_id, 0): 1}
    assert book(alice).payments[payment].status == status


# Nonces


def pools_of(node: PumpNode) -> int:
    assert node.signer is not None
    return len(node.signer._pools)


def test_after_any_number_of_payments_a_signer_holds_one_nonce_pool_per_channel() -> None:
    pump = live_factory(3)
    alice, bob, carol = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    for payer, payee in ((alice, bob), (bob, carol), (alice, carol), (carol, alice)) * 3:
        assert pay(pump, payer, payee, 400_000).status == "paid"
        assert [pools_of(client) for client in pump.clients] == [1, 1, 1]
        assert pools_of(pump.lsp) == 3


@pytest.mark.parametrize("culprit", ["client", "lsp"])
def test_after_a_failure_a_signer_holds_no_nonce_of_the_channel(culprit: str) -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    bad = alice if culprit == "client" else pump.lsp

    def spoilt(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is bad and alice in (by, to) and isinstance(message, m.CommitmentSigned):
            return (replace(message, partial_sig=bytes(31) + b"\x01"),)
        return (message,)

    with pump.tampering(spoilt):
        payer, payee = (alice, bob) if bad is alice else (pump.lsp, alice)
        pump.handle(payer, make_invoice(pump, payee, 400_000))
        pump.run()
    assert newest_link(alice).failure is not None
    assert lsp_link(pump, newest_link(alice)).failure is not None
    assert (pools_of(alice), pools_of(bob), pools_of(pump.lsp)) == (0, 1, 1)


def test_a_half_that_is_ready_after_the_channel_failed_leaves_no_nonce_behind() -> None:
    pump = SlowPump(2, policy=POLICY)
    open_factory(pump)
    alice, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.hold(alice, fx.FinishCommitment)
    pump.handle(pump.lsp, make_invoice(pump, alice, 400_000))
    pump.run()
    assert pools_of(alice) == 2, "the next commitment's nonce is made"
    over = m.ChannelFailure(channel_id=newest_link(alice).channel_id, reason="no more")
    pump.tell(alice, pump.lsp, over)
    assert pools_of(alice) == 1
    pump.hand_over()
    assert pools_of(alice) == 0
