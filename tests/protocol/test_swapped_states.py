"""Reorganisations that put one state of a leaf in the place of another.

What was published of the state that is gone is worth nothing, and must not be in the way.
"""

from typing import Final

import pytest
from tests.protocol.advanced import Advance, Step
from tests.protocol.old_states import (
    bring_on_chain,
    channel_outpoint,
    everybody,
    look_again,
    look_away,
    sold,
    spender_of,
    state_of,
    stock_outpoint,
    told,
    wallets_sat,
)
from tests.protocol.paying_clients import balance, lsp_link, newest_link, pay
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_superseded import PENALTY_SAT, SWEEP_SAT, poisoned_sat
from tests.protocol.unanswered import remove_blocks

from cromford.bitcoin.tx import Tx
from cromford.daemon.views import client as client_views
from cromford.protocol import events as ev
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr

EXIT_SAT: Final = 1_000  # More than what taking a balance costs.


def swap(pump: Pump, done: Advance, state_index: int, *with_it: Tx, landed: int) -> None:
    """Take back the block of the state that landed, and all above it; another one lands instead.

    Everybody starts again in between.
    """
    height = pump.chain.confirmed[state_of(pump, done, landed).txid]
    remove_blocks(pump, pump.chain.height - height + 1)
    for node in everybody(pump):
        pump.restart(node)
    look_away(pump)
    pump.chain.mempool.clear()
    bring_on_chain(pump, done, state_index, *with_it)
    assert state_of(pump, done, landed).txid not in pump.chain.confirmed
    look_again(pump)


def test_after_the_poisons_of_a_state_that_is_gone_all_have_the_newest() -> None:
    pump, done = sold()
    due = {client: balance(client).own_msat // 1000 for client in pump.clients}
    bring_on_chain(pump, done, 0)
    look_again(pump)
    pump.mine(3)
    for client in pump.clients:
        assert spender_of(pump, channel_outpoint(done, 0, client)) is not None
        assert wallet_sat(client) > sum(poisoned_sat(pump, client)) - SWEEP_SAT
    swap(pump, done, 1, landed=0)
    for client in pump.clients:
        assert wallet_sat(client) == 0
        asked = ev.ExitRequested(attempt_id=pump.held(client).attempt_id)
        pump.handle(client, asked)
    pump.mine(20)
    for client, due_sat in due.items():
        assert due_sat - EXIT_SAT < wallet_sat(client) <= due_sat
    stock_sat = done.leaf.allocation.lstock_sat
    assert [one.amount_sat for one in told(pump.lsp, xr.OutputsSwept)] == [stock_sat]
    assert spender_of(pump, stock_outpoint(done, 1)) is not None


def test_a_replaced_state_in_the_place_of_the_newest_is_taken_apart() -> None:
    """The channels went on in the newest state, and of one the commitment was in a block."""
    pump, done = sold()
    alice, bob = pump.clients
    bring_on_chain(pump, done, 1)
    look_again(pump)
    pump.mine(2)
    assert pay(pump, alice, bob, 2_000_000).status == "paid"
    asked = ev.ExitRequested(attempt_id=pump.held(alice).attempt_id)
    pump.handle(alice, asked)
    pump.mine(2)
    assert spender_of(pump, channel_outpoint(done, 1, alice)) is not None
    before = wallets_sat(pump)["lsp"]
    swap(pump, done, 0, landed=1)
    pump.mine(3)
    for client in pump.clients:
        due_sat = sum(poisoned_sat(pump, client))
        assert due_sat - SWEEP_SAT < wallet_sat(client) < due_sat
        assert not newest_link(client).takes_updates
    pump.mine(30)
    assert wallet_sat(pump.lsp) <= before
    assert spender_of(pump, stock_outpoint(done, 0)) is not None, "the clients', by the poison"


@pytest.mark.parametrize("leaves", [False, True])
def test_a_next_state_may_come_by_a_reorganisation_after_its_advance_is_over(
    *, leaves: bool
) -> None:
    """The LSP alone has its signature. What the clients had signed of it ended six blocks deep."""
    pump, done = sold(Step.DONE)
    due = {client: balance(client).own_msat // 1000 for client in pump.clients}
    for client in pump.clients:
        pump.disconnect(client)
        if leaves:
            asked = ev.ExitRequested(attempt_id=pump.held(client).attempt_id)
            pump.handle(client, asked)
    bring_on_chain(pump, done, 0)
    look_again(pump)
    pump.mine(7)
    assert all(len(told(client, ar.AdvanceEnded)) == 1 for client in pump.clients)
    swap(pump, done, 1, landed=0)
    for client in pump.clients:
        on_chain = client_views.published(client.state, pump.held(client))
        assert on_chain == ["kickoff_root", "state_root v1"]
        pump.restart(client)
    pump.mine(20)
    for client, due_sat in due.items():
        assert due_sat - EXIT_SAT < wallet_sat(client) <= due_sat


@pytest.mark.parametrize(("who", "first"), [("lsp", 0), ("client", 1)])
def test_one_number_is_punished_on_whichever_output_it_comes_again(who: str, first: int) -> None:
    """Signed for both, with one secret: what was found on one is known on the other."""
    pump, done = sold(Step.ACKNOWLEDGED)
    alice, bob = pump.clients
    end = lsp_link(pump, newest_link(alice)) if who == "lsp" else newest_link(alice)
    frauds = [end.finished_on(funding) for funding in end.fundings]
    txs = [one.tx for one in frauds if one is not None]
    assert len(txs) == 2
    done.finish()
    assert pay(pump, alice, bob, 5_000_000).status == "paid"
    victim, cheater = (alice, pump.lsp) if who == "lsp" else (pump.lsp, alice)
    before = wallets_sat(pump)
    bring_on_chain(pump, done, first, txs[first])
    look_again(pump)
    pump.mine(3)
    _check_has_all(pump, done, first, before[victim.name], is_alices=victim is alice)
    then = 1 - first
    swap(pump, done, then, txs[then], landed=first)
    pump.mine(4)
    _check_has_all(pump, done, then, before[victim.name], is_alices=victim is alice)
    contents = {one.content for one in told(victim, cr.BreachFound)}
    assert contents == {one.commitment.content for one in frauds if one is not None}
    assert wallet_sat(cheater) - before[cheater.name] <= poisoned_sat(pump, alice)[1] * (then == 0)


def _check_has_all(
    pump: Pump, done: Advance, landed: int, before_sat: int, *, is_alices: bool
) -> None:
    """Check that the victim took all of Alice's channel by a penalty in a state of the leaf."""
    alice, _ = pump.clients
    place = done.leaf.clients.index(newest_link(alice).client)
    capacity_sat = done.leaf.allocation_at(landed).capacities_sat[place]
    share_sat = poisoned_sat(pump, alice)[1] if landed == 0 and is_alices else 0
    victim = alice if is_alices else pump.lsp
    gained_sat = wallet_sat(victim) - before_sat
    assert share_sat + capacity_sat - PENALTY_SAT < gained_sat <= share_sat + capacity_sat
