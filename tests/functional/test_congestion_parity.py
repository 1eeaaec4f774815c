"""A mempool that is full and blocks that are: both nodes keep, evict, refuse and mine the same.

Each expected value was seen on a Bitcoin Core of 2026.
"""

import time
from collections.abc import Iterator

import pytest
from tests.functional.family_world import (
    FUNDING_SAT,
    Outcome,
    anchor_of,
    child,
    chunk_of,
    fee_at,
    funding,
    node_tx,
    purse,
    refusal,
    sent,
    spend,
    submitted,
    waiting,
)
from tests.functional.node_world import (
    NODES,
    World,
    hex_of,
    pay,
)

from cromford.bitcoin.tx import SAT_PER_BTC, Tx
from cromford.regtest.options import Options

FULL = Options(mempool_bytes_max=5_000_000)
SMALL_BLOCKS = Options(block_weight_max=12_000)
DATA_SIZE = 90_000
FILLERS_MAX = 60


@pytest.fixture(params=NODES, ids=lambda kind: kind.__name__)
def full(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    yield from request.param(tmp_path_factory.mktemp("node"), FULL)


@pytest.fixture(params=NODES, ids=lambda kind: kind.__name__)
def small_blocks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    yield from request.param(tmp_path_factory.mktemp("node"), SMALL_BLOCKS)


def filler(world: World, sat_per_vb: int) -> Tx:
    data = b"\x6a\x4e" + DATA_SIZE.to_bytes(4, "little") + bytes(DATA_SIZE)
    coin = world.coin()
    return pay([coin], (0, data), fee_sat=sat_per_vb * pay([coin], (0, data)).vsize)


def minimum_sat_per_kvb(world: World) -> int:
    return int(world.call("getmempoolinfo")["mempoolminfee"] * SAT_PER_BTC)


def fill(world: World, sat_per_vb: int) -> None:
    """Offer large transactions that pay this, until only such as pay more get in."""
    risen = 1_000 * sat_per_vb + 100
    for _ in range(FILLERS_MAX):
        if minimum_sat_per_kvb(world) >= risen:
            assert minimum_sat_per_kvb(world) == risen
            return
        world.error("sendrawtransaction", hex_of(filler(world, sat_per_vb)))
    raise AssertionError(f"a minimum of {minimum_sat_per_kvb(world)}")


def kickoff_at(world: World, sat_per_vb: float) -> Tx:
    coin = funding(world)
    return node_tx(coin, fee_sat=fee_at(sat_per_vb, node_tx(coin, fee_sat=0)))


@pytest.mark.sampled(0)
def test_a_full_mempool_evicts_the_worst_and_asks_for_more_than_it_paid(full: World) -> None:
    assert minimum_sat_per_kvb(full) == 100
    bare, carried = kickoff_at(full, 0.2), kickoff_at(full, 0.2)
    carrier = child([anchor_of(carried), purse(full)], fee_sat=2_000)
    sent(full, bare, carried, carrier)
    fill(full, 3)
    assert str(bare.txid) not in waiting(full)
    assert chunk_of(full, carried) == (2_025, carried.weight + carrier.weight)
    assert refusal(full, bare) == "mempool min fee not met, 25 < 385"
    assert {str(carried.txid), str(carrier.txid)} <= waiting(full)
    assert full.call("estimatesmartfee", 6) == {
        "errors": ["Insufficient data or no feerate found"],
        "blocks": 0,
    }
    low = pay([full.coin()], fee_sat=200)
    assert refusal(full, low) == "mempool min fee not met, 200 < 298"


@pytest.mark.sampled(0)
def test_after_an_eviction_a_parent_comes_back_with_a_child_that_pays_the_minimum(
    full: World,
) -> None:
    kickoff = kickoff_at(full, 2)
    sent(full, kickoff)
    fill(full, 3)
    assert str(kickoff.txid) not in waiting(full)
    coins = [anchor_of(kickoff), purse(full)]
    words = "mempool min fee not met, 248 < 385"
    assert submitted(full, kickoff, child(coins, fee_sat=610)) == Outcome(
        "transaction failed", (words, "mempool min fee not met, 858 < 859")
    )
    # The mempool is as full as it can be, so what pays no more than the rest pays leaves at once.
    paid = child(coins, fee_sat=611)
    outcome = submitted(full, kickoff, paid)
    assert outcome == Outcome("success", ((248, 3_101, (0, 1)), (611, 3_101, (0, 1))))
    dearer = child(coins, fee_sat=627)
    assert submitted(full, dearer).replaced == {str(paid.txid)}
    full.mine()
    assert full.call("gettxout", str(dearer.txid), 0)["confirmations"] == 1


@pytest.mark.sampled(0)
def test_what_pays_the_minimum_and_less_than_all_others_finds_the_mempool_full(
    full: World,
) -> None:
    fill(full, 3)
    cheap = waiting(full)
    for _ in range(FILLERS_MAX):
        if not cheap & waiting(full):
            break
        sent(full, filler(full, 10))
    assert minimum_sat_per_kvb(full) == 3_100
    low = filler(full, 5)
    assert full.error("sendrawtransaction", hex_of(low)) == (-26, "mempool full")
    assert minimum_sat_per_kvb(full) == 5_100
    assert submitted(full, low).message == "transaction failed"


@pytest.mark.sampled(0)
def test_a_minimum_falls_by_half_once_a_block_has_come(full: World) -> None:
    start = int(time.time())
    full.set_time(start)
    fill(full, 9)
    full.set_time(start + 1_000)
    assert minimum_sat_per_kvb(full) == 9_100
    full.mine()
    assert minimum_sat_per_kvb(full) == 9_100
    told = []
    for seconds in (10, 11, 3 * 3_600, 12 * 3_600, 24 * 3_600, 40 * 3_600):
        full.set_time(start + 1_000 + seconds)
        told.append(minimum_sat_per_kvb(full))
    assert told == [9_100, 9_098, 7_652, 4_550, 2_275, 903]


def test_blocks_that_are_full_take_families_by_what_they_pay_together(small_blocks: World) -> None:
    world = small_blocks
    kickoffs = [kickoff_at(world, 1) for _ in range(12)]
    sent(world, *kickoffs)
    rich = [kickoff_at(world, 4 + place) for place in range(6)]
    sent(world, *rich)
    bumps = [
        child([anchor_of(kickoff), purse(world)], fee_sat=1_000 + 500 * place)
        for place, kickoff in enumerate(kickoffs[:8])
    ]
    sent(world, *bumps)
    names = {str(tx.txid): f"k{place}" for place, tx in enumerate(kickoffs)}
    names |= {str(tx.txid): f"b{place}" for place, tx in enumerate(bumps)}
    names |= {str(tx.txid): f"r{place}" for place, tx in enumerate(rich)}
    mined = []
    while waiting(world):
        [block_hash] = world.mine()
        mined.append([names[txid] for txid in world.call("getblock", block_hash)["tx"][1:]])
    assert [" ".join(block) for block in mined] == [
        "k7 b7 k6 b6 k5 b5 r5",
        "k4 b4 k3 b3 r4 k2 b2",
        "r3 r2 k1 b1 r1 k0 b0",
        "r0 k10 k9 k8 k11",
    ]


def test_a_family_too_large_for_what_is_left_lets_smaller_ones_pass(small_blocks: World) -> None:
    world = small_blocks
    coin = funding(world)
    outputs = [(4_000, coin.script)] * 17
    large = spend([coin], *outputs, (FUNDING_SAT - 17 * 4_000 - 4_631, coin.script))
    assert large.vsize == 842
    small = [kickoff_at(world, 3 + place) for place in range(5)]
    sent(world, large, *small)
    names = {str(tx.txid): f"s{place}" for place, tx in enumerate(small)} | {str(large.txid): "L"}
    mined = []
    while waiting(world):
        [block_hash] = world.mine()
        mined.append([names[txid] for txid in world.call("getblock", block_hash)["tx"][1:]])
    assert [" ".join(block) for block in mined] == ["s4 s3 s2 s1 s0", "L"]
