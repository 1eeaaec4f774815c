"""Blocks taken back and brought again: both nodes end with the same chain and the same mempool."""

from typing import Any

import pytest
from tests.functional.node_world import ACCEPTED, NODES, World, coin_of, hex_of, pay

from cromford.bitcoin.tx import Tx

OTHER_ADDRESS = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.fixture(autouse=True)
def _empty_mempool(world: World) -> None:
    world.mine()


def sent(world: World, tx: Tx) -> Tx:
    assert world.send(tx) == ACCEPTED
    return tx


def mempool(world: World) -> set[str]:
    return set(world.call("getrawmempool"))


def test_transactions_of_a_block_taken_back_wait_again(world: World) -> None:
    tx = sent(world, pay([world.coin()]))
    child = sent(world, pay([coin_of(tx, 0)]))
    [block_hash] = world.mine()
    assert mempool(world) == set()
    world.call("invalidateblock", block_hash)
    assert mempool(world) == {str(tx.txid), str(child.txid)}
    assert world.call("getblockheader", block_hash)["confirmations"] == -1
    assert world.call("getblock", block_hash)["tx"][1:] == [str(tx.txid), str(child.txid)]
    world.call("reconsiderblock", block_hash)
    assert world.call("getbestblockhash") == block_hash
    assert mempool(world) == set()


def test_a_child_of_the_mempool_outlives_its_parents_block(world: World) -> None:
    tx = sent(world, pay([world.coin()]))
    [block_hash] = world.mine()
    child = sent(world, pay([coin_of(tx, 0)]))
    world.call("invalidateblock", block_hash)
    assert mempool(world) == {str(tx.txid), str(child.txid)}
    world.mine()
    assert mempool(world) == set()


def test_a_transaction_whose_delay_runs_again_leaves_the_mempool(world: World) -> None:
    tx = sent(world, pay([world.coin()]))
    world.mine()
    last = world.mine(2)[-1]
    delayed = sent(world, pay([coin_of(tx, 0)], nsequence=3))
    world.call("invalidateblock", last)
    assert str(delayed.txid) not in mempool(world)


def test_a_spend_of_a_coinbase_that_is_young_again_leaves_the_mempool(world: World) -> None:
    tip = world.call("getblockcount")
    tx = sent(world, pay([world.coinbase_coin(tip - 99)]))
    world.call("invalidateblock", world.call("getbestblockhash"))
    assert str(tx.txid) not in mempool(world)


def test_only_the_last_ten_blocks_give_their_transactions_back(world: World) -> None:
    old = sent(world, pay([world.coin()]))
    [first] = world.mine()
    world.mine(9)
    new = sent(world, pay([world.coin()]))
    world.mine()
    world.call("invalidateblock", first)
    assert mempool(world) == {str(new.txid)}
    assert world.call("gettxout", str(old.txid), 0) is None


def test_a_rival_spend_on_the_new_branch_removes_the_old_one(world: World) -> None:
    coin = world.coin()
    old = sent(world, pay([coin]))
    child = sent(world, pay([coin_of(old, 0)]))
    [block_hash] = world.mine()
    world.call("invalidateblock", block_hash)
    rival = pay([coin], fee_sat=7_000)
    world.call("generateblock", OTHER_ADDRESS, [hex_of(rival)])
    assert {str(old.txid), str(child.txid)} & mempool(world) == set()
    assert world.call("gettxout", str(rival.txid), 0)["confirmations"] == 1


def test_the_longer_branch_wins_and_of_two_equal_ones_the_first(world: World) -> None:
    [first] = world.mine()
    world.call("invalidateblock", first)
    [second] = world.call("generatetoaddress", 1, OTHER_ADDRESS)
    world.call("reconsiderblock", first)
    assert world.call("getbestblockhash") == first
    world.call("invalidateblock", first)
    assert world.call("getbestblockhash") == second
    [third] = world.call("generatetoaddress", 1, OTHER_ADDRESS)
    world.call("reconsiderblock", first)
    assert world.call("getbestblockhash") == third


def test_a_descendants_reconsideration_frees_its_ancestors(world: World) -> None:
    low, middle, high = world.mine(3)
    world.call("invalidateblock", low)
    assert world.call("getblockheader", middle)["confirmations"] == -1
    world.call("reconsiderblock", high)
    assert world.call("getbestblockhash") == high


def test_a_block_that_breaks_a_rule_is_not_mined(world: World) -> None:
    coin = world.coin()
    tip = world.call("getbestblockhash")
    too_much = pay([coin], (60 * 100_000_000, b"\x51"))
    code, message = world.error("generateblock", OTHER_ADDRESS, [hex_of(too_much)])
    assert code == -25
    assert message.startswith("TestBlockValidity failed")
    early = pay([coin], nsequence=1_000)
    code, _ = world.error("generateblock", OTHER_ADDRESS, [hex_of(early)])
    assert code == -25
    assert world.call("getbestblockhash") == tip
    assert world.send(pay([coin])) == ACCEPTED
