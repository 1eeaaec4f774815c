"""An old state of a leaf waits with a child, and then lands: what the newest one and poisons do.

Both nodes are asked: the embedded one, and a real Bitcoin Core if there is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from tests.functional.bumping_world import BumpingPump, embedded_node, real_node
from tests.functional.node_world import OPEN_SCRIPT, coin_of, pay
from tests.functional.test_expiry_on_core import CoreNode
from tests.protocol import pump as pumps
from tests.protocol.advanced import Advance, kickoff_of
from tests.protocol.old_states import (
    POLICY,
    channel_outpoint,
    look_again,
    look_away,
    sold,
    spender_of,
    state_of,
    stock_outpoint,
)
from tests.protocol.paying_clients import newest_link
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_superseded import poisoned_sat
from tests.simulation.sim_chain import SimRefused

from cromford.bitcoin.tx import Tx
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.policy import LspPolicy
from cromford.watch.bumping import anchor_of
from cromford.watch.feerates import FALLBACK_SAT_PER_KW

THIEFS_SAT: Final = 3_000  # What the child of the old state pays.
POISONS_SAT: Final = 1_500  # More than what children of two poisons, or their sweep, cost.


@dataclass(frozen=True, kw_only=True)
class Case:
    """Who pays the fees of the tree, and whether clients still have coins for children."""

    policy: LspPolicy
    has_coins: bool = False


FREE: Final = replace(POLICY, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0)
WITH_COINS: Final = Case(policy=FREE, has_coins=True)
CASES: Final = (
    (embedded_node, WITH_COINS),
    (real_node, WITH_COINS),
    (real_node, Case(policy=FREE)),
    (real_node, Case(policy=POLICY)),
)
NAMES: Final = ("embedded", "with coins", "without coins", "own fees")


@pytest.fixture(params=CASES, ids=NAMES)
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BumpingPump]:
    start, case = request.param
    monkeypatch.setattr(pumps, "N_CHILDREN", 2)
    datadir = tmp_path / "node"
    datadir.mkdir()
    for node in start(datadir):
        assert isinstance(node, CoreNode)
        world = BumpingPump(node, case.policy)
        if not case.has_coins:
            spend_all_coins(world)
        yield world


def spend_all_coins(world: BumpingPump) -> None:
    """Let every client pay all that is in its wallet to somebody else."""
    for client in world.clients:
        asked = ev.SpendingRequested(
            script_pubkey=OPEN_SCRIPT, amount_sat=None, feerate_sat_per_kw=FALLBACK_SAT_PER_KW
        )
        world.handle(client, asked)
    world.mine()
    assert not any(wallet_sat(client) for client in world.clients)


def test_an_old_state_is_replaced_as_a_package_and_poisoned_where_a_miner_takes_it(
    world: BumpingPump,
) -> None:
    _, done = sold(pump=world)
    old, newest = (state_of(world, done, index) for index in (0, 1))
    before = {client: wallet_sat(client) for client in world.clients}
    look_away(world)
    world.mine_these([kickoff_of(world)])
    mature(world, done, 0)
    pin = strangers_child(world, old, fee_sat=THIEFS_SAT)
    world.chain.broadcast_package(old, pin)
    with pytest.raises(SimRefused):
        world.chain.broadcast(newest)
    assert world.waiting() == {str(old.txid), str(pin.txid)}
    look_again(world)
    (child,) = world.children_of(newest)
    assert world.waiting() == {str(newest.txid), child}
    assert world.family_fee_sat(newest) > THIEFS_SAT

    world.mine_these([old, pin])
    look_again(world)
    assert str(newest.txid) not in world.waiting()
    _check_poisons_wait(world, done)
    world.mine(3)
    for client, had_sat in before.items():
        due_sat = sum(poisoned_sat(world, client))
        assert due_sat - POISONS_SAT < wallet_sat(client) - had_sat < due_sat


def _check_poisons_wait(world: BumpingPump, done: Advance) -> None:
    """Check that each poison waits; where it pays nothing, with one child, of its own output."""
    is_free = world.policy.fee_policy is FeePolicy.EPHEMERAL
    leaf = world.attempt.leaf(1)
    poisons = [leaf.channel_poison(0, newest_link(one).client) for one in world.clients]
    for poison in (*poisons, leaf.stock_poison(0)):
        assert str(poison.tx.txid) in world.waiting(), poison.name
        assert (poison.fee_sat == 0) is is_free
        children = [world.waiting_tx(txid) for txid in world.children_of(poison.tx)]
        assert len(children) == is_free
        for child in children:
            assert [tx_in.outpoint.txid for tx_in in child.inputs] == [poison.tx.txid]
            scripts = {world.held(one).join.payout_script for one in world.clients}
            assert {out.script_pubkey for out in child.outputs} <= scripts
    outpoints = [channel_outpoint(done, 0, one) for one in world.clients]
    for outpoint in (*outpoints, stock_outpoint(done, 0)):
        assert spender_of(world, outpoint) is None


def mature(world: BumpingPump, done: Advance, state_index: int) -> None:
    """Find empty blocks until the next one can hold a state, whose kickoff is in the newest."""
    for _ in range(done.leaf.states[state_index].delay_blocks - 1):
        world.mine_these([])


def strangers_child(world: BumpingPump, tx: Tx, *, fee_sat: int) -> Tx:
    """Return a child of a transaction's anchor that a stranger's coin pays for."""
    anchor = anchor_of(tx)
    assert anchor is not None
    coins = [coin_of(tx, anchor.vout, ()), world.chain.strangers_coin()]
    return pay(coins, fee_sat=fee_sat, version=3)


def test_the_newest_state_comes_back_where_an_old_one_with_a_child_took_its_place(
    world: BumpingPump,
) -> None:
    """It is bumped as long as it is alone; what then replaces it for more is replaced in turn."""
    _, done = sold(pump=world)
    old, newest = (state_of(world, done, index) for index in (0, 1))
    world.mine_these([kickoff_of(world)])
    first_sat = None
    for _ in range(done.leaf.states[0].delay_blocks - 1):
        world.mine_these([])
        look_again(world)
        if first_sat is None and str(newest.txid) in world.waiting():
            first_sat = world.family_fee_sat(newest)
    alone_sat = world.family_fee_sat(newest)
    assert first_sat is not None
    assert alone_sat > first_sat
    pin = strangers_child(world, old, fee_sat=alone_sat + THIEFS_SAT)
    world.chain.broadcast_package(old, pin)
    assert world.waiting() == {str(old.txid), str(pin.txid)}
    world.mine_these([])
    look_again(world)
    (child,) = world.children_of(newest)
    assert world.waiting() == {str(newest.txid), child}
    assert world.family_fee_sat(newest) > alone_sat + THIEFS_SAT
    world.mine()
    assert newest.txid in world.chain.confirmed
