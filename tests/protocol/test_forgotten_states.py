"""A state lands that a restored store has forgotten: its channels are in it all the same."""

from typing import Final

import pytest
from tests.protocol.advanced import Step, advance
from tests.protocol.old_states import SOLD_SAT, sold, told
from tests.protocol.paying_clients import balance, lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import Backup, backup_of, restore
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_marked_exits import mute_about_the_restore

from cromford.protocol import events as ev
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.exiting import lsp as lsp_exits
from cromford.protocol.journal import exit_records as xr

SWEEP_SAT: Final = 400  # More than a sweep of one output costs here.
WAY_BLOCKS: Final = 60


def left_by_the_lsp(pump: Pump, client: PumpNode, backup: Backup) -> None:
    """Restore a client's store, and let the LSP, which says nothing, leave its channel."""
    with pump.tampering(mute_about_the_restore):
        restore(pump, (client, backup))
        link = newest_link(client)
        assert link.mark is not None
        asked = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client)
        pump.handle(pump.lsp, asked)
        pump.mine(WAY_BLOCKS)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("who", ["buyer", "neighbour"])
def test_a_client_restored_to_before_a_sale_is_paid_by_the_lsps_commitment(who: str) -> None:
    """After the second sale the buyer's store is from before both, its neighbour's from between."""
    pump, done = sold(None)
    alice, bob = pump.clients
    backup = backup_of(alice)
    done.begin(Step.REBASED)
    if who == "neighbour":
        backup = backup_of(bob)
    newest = advance(pump, alice, SOLD_SAT)
    assert pay(pump, alice, bob, 3_000_000).status == "paid"
    client = alice if who == "buyer" else bob
    least_sat = balance(client).own_msat // 1000
    left_by_the_lsp(pump, client, backup)
    attempt = pump.held(client)
    assert len(attempt.leaf_states) == (who == "neighbour")
    assert newest.leaf.state.tx.txid in pump.chain.confirmed
    assert attempt.branch_on(client.state.chain).vertices[-1].last.tx == newest.leaf.state.tx
    assert attempt.signed_branch_on(client.state.chain).txs[-1].txid == newest.leaf.state.tx.txid
    assert not client_exits.is_swept(client.state, attempt)
    assert lsp_link(pump, newest_link(client)).finished.tx.txid in pump.chain.confirmed
    assert least_sat - SWEEP_SAT < wallet_sat(client) <= least_sat
    assert client_exits.arriving_total_sat(client.state) == 0


def test_an_lsp_restored_to_before_a_sale_takes_what_is_its_own_in_the_state_that_lands() -> None:
    pump, done = sold(None)
    alice, bob = pump.clients
    backup = backup_of(pump.lsp)
    done.begin(Step.REBASED)
    assert pay(pump, alice, bob, 3_000_000).status == "paid"
    before_sat = wallet_sat(pump.lsp)
    due_sat = sum(balance(client).peer_msat for client in pump.clients) // 1000
    due_sat += done.leaf.allocation.lstock_sat
    restore(pump, (pump.lsp, backup))
    for client in pump.clients:
        pump.handle(client, ev.ExitRequested(attempt_id=pump.held(client).attempt_id))
    pump.mine(WAY_BLOCKS)
    assert done.leaf.state.tx.txid in pump.chain.confirmed
    assert not any(lsp_exits.is_swept(pump.factory, client) for client in (1, 2))
    assert len(told(pump.lsp, xr.OutputsSwept)) == 1
    # The fees and anchors of both commitments were the LSP's to pay.
    assert due_sat - 3_000 < wallet_sat(pump.lsp) - before_sat < due_sat
