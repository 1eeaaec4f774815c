"""Verdicts on families of transactions: version 3, replacement, and packages; for both nodes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bitcoin_core_rpc import RpcError
from tests.functional.node_world import (
    ACCEPTED,
    FEE_SAT,
    KEY_SCRIPT,
    NODES,
    OPEN_SCRIPT,
    Coin,
    World,
    coin_of,
    first_word,
    hex_of,
    pay,
    signed,
)

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import Tx

# Version 3 (BIP 431).


def truc_pair(world: World, *, fee_sat: int = FEE_SAT) -> tuple[Tx, Tx]:
    """Return a version-3 parent in the mempool with two outputs, and a child in the mempool."""
    parent = pay([world.coin()], (1_000_000, OPEN_SCRIPT), version=3)
    child = pay([coin_of(parent, 0)], version=3, fee_sat=fee_sat)
    assert world.send(parent) == world.send(child) == ACCEPTED
    return parent, child


def a_truc_pair(world: World) -> str:
    truc_pair(world)
    return ACCEPTED


def a_large_truc(world: World) -> str:
    return world.send(
        pay([world.coin()], (0, b"\x6a\x4d\x10\x27" + bytes(10_000)), version=3, fee_sat=5_000)
    )


def a_large_truc_child(world: World) -> str:
    parent = pay([world.coin()], version=3)
    world.call("sendrawtransaction", hex_of(parent))
    data = b"\x6a\x4d\xe8\x03" + bytes(1_000)
    return world.send(pay([coin_of(parent, 0)], (0, data), version=3))


def a_truc_with_two_unconfirmed_parents(world: World) -> str:
    parents = [pay([world.coin()], version=3) for _ in range(2)]
    for parent in parents:
        world.call("sendrawtransaction", hex_of(parent))
    return world.send(pay([coin_of(parent, 0) for parent in parents], version=3))


def a_truc_grandchild(world: World) -> str:
    _, child = truc_pair(world)
    return world.send(pay([coin_of(child, 0)], version=3))


def a_truc_child_of_version_2(world: World) -> str:
    parent = pay([world.coin()])
    world.call("sendrawtransaction", hex_of(parent))
    return world.send(pay([coin_of(parent, 0)], version=3))


def a_version_2_child_of_a_truc(world: World) -> str:
    parent = pay([world.coin()], version=3)
    world.call("sendrawtransaction", hex_of(parent))
    return world.send(pay([coin_of(parent, 0)], version=2))


def a_sibling_that_pays_more(world: World) -> str:
    parent, child = truc_pair(world)
    verdict = world.send(pay([coin_of(parent, 1)], version=3, fee_sat=5_000))
    assert str(child.txid) not in world.call("getrawmempool")
    return verdict


def a_sibling_that_pays_the_same(world: World) -> str:
    parent, _ = truc_pair(world)
    return world.send(pay([coin_of(parent, 1)], version=3))


# Replacement.


def a_replacement_that_pays_more(world: World) -> str:
    coin = world.coin()
    old, new = pay([coin]), pay([coin], fee_sat=FEE_SAT + 100)
    assert world.send(old) == ACCEPTED
    verdict = world.send(new)
    assert str(old.txid) not in world.call("getrawmempool")
    return verdict


def a_replacement_that_pays_the_same(world: World) -> str:
    coin = world.coin()
    assert world.send(pay([coin])) == ACCEPTED
    return world.send(pay([coin], (5_000, OPEN_SCRIPT)))


def a_replacement_that_pays_too_little_more(world: World) -> str:
    coin = world.coin()
    assert world.send(pay([coin])) == ACCEPTED
    return world.send(pay([coin], fee_sat=FEE_SAT + 1))


def a_replacement_that_pays_less_than_the_descendants(world: World) -> str:
    coin = world.coin()
    parent = pay([coin])
    assert world.send(parent) == ACCEPTED
    assert world.send(pay([coin_of(parent, 0)], fee_sat=50_000)) == ACCEPTED
    return world.send(pay([coin], fee_sat=10_000))


def a_replacement_with_a_worse_feerate(world: World) -> str:
    coin = world.coin()
    assert world.send(pay([coin], fee_sat=2_000)) == ACCEPTED
    data = b"\x6a\x4d\xe8\x03" + bytes(1_000)
    return world.send(pay([coin], (0, data), fee_sat=2_500))


def a_replacement_of_its_own_parent(world: World) -> str:
    coin = world.coin()
    parent = pay([coin])
    assert world.send(parent) == ACCEPTED
    return world.send(pay([coin, coin_of(parent, 0)], fee_sat=90_000))


def the_same_again(world: World) -> str:
    tx = pay([world.coin()])
    assert world.send(tx) == ACCEPTED
    assert world.call("sendrawtransaction", hex_of(tx)) == str(tx.txid)
    return first_word(world.test(tx)[0]["reject-reason"])


def the_same_with_another_witness(world: World) -> str:
    coin = world.confirmed(KEY_SCRIPT, 100_000, ())
    tx = pay([coin])
    assert world.send(signed(tx, [coin])) == ACCEPTED
    return first_word(world.test(tx.with_witnesses((bytes(64),)))[0]["reject-reason"])


def the_same_after_it_confirmed(world: World) -> str:
    tx = pay([world.coin()])
    assert world.send(tx) == ACCEPTED
    world.mine()
    with pytest.raises(RpcError, match="Transaction outputs already in utxo set") as caught:
        world.call("sendrawtransaction", hex_of(tx))
    assert caught.value.code == -27
    return first_word(world.test(tx)[0]["reject-reason"])


def a_fee_beyond_the_guard(world: World) -> str:
    tx = pay([world.coin()], fee_sat=10_000_000)
    assert world.test(tx)[0]["reject-reason"] == "max-fee-exceeded"
    with pytest.raises(RpcError, match="Fee exceeds maximum configured by user") as caught:
        world.call("sendrawtransaction", hex_of(tx))
    assert caught.value.code == -25
    assert world.call("sendrawtransaction", hex_of(tx), 0) == str(tx.txid)
    return ACCEPTED


def the_sixty_fifth_of_a_chain(world: World) -> str:
    tx = pay([world.coin()])
    for _ in range(64):
        world.call("sendrawtransaction", hex_of(tx))
        tx = pay([coin_of(tx, 0)])
    return world.send(tx)


# Packages.


def free_parent(world: World, *, anchor_sat: int = 0, coin: Coin | None = None) -> Tx:
    return pay([coin or world.coin()], (anchor_sat, ANCHOR_SCRIPT), fee_sat=0, version=3)


def child_of(parent: Tx, *coins: Coin, fee_sat: int = FEE_SAT) -> Tx:
    return pay([coin_of(parent, 0, ()), *coins], fee_sat=fee_sat, version=3)


def a_free_parent_alone(world: World) -> str:
    return world.send(free_parent(world))


def a_free_parent_with_a_paying_child(world: World) -> str:
    parent = free_parent(world)
    child = child_of(parent, world.coin())
    verdict = world.package(parent, child)
    assert {str(parent.txid), str(child.txid)} <= set(world.call("getrawmempool"))
    entry = world.call("getmempoolentry", str(parent.txid))
    assert entry["fees"]["base"] == 0
    assert entry["spentby"] == [str(child.txid)]
    [block_hash] = world.mine()
    block_txids = world.call("getblock", block_hash)["tx"]
    assert block_txids.index(str(parent.txid)) < block_txids.index(str(child.txid))
    return verdict


def a_package_sent_twice(world: World) -> str:
    parent = free_parent(world)
    child = child_of(parent, world.coin())
    world.package(parent, child)
    return world.package(parent, child)


def a_child_that_leaves_the_dust(world: World) -> str:
    parent = free_parent(world)
    return world.package(parent, pay([coin_of(parent, 1)], version=3, fee_sat=5_000))


def a_child_that_pays_too_little(world: World) -> str:
    parent = free_parent(world)
    return world.package(parent, child_of(parent, world.coin(), fee_sat=20))


def a_child_that_replaces_the_child(world: World) -> str:
    parent = free_parent(world)
    world.package(parent, child_of(parent, world.coin()))
    return world.send(child_of(parent, world.coin(), fee_sat=9_000))


def a_package_that_replaces_a_package(world: World) -> str:
    coin = world.coin()
    parent = free_parent(world, coin=coin)
    world.package(parent, child_of(parent, world.coin()))
    rival = pay([coin], (0, ANCHOR_SCRIPT), (700, OPEN_SCRIPT), fee_sat=0, version=3)
    verdict = world.package(rival, child_of(rival, world.coin(), fee_sat=9_000))
    assert str(parent.txid) not in world.call("getrawmempool")
    return verdict


def a_package_that_does_not_pay_for_the_old_one(world: World) -> str:
    coin = world.coin()
    parent = free_parent(world, coin=coin)
    world.package(parent, child_of(parent, world.coin()))
    rival = pay([coin], (0, ANCHOR_SCRIPT), (700, OPEN_SCRIPT), fee_sat=0, version=3)
    return world.package(rival, child_of(rival, world.coin(), fee_sat=FEE_SAT))


def a_package_with_an_invalid_parent(world: World) -> str:
    parent = free_parent(world, coin=replace(world.coin(), witness=(b"\x52",)))
    return world.package(parent, child_of(parent, world.coin()))


def a_package_with_a_paying_parent(world: World) -> str:
    parent = pay([world.coin()], (240, ANCHOR_SCRIPT), version=3)
    return world.package(parent, child_of(parent, world.coin()))


def a_package_in_the_wrong_order(world: World) -> str:
    parent = free_parent(world)
    with pytest.raises(RpcError, match="package topology disallowed") as caught:
        world.package(child_of(parent, world.coin()), parent)
    assert caught.value.code == -25
    return "topology"


def a_test_of_parent_and_child(world: World) -> str:
    parent = pay([world.coin()], version=3)
    results = world.test(parent, pay([coin_of(parent, 0)], version=3))
    assert [result["allowed"] for result in results] == [True, True]
    return ACCEPTED


def a_test_of_a_package_that_replaces(world: World) -> str:
    coin = world.coin()
    assert world.send(pay([coin])) == ACCEPTED
    parent = pay([coin], fee_sat=9_000)
    results = world.test(parent, pay([coin_of(parent, 0)]))
    assert "allowed" not in results[1]
    return first_word(results[0]["reject-reason"])


def a_test_of_a_package_in_the_wrong_order(world: World) -> str:
    parent = pay([world.coin()])
    results = world.test(pay([coin_of(parent, 0)]), parent)
    assert not any("allowed" in result for result in results)
    return first_word(results[0]["package-error"])


def a_test_of_two_truc_children(world: World) -> str:
    parent = pay([world.coin()], (1_000_000, OPEN_SCRIPT), version=3)
    children = [pay([coin_of(parent, vout)], version=3) for vout in range(2)]
    return first_word(world.test(parent, *children)[0]["package-error"])


CASES: dict[Callable[[World], str], str] = {
    a_truc_pair: ACCEPTED,
    a_large_truc: "TRUC-violation",
    a_large_truc_child: "TRUC-violation",
    a_truc_with_two_unconfirmed_parents: "TRUC-violation",
    a_truc_grandchild: "TRUC-violation",
    a_truc_child_of_version_2: "TRUC-violation",
    a_version_2_child_of_a_truc: "TRUC-violation",
    a_sibling_that_pays_more: ACCEPTED,
    a_sibling_that_pays_the_same: "insufficient",
    a_replacement_that_pays_more: ACCEPTED,
    a_replacement_that_pays_the_same: "insufficient",
    a_replacement_that_pays_too_little_more: "insufficient",
    a_replacement_that_pays_less_than_the_descendants: "insufficient",
    a_replacement_with_a_worse_feerate: "replacement-failed",
    a_replacement_of_its_own_parent: "bad-txns-spends-conflicting-tx",
    the_same_again: "txn-already-in-mempool",
    the_same_with_another_witness: "txn-same-nonwitness-data-in-mempool",
    the_same_after_it_confirmed: "txn-already-known",
    a_fee_beyond_the_guard: ACCEPTED,
    the_sixty_fifth_of_a_chain: "too-large-cluster",
    a_free_parent_alone: "min",
    a_free_parent_with_a_paying_child: "success: accepted accepted",
    a_package_sent_twice: "success: accepted accepted",
    a_child_that_leaves_the_dust: "unspent-dust: min missing-ephemeral-spends",
    a_child_that_pays_too_little: "transaction failed: min min",
    a_child_that_replaces_the_child: ACCEPTED,
    a_package_that_replaces_a_package: "success: accepted accepted",
    a_package_that_does_not_pay_for_the_old_one: (
        "package RBF failed: insufficient anti-DoS fees: min bad-txns-inputs-missingorspent"
    ),
    a_package_with_an_invalid_parent: (
        "transaction failed: mempool-script-verify-flag-failed bad-txns-inputs-missingorspent"
    ),
    a_package_with_a_paying_parent: "success: accepted accepted",
    a_package_in_the_wrong_order: "topology",
    a_test_of_parent_and_child: ACCEPTED,
    a_test_of_a_package_that_replaces: "bip125-replacement-disallowed",
    a_test_of_a_package_in_the_wrong_order: "package-not-sorted",
    a_test_of_two_truc_children: "TRUC-violation",
}


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_both_nodes_give_the_verdict_of_the_table(
    world: World, case: Callable[[World], str]
) -> None:
    assert case(world) == CASES[case]
