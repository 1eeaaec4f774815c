"""Leaving a leaf that is, or is being, advanced: whichever of its states lands, nobody loses."""

from typing import Final

import pytest
from tests.protocol.advanced import Step
from tests.protocol.old_states import (
    POLICY,
    bring_on_chain,
    look_again,
    sold,
    stock_outpoint,
    told,
)
from tests.protocol.paying_clients import balance, lsp_link, newest_link, pay
from tests.protocol.test_leaving import leave, wallet_sat

from cromford.factory.vertices import NodeKind
from cromford.protocol import events as ev
from cromford.protocol.advancing.finishing import CUT_SHORT, LEFT
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.exiting import lsp as lsp_exits
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import exit_records as xr

PRICE_MSAT: Final = 2_000_000
SWEEP_SAT: Final = 1_000  # More than what taking a balance costs, and satoshi rounded down.


@pytest.mark.sampled(1)
@pytest.mark.parametrize("who", ["client", "lsp"])
@pytest.mark.parametrize("until", [Step.HELD, Step.REBASED])
def test_an_exit_pays_the_balance_of_the_newest_state(until: Step, who: str) -> None:
    pump, done = sold(until)
    alice, bob = pump.clients
    if until is Step.REBASED:
        # More than the channel could hold before.
        assert pay(pump, pump.lsp, alice, 70_000_000).status == "paid"
        assert balance(alice).own_msat > 99_000_000
    assert pay(pump, alice, bob, 3_000_000).status == "paid"
    due_sat = balance(alice).own_msat // 1000
    if who == "client":
        leave(pump, alice)
    else:
        link = lsp_link(pump, newest_link(alice))
        asked = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client)
        pump.handle(pump.lsp, asked)
        pump.mine(link.exit_blocks + 10)
    assert done.leaf.state.tx.txid in pump.chain.confirmed
    assert due_sat - SWEEP_SAT < wallet_sat(alice) <= due_sat
    assert newest_link(bob).is_open, "who stays goes on in a channel that is on chain"
    pump.mine(6)
    assert not alice.state.advances, "nobody waits for what cannot come any more"
    assert not alice.state.purchases


# How far the advance went, and which state lands.
ROWS: Final = (
    (Step.ASKED, 0),
    (Step.AGREED, 0),
    (Step.COMMITTED, 0),
    (Step.DONE, 0),
    (Step.DONE, 1),
    (Step.KICKED_OFF, 0),
    (Step.KICKED_OFF, 1),
    (Step.HELD, 1),
    (Step.ACKNOWLEDGED, 1),
    (Step.REBASED, 1),
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("until", "landed"), ROWS)
def test_whatever_lands_of_an_advance_that_stopped_everybody_has_its_own(
    until: Step, landed: int
) -> None:
    pump, done = sold(until)
    due = {client: balance(client).own_msat // 1000 for client in pump.clients}
    for client in pump.clients:
        pump.disconnect(client)
    bring_on_chain(pump, done, landed)
    look_again(pump)
    for client in pump.clients:
        attempt = pump.held(client)
        assert not client_exits.is_swept(client.state, attempt)
        assert not lsp_exits.is_swept(pump.factory, newest_link(client).client)
        assert attempt.branch_on(client.state.chain).vertices[-1].last == done.leaf.states[landed]
        pump.handle(client, ev.ExitRequested(attempt_id=attempt.attempt_id))
    pump.mine(20)
    for client, due_sat in due.items():
        assert due_sat - SWEEP_SAT < wallet_sat(client) <= due_sat
    swept = [one.amount_sat for one in told(pump.lsp, xr.OutputsSwept)]
    # Of a state whose poisons were sent nothing is the LSP's, whoever got them.
    is_dead = until is Step.DONE and landed == 0
    assert swept == ([] if is_dead else [done.leaf.allocation_at(landed).lstock_sat])
    assert (stock_outpoint(done, landed) in pump.lsp.state.chain.spends) is not is_dead


@pytest.mark.parametrize("landed", [0, 1])
def test_a_client_that_revoked_for_the_rebase_has_its_own_though_the_lsp_stops(landed: int) -> None:
    """It holds the first commitment that is on the new output alone, and the LSP lacks it."""
    pump, done = sold(Step.REVOKED)
    alice, _ = pump.clients
    link = newest_link(alice)
    assert link.next is not None
    assert link.finished_on(link.present) is None
    due_sat = balance(alice).own_msat // 1000
    pump.disconnect(alice)
    bring_on_chain(pump, done, landed)
    look_again(pump)
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    pump.mine(20)
    # Of the old state it has the poison, or its part of what the LSP had not revoked there.
    assert wallet_sat(alice) > due_sat - SWEEP_SAT


@pytest.mark.parametrize(("until", "is_paid"), [(Step.ACKNOWLEDGED, False), (Step.REVOKED, True)])
def test_whoever_buys_is_not_told_that_nothing_was_paid_where_it_was(
    until: Step, *, is_paid: bool
) -> None:
    """An LSP that stops within the rebase: the price is on the commitment that lands."""
    pump, done = sold(until, price_msat=PRICE_MSAT)
    alice, _ = pump.clients
    had_sat = balance(alice).own_msat // 1000 + (PRICE_MSAT // 1000 if is_paid else 0)
    pump.disconnect(alice)
    bring_on_chain(pump, done, 1)
    look_again(pump)
    pump.handle(alice, ev.ExitRequested(attempt_id=newest_link(alice).attempt_id))
    pump.mine(20)
    assert (had_sat - wallet_sat(alice) > PRICE_MSAT // 1000) is is_paid
    (ended,) = told(alice, ar.PurchaseEnded)
    assert ended.reason == (CUT_SHORT if is_paid else LEFT)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("until", "landed"), [(Step.KICKED_OFF, 0), (Step.KICKED_OFF, 1), (Step.DONE, 1)]
)
def test_a_channel_goes_on_in_whichever_state_landed_while_none_is_replaced(
    until: Step, landed: int
) -> None:
    pump, done = sold(until)
    alice, bob = pump.clients
    bring_on_chain(pump, done, landed)
    look_again(pump)
    pump.mine(6)
    done.finish()
    assert pay(pump, alice, bob, 2_000_000).status == "paid"
    assert pay(pump, pump.lsp, alice, 1_000_000).status == "paid"
    for client in pump.clients:
        assert len(pump.held(client).leaf_states) == 1
        capacity_sat = newest_link(client).funding_on(client.state.chain).capacity_sat
        place = done.leaf.clients.index(newest_link(client).client)
        assert capacity_sat == done.leaf.allocation_at(landed).capacities_sat[place]
    due_sat = balance(alice).own_msat // 1000
    leave(pump, alice)
    assert due_sat - SWEEP_SAT < wallet_sat(alice) <= due_sat


def test_an_l_stock_that_is_used_up_leaves_a_leaf_that_pays_channels_alone() -> None:
    pump, done = sold(amount_sat=None)
    alice, _ = pump.clients
    assert [output.client for output in done.leaf.state.outputs] == [1, 2, None]
    assert pay(pump, pump.lsp, alice, 90_000_000).status == "paid"
    due_sat = balance(alice).own_msat // 1000
    leave(pump, alice)
    assert due_sat - SWEEP_SAT < wallet_sat(alice) <= due_sat
    assert told(pump.lsp, xr.OutputsSwept) == []


def test_the_way_out_of_a_rebased_channel_is_a_step_shorter_and_no_sooner() -> None:
    """While it has a commitment for both states the slower one counts."""
    pump, done = sold(None)
    alice, _ = pump.clients
    before = newest_link(alice).remaining(alice.state.chain)
    done.begin(Step.ACKNOWLEDGED)
    assert newest_link(alice).remaining(alice.state.chain) == before
    done.finish()
    for link in (newest_link(alice), lsp_link(pump, newest_link(alice))):
        after = link.remaining(alice.state.chain)
        assert before.exit_blocks - after.exit_blocks == POLICY.step_blocks
        assert after.exit_deadline_height is not None
        assert before.exit_deadline_height is not None
        assert after.exit_deadline_height - before.exit_deadline_height == POLICY.step_blocks


def test_everything_that_reads_the_tree_reads_the_newest_state() -> None:
    pump, done = sold()
    assert pump.attempt.tree.vertices[-1].last == done.leaf.state
    assert sum(node.kind is NodeKind.STATE for node in pump.attempt.tree.nodes) == 1
    for client in pump.clients:
        number = newest_link(client).client
        funding = newest_link(client).present
        assert pump.attempt.setting(number).funding == funding
        assert pump.held(client).setting.funding == funding
        assert pump.held(client).branch.channel_outpoint == funding.outpoint
        assert pump.held(client).signed_branch.txs[-1].txid == done.leaf.state.tx.txid
        assert pump.attempt.branch(number).channel_outpoint == funding.outpoint
    assert done.leaf.state.tx.txid in pump.attempt.watched_txids
    assert all(done.leaf.state.tx.txid in client.state.watched_txids for client in pump.clients)


def test_what_is_signed_is_watched_before_it_is_finished() -> None:
    pump, done = sold(Step.COMMITTED)
    for client in pump.clients:
        assert done.leaf.state.tx.txid in client.state.watched_txids
        outpoint = newest_link(client).fundings[-1].outpoint
        assert outpoint.txid == done.leaf.state.tx.txid
        assert outpoint in client_exits.watched(client.state)
