"""A process dies at every point of the ceremony, on either side: nothing is signed twice.

The journal is the only thing that survives. At each append the process may die just before or
just after it became durable, and before each effect; then it starts again and the world goes on.
"""

from typing import Any, Final

import pytest
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import durable

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.client_attempt import Complete, RootSent
from cromford.protocol.journal.client_candidate import pool_ids_of
from cromford.wire import messages as m

POINTS_MAX: Final = 100  # No ceremony of two clients has so many.
SHARDS: Final = 4


def ceremony(side: str, point: int | None) -> Pump:
    """Run a ceremony in which one side dies at a point, and go on until it rests."""
    pump = Pump(2 if side == "lsp" else 1, watches_folds=True)
    node = pump.lsp if side == "lsp" else pump.clients[0]
    node.fuse = point
    for _ in range(4):
        if pump.is_funded():
            break
        # An operator's wish may die with the process that heard it, so it is made again.
        pump.join_again()
        if pump.lsp.state.open_attempt is None and pump.lsp.state.house.build is None:
            pump.build()
        pump.run()
        pass_deadlines(pump)
    pump.mine(pump.policy.min_depth)
    return pump


def pass_deadlines(pump: Pump) -> None:
    """Let every deadline of the LSP pass, as it would for whoever does not answer."""
    for name, deadline in sorted(pump.deadlines, key=repr):
        if name == pump.lsp.name and (name, deadline) in pump.deadlines:
            pump.pass_deadline(pump.lsp, deadline)
    pump.run()
    pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
    pump.run()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("side", ["lsp", "client"])
def test_wherever_a_side_dies_the_journal_folds_to_its_state_and_a_factory_comes(
    side: str, shard: int
) -> None:
    n_died = 0
    for point in range(1 + shard, POINTS_MAX, SHARDS):
        pump = ceremony(side, point)
        node = pump.lsp if side == "lsp" else pump.clients[0]
        if node.n_deaths == 0:
            break
        n_died += 1
        check_afterwards(pump)
    else:
        raise AssertionError("the ceremony has more points than were tried")
    assert n_died > 3, "it died often enough for this to mean something"


def check_afterwards(pump: Pump) -> None:
    """Check what no death may break. The pump checks every signature and every message."""
    assert pump.is_funded(), "an honest ceremony ends in a factory"
    for node in (pump.lsp, *pump.clients):
        node._fold = None  # from the first record on
        assert durable(node.durable_state()) == durable(node.state)
    for attempt in pump.lsp.state.attempts.values():
        over = attempt.aborted is not None
        assert over != (attempt.funded is not None)
        assert over == (attempt.attempt_id not in pump.lsp.state.wallet.reserved.values())
    for client in pump.clients:
        for held in client.state.attempts.values():
            funded = held.is_checked and held.funding_tx.txid in pump.chain.confirmed
            assert not funded or isinstance(held.stage, Complete), "funded without an exit"
            assert not held.ready_sent or funded
        check_no_key_is_used_again(client)


def check_no_key_is_used_again(client: PumpNode) -> None:
    records = [one for one in client.store.remembered if isinstance(one, lr.JoinSent)]
    joins = [record.join for record in records if record.join is not None]
    assert len(joins) == len(records)
    pools = [pool for join in joins for pool in pool_ids_of(join)]
    keys = [join.factory_pool.pubkey for join in joins]
    assert len(set(pools)) == len(pools)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("side", ["lsp", "client"])
def test_a_restart_never_signs_with_a_pool_of_before(side: str) -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run_to(m.SignBelow)
    node = pump.lsp if side == "lsp" else pump.clients[0]
    pools_before = pools_of(node)
    assert pools_before
    pump.restart(node)
    n_before = len(pump.wished)
    pump.run()
    while pump.lsp.state.house.members:
        pump.build()
        pump.run()
    assert pump.is_funded()
    asked = {
        request.pool_id
        for wished in pump.wished[n_before:]
        if wished.node == node.name and isinstance(wished.effect, fx.PartialSign)
        for request in wished.effect.requests
    }
    assert asked
    assert not asked & pools_before


def pools_of(node: PumpNode) -> set[bytes]:
    assert node.signer is not None
    return set(node.signer._pools)


def test_a_client_that_dies_after_the_root_asks_and_completes() -> None:
    """It signed the root and lost the answer: its records are kept, and the LSP tells it again."""
    pump = Pump(2)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    pump.run(until=lambda: pump.attempt.signed is not None)
    assert isinstance(pump.held(client).stage, RootSent)
    pump.restart(client)
    assert pump.sent(client, m.Resume)
    pump.run()
    assert isinstance(pump.held(client).stage, Complete)
    assert pump.is_funded()


def test_a_client_that_dies_before_the_root_holds_no_one_up_for_longer_than_its_absence() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    pump.run_to(m.SignedBelow)
    pump.restart(client)
    pump.run()
    aborted = [held for held in client.state.attempts.values() if held.aborted is not None]
    assert [held.aborted for held in aborted] == ["connection lost"]
    assert pump.is_funded()
    assert len(pump.attempt.seats) in {1, 2}


def test_an_lsp_that_dies_after_the_root_funds_when_all_have_acknowledged() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run_to(m.Acknowledge)
    attempt_id = pump.attempt.attempt_id
    pump.restart(pump.lsp)
    assert not pump.is_funded()
    pump.run()
    assert pump.is_funded()
    assert pump.attempt.attempt_id == attempt_id


def test_an_lsp_that_dies_between_the_last_acknowledgement_and_the_funding_still_funds() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run_to(m.Acknowledge)
    last = len(pump.wire) - 1
    for _ in range(last):
        pump._deliver(pump._next_letter())
    pump.lsp.fuse = 2  # before the append, and here: after it, before any effect
    pump.run()
    assert pump.is_funded()
    assert pump.lsp.n_deaths == 1
    assert len({tx.txid for tx in pump.published}) == 1


def test_a_restarted_client_goes_on_with_its_exit() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run()
    pump.mine()
    client = pump.clients[0]
    held = pump.held(client)
    pump.handle(client, ev.ExitRequested(attempt_id=held.attempt_id))
    pump.chain.mempool.clear()
    pump.restart(client)
    txs: Any = held.signed_branch.txs
    assert txs[0].txid in pump.chain.mempool
