"""Leaving with money in the channel: every satoshi reaches the wallet that owns it."""

from typing import Any

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
from tests.protocol.pump import Pump, PumpNode, Tamper

from cromford.protocol import events as ev
from cromford.protocol.exiting import client as client_leaving
from cromford.protocol.exiting import lsp as lsp_leaving
from cromford.protocol.journal.exit_records import ExitStarted
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(4)


def wallet_sat(node: PumpNode) -> int:
    """Return what a node's wallet holds."""
    return sum(
        coin.txout.amount_sat
        for coin in node.state.wallet.coins.values()
        if coin.spent_height is None
    )


def leave(pump: Pump, client: PumpNode, **changes: Any) -> None:
    """Let a client leave, and mine until nothing more can come of it."""
    link = newest_link(client)
    pump.handle(client, ev.ExitRequested(attempt_id=link.attempt_id, **changes))
    pump.run()
    pump.mine(link.exit_blocks + link.setting.terms.to_self_delay_accepter + 2)


def publish_branch(pump: Pump, link: Link) -> None:
    """Mine until a channel's output is on chain, its commitment waiting in the mempool."""
    outpoint = link.setting.funding.outpoint
    for _ in range(link.exit_blocks):
        if pump.chain.coin(outpoint) is not None:
            return
        pump.mine()
    raise AssertionError("the channel did not reach the chain")


@pytest.mark.sampled(0)
def test_a_client_without_a_coin_leaves_with_its_balance() -> None:
    pump = live_factory(3)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    pay(pump, alice, bob, 7_000_000)
    left_sat = balance(alice).own_msat // 1000
    before_sat = wallet_sat(pump.lsp)
    assert wallet_sat(alice) == 0
    leave(pump, alice)
    sweep_fee_sat = left_sat - wallet_sat(alice)
    assert 0 < sweep_fee_sat < 400
    assert wallet_sat(pump.lsp) > before_sat, "the LSP swept its own side of the commitment"


def test_a_revoked_commitment_of_the_lsp_costs_it_the_whole_channel() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 1_000_000)
    old = lsp_link(pump, newest_link(alice))
    pay(pump, pump.lsp, alice, 30_000_000)
    pay(pump, alice, bob, 5_000_000)
    capacity_sat = newest_link(alice).setting.funding.capacity_sat
    client = newest_link(alice).client
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=old.attempt_id, client=client))
    publish_branch(pump, newest_link(alice))
    # The LSP's own daemon would publish its latest commitment; a thief publishes an old one.
    pump.chain.mempool.clear()
    pump.chain.broadcast(old.finished.tx)
    pump.mine(4)
    assert wallet_sat(alice) > capacity_sat - 3000


def test_a_revoked_commitment_with_an_htlc_of_a_client_is_punished_after_a_restart() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    pump.disconnect(bob)
    request = make_invoice(pump, bob, 5_000_000)
    pump.handle(alice, request)
    pump.run()
    old = newest_link(alice)
    assert [live.htlc.amount_msat for live in old.state.htlcs] == [5_006_000]
    pump.connect(bob)
    pump.run()
    pay(pump, alice, bob, 20_000_000)
    before_sat = wallet_sat(pump.lsp)
    pump.handle(alice, ev.ExitRequested(attempt_id=old.attempt_id))
    publish_branch(pump, old)
    pump.restart(pump.lsp)
    pump.chain.mempool.clear()
    pump.chain.broadcast(old.finished.tx)
    pump.mine(4)
    capacity_sat = old.setting.funding.capacity_sat
    assert wallet_sat(pump.lsp) > before_sat + capacity_sat - 4000
    assert wallet_sat(alice) == 0


QUICK = LspPolicy(
    min_clients=1, min_depth=1, step_blocks=4, states_per_layer=2, lstock_csv_blocks=4
)


def mute(sender: PumpNode, receiver: PumpNode, *lost: type[m.Message]) -> Tamper:
    """Return a tamper that loses some messages between two nodes."""

    def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_lost = by is sender and to is receiver and isinstance(message, lost)
        return () if is_lost else (message,)

    return tamper


def test_the_lsp_gets_back_on_chain_what_a_vanished_payee_never_took() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    pay(pump, pump.lsp, bob, 2_000_000)
    before_msat = balance(alice).own_msat
    request = make_invoice(pump, bob, 9_000_000)
    # Bob never hears that the LSP is bound, so he never shows the preimage.
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        pump.handle(alice, request)
        pump.run()
    pump.disconnect(bob)
    assert next(iter(book(pump.lsp).forwards.values())).status == "pending"
    pump.mine(newest_link(bob).exit_blocks + 18 + 144 + 12 + 60)
    assert reasons_to_leave(pump.lsp) == ["an HTLC expires"]
    assert book(alice).payments[request.payment_hash].status == "failed"
    assert balance(alice).own_msat == before_msat
    assert newest_link(alice).is_open


def test_a_payee_whose_answer_was_lost_is_paid_on_chain_and_the_lsp_upstream() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 9_000_000)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(bob)
    pump.run()
    assert book(bob).invoices[request.payment_hash].status == "paid"
    assert book(alice).payments[request.payment_hash].status == "pending"
    pump.mine(newest_link(bob).exit_blocks + 18 + 144 + 12 + 60)
    assert reasons_to_leave(bob) == ["an HTLC expires"]
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert wallet_sat(bob) > 8_000
    assert book(pump.lsp).earned_msat == request.amount_msat // 1000 + 1000


def reasons_to_leave(node: PumpNode) -> list[str]:
    """Return why a node left channels, by its journal."""
    records = node.store.remembered
    return [record.reason for record in records if isinstance(record, ExitStarted)]


def test_what_waits_out_its_delay_is_shown_as_arriving_until_it_is_in_the_wallet() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    link = newest_link(alice)
    assert client_leaving.arriving_total_sat(alice.state) == 0
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    publish_branch(pump, link)
    pump.mine(2)
    assert client_leaving.arriving_total_sat(alice.state) == 30_000
    lsps_sat = link.setting.funding.capacity_sat - 30_000 - link.setting.terms.paid_anchor_sat
    lsps_sat -= link.setting.terms.commitment_fee_sat(n_htlc_outputs=0)
    # Its balance in the other side's commitment waits for nothing: it was swept at once. The
    # L-stock of the leaf waits out its csv.
    (lstock_sat,) = pump.attempt.terms.lstock_sat
    assert lsp_leaving.arriving_total_sat(pump.factory) in {lstock_sat, lsps_sat + lstock_sat}
    pump.mine(link.setting.terms.to_self_delay_accepter + 1)
    assert client_leaving.arriving_total_sat(alice.state) == 0
    assert wallet_sat(alice) > 29_500
    assert lsp_leaving.arriving_total_sat(pump.factory) == 0


@pytest.mark.sampled(0)
def test_a_forward_that_is_paid_on_chain_has_its_entry_in_the_ledger() -> None:
    pump = live_factory(3, policy=QUICK, watches_folds=True)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 9_000_000)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    (forward,) = book(pump.lsp).forwards.values()
    assert forward.preimage is not None
    assert book(pump.lsp).earned_msat == 0
    pump.clients.remove(alice)
    pump.mine(2 * newest_link(alice).exit_blocks + 2 * (18 + 144 + 12) + 60)
    assert reasons_to_leave(pump.lsp) == ["an HTLC expires"]
    assert book(pump.lsp).earned_msat == forward.fee_msat
    assert not book(pump.lsp).forwards
    assert [one.status for one in book(pump.lsp).finished.values()] == ["paid"]
