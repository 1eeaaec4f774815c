"""Every option of a finished close is one that the embedded node takes, whatever waits there.

It looks like one signer's payment, and takes the place of a root that waits in the mempool.
"""

from dataclasses import replace
from typing import Any

import pytest

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol import events as ev
from tests.matrix.market import LOW
from tests.matrix.world import MatrixWorld
from tests.protocol.closes import BALANCES_MSAT, check_all_is_paid, close, finished

# 2 sat/vB: a close at the least that a client agrees to has to replace a root that pays that.
MARKET = replace(LOW, tree_sat_per_kw=500)


def world_of(n_clients: int) -> MatrixWorld:
    world = MatrixWorld(n_clients=n_clients, market=MARKET, seed="closes")
    for seat, amount_msat in zip(range(1, n_clients + 1), BALANCES_MSAT, strict=False):
        world.give(world.client_at(seat), amount_msat)
    world.begin()
    return world


def publish(world: MatrixWorld, name: str) -> Tx:
    """Let somebody publish a transaction of the tree."""
    signed = world.attempt.signed
    assert signed is not None
    tx = signed.tree.txs[name]
    world.chain.broadcast(tx)
    return tx


def waits(world: MatrixWorld, tx: Tx) -> bool:
    return world.chain.mempool_tx(tx.txid) is not None


def options(world: MatrixWorld) -> list[Tx]:
    (record,) = finished(world.lsp)
    return [Tx.parse(data) for data in record.txs]


@pytest.mark.parametrize(("n_clients", "root"), [(2, "kickoff_root"), (5, "static_root")])
def test_a_close_at_the_least_feerate_replaces_a_root_that_waits(n_clients: int, root: str) -> None:
    world = world_of(n_clients)
    rival = publish(world, root)
    assert waits(world, rival)
    close(world, feerates_sat_per_kw=(750, 3_000))
    cheap, dear = options(world)
    assert waits(world, cheap)
    assert not waits(world, rival)
    world.chain.broadcast(dear)
    assert waits(world, dear), "the other option is valid, too, and pays for its place"
    assert not waits(world, cheap)
    check_is_in_the_next_block(world, dear)


def check_is_in_the_next_block(world: MatrixWorld, tx: Tx) -> None:
    world.mine(1)
    outpoint = tx.inputs[0].outpoint
    mined = world.chain.spends[outpoint]
    assert mined.txid == tx.txid
    assert [len(item) for item in mined.inputs[0].witness] == [64]
    check_all_is_paid(world)


def next_on_chain(world: MatrixWorld, outpoint: OutPoint) -> None:
    for _ in range(400):
        if world.factory.chain.depth(outpoint.txid):
            return
        world.mine(1)
    raise AssertionError(f"{outpoint} never came")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scope", ["kickoff's output", "child", "channel"])
def test_deeper_outputs_are_closed_on_the_node_too(scope: str) -> None:
    world = world_of(4)
    leaver = world.client_at(1)
    tree = world.attempt.tree
    away = next(one for one in tree.vertices[1:] if 1 not in one.first.shape.clients)
    own = next(one for one in tree.vertices[1:] if 1 in one.first.shape.clients)
    neighbour = next(client for client in own.first.shape.clients if client != 1)
    asked: dict[str, Any]
    if scope == "kickoff's output":
        publish(world, tree.root_node.name)
        world.mine(1)
        assert not tree.vertices[0].is_static
        outpoint, asked = tree.root_node.tx.outpoint(0), {}
    else:
        world.handle(leaver, ev.ExitRequested(attempt_id=world.attempt.attempt_id))
        world.run()
        if scope == "child":
            outpoint = away.first.tx.inputs[0].outpoint
            asked = {"vertex": away.first.shape.name}
        else:
            outpoint = world.attempt.setting(neighbour).funding.outpoint
            asked = {"client": neighbour}
        next_on_chain(world, outpoint)
    close(world, **asked)
    (record,) = finished(world.lsp)
    assert OutPoint.parse(record.outpoint) == outpoint
    check_is_in_the_next_block(world, options(world)[0])
