"""What nobody does on the way out of a channel, however it comes about."""

from dataclasses import replace
from typing import Final, TypeVar

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, mute, reasons_to_leave
from tests.protocol.test_theft import SHORT
from tests.protocol.unanswered import (
    FIRST_MSAT,
    SMALL_MSAT,
    WORTH_MSAT,
    htlc_outpoint,
    mine_to,
    mine_until_spent,
    only_expiry,
    pending_for,
)

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(6)

R = TypeVar("R", bound=cr.BookRecord)
SIDES: Final = pytest.mark.parametrize("side", ["client", "lsp"])
TRIMMED_MSAT: Final = 900_000  # As large as an HTLC without an output gets.


def alices_link(pump: Pump, node: PumpNode) -> Link:
    """Return Alice's channel as a node sees it."""
    mine = newest_link(pump.clients[0])
    return lsp_link(pump, mine) if node is pump.lsp else mine


def ask_to_leave(pump: Pump, node: PumpNode, client: PumpNode) -> None:
    """Let a side's operator wish to have a client's channel on chain."""
    link = newest_link(client)
    number = link.client if node is pump.lsp else None
    pump.handle(node, ev.ExitRequested(attempt_id=link.attempt_id, client=number))


def remembered(node: PumpNode, kind: type[R]) -> list[R]:
    records = node.store.remembered
    return [record for record in records if isinstance(record, kind)]


def own_commitments(pump: Pump, node: PumpNode) -> list[Tx]:
    """Return the commitments that a node ever wished to publish."""
    return [one.tx for one in pump.wishes(node, fx.Broadcast) if one.name == "commitment"]


# Whoever lost state


def set_back(pump: Pump, side: str) -> PumpNode:
    """Let one side of Alice's channel lose state, an HTLC of its own under way, and learn it."""
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    payer, payee = (alice, pump.clients[1]) if side == "client" else (pump.lsp, alice)
    request = make_invoice(pump, payee, WORTH_MSAT)
    with pump.tampering(mute(payee, pump.lsp, m.UpdateFulfillHtlc, m.CommitmentSigned)):
        pump.handle(payer, request)
        pump.run()
    backup = list(payer.store.entries)
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()
    assert book(payer).payments[request.payment_hash].status == "paid"
    payer.store.entries[:] = backup
    payer._fold = None
    pump.restart(payer)
    pump.run()
    assert alices_link(pump, payer).is_behind
    assert alices_link(pump, payer).state.htlcs, "for it the HTLC is still under way"
    return payer


@pytest.mark.sampled(1)
@SIDES
@pytest.mark.parametrize("when", ["the operator asks", "a deadline comes"])
def test_whoever_lost_state_never_publishes_its_commitment(side: str, when: str) -> None:
    pump = live_factory(2, policy=QUICK)
    node = set_back(pump, side)
    link = alices_link(pump, node)
    if when == "the operator asks":
        ask_to_leave(pump, node, pump.clients[0])
    else:
        mine_to(pump, only_expiry(link) - link.exit_blocks - 18)
    assert len(reasons_to_leave(node)) == 1
    pump.mine(link.exit_blocks // 2)
    pump.restart(node)
    pump.mine(2 * link.exit_blocks + 20)
    assert link.setting.funding.outpoint.txid in pump.chain.confirmed, "the branch is on chain"
    assert own_commitments(pump, node) == []
    pump.restart(node)
    pump.run()
    assert own_commitments(pump, node) == []


@pytest.mark.sampled(1)
@SIDES
@pytest.mark.parametrize("asked", ["both", "whoever lost state"])
def test_whoever_lost_state_is_paid_by_the_others_commitment(side: str, asked: str) -> None:
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    node = set_back(pump, side)
    alice = pump.clients[0]
    other = alice if node is pump.lsp else pump.lsp
    latest = alices_link(pump, other).finished.tx.txid
    for leaver in (node,) if asked == "whoever lost state" else (node, other):
        ask_to_leave(pump, leaver, alice)
    pump.restart(other)
    mine_until_spent(pump, alices_link(pump, node).setting.funding.outpoint)
    pump.mine(2)
    assert latest in pump.chain.confirmed
    taken = [one.spend.tx for one in pump.wishes(node, fx.SignTakingTx)]
    assert {tx_in.outpoint.txid for tx in taken for tx_in in tx.inputs} == {latest}
    assert taken[0].txid in pump.chain.confirmed


@SIDES
def test_who_says_untruly_that_it_lost_state_gains_nothing_by_it(side: str) -> None:
    """Our commitment is published only where its output is on chain: by the liar's own exit."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    liar, node = (alice, pump.lsp) if side == "client" else (pump.lsp, alice)
    link = alices_link(pump, node)
    before = link.state

    def with_claim(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is liar and isinstance(message, m.ChannelReestablish):
            return (replace(message, next_commitment_number=1),)
        return (message,)

    with pump.tampering(with_claim):
        for _ in range(2):
            pump.disconnect(alice)
            pump.connect(alice)
            pump.run()
    after = alices_link(pump, node)
    assert after.peer_is_behind
    assert not after.is_behind
    assert after.failure == "the peer lost state of this channel: our commitment pays both of us"
    assert len(remembered(node, cr.PeerLostState)) == 1, "once"
    pump.restart(node)
    pump.mine(20)
    assert pump.chain.coin(link.setting.funding.outpoint) is None
    assert own_commitments(pump, node) == []
    assert alices_link(pump, node).state.own_signed == before.own_signed
    ask_to_leave(pump, liar, alice)
    mine_until_spent(pump, link.setting.funding.outpoint)


# HTLCs that were written off


def test_an_htlc_that_the_lsp_wrote_off_cannot_be_fulfilled_any_more() -> None:
    pump = live_factory(3, policy=QUICK, watches_folds=True)
    alice, bob, _ = pump.clients
    before_msat = FIRST_MSAT
    _, link = pending_for(pump, "lsp", SMALL_MSAT)
    (invoice,) = (one for one in book(bob).invoices.values() if one.amount_msat == SMALL_MSAT)
    mine_to(pump, only_expiry(link) + 12)
    pump.run()
    assert balance(alice).own_msat == before_msat
    pump.connect(bob)
    pump.run()
    late = m.UpdateFulfillHtlc(
        channel_id=link.channel_id, htlc_id=0, payment_preimage=invoice.preimage
    )
    pump.tell(pump.lsp, bob, late)
    pump.run()
    failure = lsp_link(pump, link).failure
    assert failure == "an HTLC expired without an answer"
    assert [one.status for one in book(pump.lsp).finished.values()] == ["failed"]
    assert book(pump.lsp).earned_msat == 0
    assert balance(alice).own_msat == before_msat


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_over", [False, True])
def test_a_payer_is_not_told_that_a_payment_failed_before_the_chain_says_so(
    *, is_over: bool
) -> None:
    """The LSP may have paid for it, though nothing of it reaches the payer any more."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 1_000_000)
    request = make_invoice(pump, bob, SMALL_MSAT)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    link = newest_link(alice)
    assert book(bob).invoices[request.payment_hash].status == "paid"
    if is_over:
        over = m.ChannelFailure(channel_id=link.channel_id, reason="no more")
        pump.tell(alice, pump.lsp, over)
    pump.clients.remove(bob)
    mine_to(pump, only_expiry(link) + 200)
    assert reasons_to_leave(alice) == [], "what is left is not worth an exit"
    assert book(alice).payments[request.payment_hash].status == "pending"
    assert remembered(alice, cr.HtlcDecided) == []
    ask_to_leave(pump, pump.lsp, alice)
    mine_until_spent(pump, link.setting.funding.outpoint)
    pump.mine(4)
    assert book(alice).payments[request.payment_hash].status == "pending"
    pump.mine()
    assert book(alice).payments[request.payment_hash].status == "failed", "six blocks deep"


def test_a_preimage_that_comes_long_after_the_expiry_still_makes_a_payment_paid() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, WORTH_MSAT)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    link = newest_link(alice)
    expiry = only_expiry(link)
    # Alice hears of no block meanwhile, and nothing of the LSP's confirms in time.
    pump.clients.remove(alice)
    while pump.chain.height < expiry + 30:
        pump.chain.mempool.clear()
        pump.mine()
    assert book(alice).payments[request.payment_hash].status == "pending"
    mine_until_spent(pump, htlc_outpoint(lsp_link(pump, link)))
    pump.clients.append(alice)
    pump.sync()
    assert book(alice).payments[request.payment_hash].status == "paid"


# While the funding is not on chain


def rewind(pump: Pump, node: PumpNode) -> Tx:
    """Let a node see the funding's block leave the chain; return the funding transaction."""
    attempt = node.state.attempts[newest_link(pump.clients[0]).attempt_id]
    funding: Tx = attempt.funding_tx
    while node.state.chain.depth(funding.txid):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    return funding


def show_blocks(pump: Pump, node: PumpNode, *, until: int, txs: tuple[Tx, ...] = ()) -> None:
    """Let one node see blocks up to a height, these transactions in the first."""
    for height in range(node.state.chain.height + 1, until + 1):
        block_hash = Txid(height.to_bytes(32, "big"))
        pump.handle(node, ev.BlockAdded(height=height, block_hash=block_hash, txs=txs))
        txs = ()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("side", ["lsp", "payee", "payer"])
def test_while_the_funding_is_off_the_chain_nobody_starts_an_exit(side: str) -> None:
    pump = live_factory(3, policy=QUICK)
    node, link = pending_for(pump, side, WORTH_MSAT)
    funding = rewind(pump, node)
    show_blocks(pump, node, until=only_expiry(link) + 5)
    asked = ev.ExitRequested(
        attempt_id=link.attempt_id, client=link.client if node is pump.lsp else None
    )
    assert node.driver is not None
    with pytest.raises(Rejected, match="the funding is not confirmed"):
        node.driver.handle(asked)
    assert reasons_to_leave(node) == []
    show_blocks(pump, node, until=only_expiry(link) + 6, txs=(funding,))
    assert reasons_to_leave(node) == ["an HTLC expires"]


def test_while_the_funding_is_off_the_chain_the_exit_deadline_moves_nobody() -> None:
    pump = live_factory(2, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    funding = rewind(pump, alice)
    deadline = newest_link(alice).exit_deadline_height
    show_blocks(pump, alice, until=deadline + 1)
    assert reasons_to_leave(alice) == []
    show_blocks(pump, alice, until=deadline + 2, txs=(funding,))
    assert reasons_to_leave(alice) == ["the exit deadline"]


# Once the channel is on chain


@SIDES
def test_a_channel_whose_output_is_spent_takes_no_update_from_that_block_on(side: str) -> None:
    """The other side leaves and says nothing about it."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    node, leaver = (alice, pump.lsp) if side == "client" else (pump.lsp, alice)
    outpoint = newest_link(alice).setting.funding.outpoint
    with pump.tampering(mute(leaver, node, m.ChannelFailure)):
        ask_to_leave(pump, leaver, alice)
        while outpoint not in node.state.chain.spends:
            assert alices_link(pump, node).is_open
            pump.mine()
        assert alices_link(pump, node).failure == "the channel is on chain"
        before = alices_link(pump, node).state
        offer = m.UpdateAddHtlc(
            channel_id=newest_link(alice).channel_id,
            htlc_id=before.next_id(before.peer),
            amount_msat=1_000_000,
            payment_hash=bytes(32),
            cltv_expiry=pump.chain.height + 250,
            delivery=m.Delivery(payee=bob.node_id, payment_secret=bytes(32), amount_msat=900_000),
        )
        pump.tell(node, leaver, offer)
    assert alices_link(pump, node).state == before


@pytest.mark.sampled(1)
@pytest.mark.parametrize("side", ["payee", "payer"])
def test_a_client_whose_channel_the_lsp_brought_on_chain_starts_no_exit_of_its_own(
    side: str,
) -> None:
    pump = live_factory(3, policy=QUICK)
    node, link = pending_for(pump, side, WORTH_MSAT)
    ask_to_leave(pump, pump.lsp, node)
    mine_until_spent(pump, link.setting.funding.outpoint)
    mine_to(pump, only_expiry(link) + 20)
    assert reasons_to_leave(node) == []


# While an exit runs


@pytest.mark.sampled(1)
@pytest.mark.parametrize("side", ["lsp", "payer"])
def test_while_an_exit_runs_only_the_chain_decides(side: str) -> None:
    """Nothing confirms until long after the HTLC would be written off, were there no exit."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    node, link = pending_for(pump, side, SMALL_MSAT)
    (payment,) = book(alice).payments
    ask_to_leave(pump, node, bob if side == "lsp" else alice)
    while pump.chain.height < only_expiry(link) + 30:
        pump.chain.mempool.clear()
        pump.mine()
    assert remembered(node, cr.HtlcDecided) == []
    assert book(alice).payments[payment].status == "pending"
    mine_until_spent(pump, link.setting.funding.outpoint)
    assert remembered(node, cr.HtlcDecided) == []
    pump.mine(5)
    assert book(alice).payments[payment].status == "failed"
    assert len(remembered(node, cr.HtlcDecided)) == 1
    pump.mine(5)
    assert len(remembered(node, cr.HtlcDecided)) == 1, "once"


# What makes an exit worth it


def spend_before_deadline(pump: Pump, amounts_msat: list[int]) -> Link:
    """Let Alice pay Bob, who is away, just before her exit deadline; return her channel."""
    alice, bob = pump.clients
    requests = [make_invoice(pump, bob, amount_msat) for amount_msat in amounts_msat]
    mine_to(pump, newest_link(alice).exit_deadline_height - 2)
    pump.disconnect(bob)
    for request in requests:
        pump.handle(alice, request)
        pump.run()
    pump.disconnect(alice)
    link = newest_link(alice)
    assert len(link.state.htlcs) == len(amounts_msat)
    return link


def test_at_the_exit_deadline_htlcs_at_stake_count() -> None:
    pump = live_factory(2, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 12_000_000)
    link = spend_before_deadline(pump, [11_900_000])
    assert balance(alice).own_msat < 1000 * link.exit_cost_sat
    pump.mine()
    assert reasons_to_leave(alice) == []
    pump.mine()
    assert reasons_to_leave(alice) == ["the exit deadline"]


def test_htlcs_without_an_output_make_no_exit_at_the_deadline_worth_it() -> None:
    pump = live_factory(2, policy=replace(SHORT, tree_feerate_sat_per_kw=500))
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 4_800_000)
    link = spend_before_deadline(pump, [TRIMMED_MSAT] * 5)
    assert balance(alice).own_msat < 1000 * link.exit_cost_sat < 5 * TRIMMED_MSAT
    pump.mine(60)
    assert reasons_to_leave(alice) == []


def test_htlcs_without_an_output_make_no_exit_before_their_expiry_worth_it() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    for _ in range(5):
        pump.handle(alice, make_invoice(pump, bob, TRIMMED_MSAT))
        pump.run()
    pump.disconnect(alice)
    link = newest_link(alice)
    assert len(link.state.htlcs) == 5
    assert 1000 * link.exit_cost_sat < 5 * TRIMMED_MSAT
    expiry = max(live.htlc.cltv_expiry for live in link.state.htlcs)
    mine_to(pump, expiry + 2)
    assert reasons_to_leave(alice) == []
