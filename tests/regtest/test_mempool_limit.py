"""A mempool that is full. Where a value was seen on a Bitcoin Core of 2026, it stands here."""

import pytest

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.regtest.mempool import ENTRY_OVERHEAD_BYTES, Mempool, MempoolEntry
from cromford.regtest.mempool_limit import MempoolLimit
from cromford.regtest.options import Options

VSIZE = 100
START = 1_700_000_000


def entry(n: int, fee_sat: int, *parents: Tx, vsize: int = VSIZE) -> MempoolEntry:
    outpoints = [parent.outpoint(0) for parent in parents]
    outpoints = outpoints or [OutPoint(txid=Txid(bytes([n]) * 32), vout=0)]
    tx = Tx(
        version=3,
        inputs=tuple(TxIn(outpoint=outpoint, nsequence=0) for outpoint in outpoints),
        outputs=(TxOut(amount_sat=n, script_pubkey=b""),),
    )
    return MempoolEntry(tx=tx, fee_sat=fee_sat, weight=4 * vsize, vsize=vsize, time=0, height=5)


class Pool:
    """A mempool with room for a number of transactions, and a clock."""

    def __init__(self, n_max: int) -> None:
        self.now = START
        size = len(entry(1, 0).tx.serialize()) + ENTRY_OVERHEAD_BYTES
        self.mempool = Mempool()
        options = Options(mempool_bytes_max=n_max * size)
        self.limit = MempoolLimit(self.mempool, options, lambda: self.now)

    def add(self, *entries: MempoolEntry) -> None:
        for one in entries:
            self.mempool.add(one)
        self.limit.trim()

    def fees(self) -> list[int]:
        return sorted(one.fee_sat for one in self.mempool)


def test_with_room_nothing_leaves_and_the_minimum_is_that_of_relay() -> None:
    pool = Pool(3)
    pool.add(entry(1, 10), entry(2, 20), entry(3, 30))
    assert pool.fees() == [10, 20, 30]
    assert (pool.limit.rolling_sat_per_kvb, pool.limit.minimum_sat_per_kvb) == (0, 100)


def test_the_worst_leaves_and_the_minimum_rises_with_each() -> None:
    pool = Pool(3)
    pool.add(entry(1, 10), entry(2, 20), entry(3, 30))
    pool.add(entry(4, 40))
    assert (pool.fees(), pool.limit.minimum_sat_per_kvb) == ([20, 30, 40], 100 + 100)
    pool.add(entry(5, 50), entry(6, 60))
    assert (pool.fees(), pool.limit.minimum_sat_per_kvb) == ([40, 50, 60], 300 + 100)


def test_a_newcomer_that_pays_least_leaves_at_once() -> None:
    pool = Pool(2)
    pool.add(entry(1, 100), entry(2, 200))
    pool.add(entry(3, 50))
    assert (pool.fees(), pool.limit.minimum_sat_per_kvb) == ([100, 200], 500 + 100)


def test_a_parent_stays_for_its_child_and_both_leave_together() -> None:
    pool = Pool(3)
    parent = entry(1, 0)
    pool.add(parent, entry(2, 100, parent.tx), entry(3, 20))
    pool.add(entry(4, 200))
    assert pool.fees() == [0, 100, 200]
    pool.add(entry(5, 60))
    assert pool.fees() == [60, 200]
    assert pool.limit.minimum_sat_per_kvb == 500 + 100


def test_a_child_that_pays_less_than_its_parent_leaves_alone() -> None:
    pool = Pool(2)
    parent = entry(1, 100)
    pool.add(parent, entry(2, 10, parent.tx))
    pool.add(entry(3, 50))
    assert pool.fees() == [50, 100]


def test_the_minimum_falls_only_after_a_block_and_the_sooner_the_more_room_there_is() -> None:
    pool = Pool(1)
    pool.add(entry(1, 900), entry(2, 1_000))
    assert pool.limit.minimum_sat_per_kvb == 9_100
    pool.now += 1_000
    assert pool.limit.minimum_sat_per_kvb == 9_100
    pool.limit.block_connected()
    told = []
    block_time = pool.now
    for seconds in (10, 11, 3 * 3_600, 12 * 3_600, 24 * 3_600, 40 * 3_600):
        pool.now = block_time + seconds
        told.append(pool.limit.minimum_sat_per_kvb)
    assert told == [9_100, 9_098, 7_652, 4_550, 2_275, 903]

    pool.mempool.remove([one.tx.txid for one in pool.mempool])
    pool.now += 3 * 3_600
    assert pool.limit.minimum_sat_per_kvb == 451  # Half of 902.8.
    pool.now += 10 * 3_600
    assert (pool.limit.rolling_sat_per_kvb, pool.limit.minimum_sat_per_kvb) == (0, 100)


def test_a_new_eviction_stops_the_fall() -> None:
    pool = Pool(1)
    pool.add(entry(1, 900), entry(2, 1_000))
    pool.limit.block_connected()
    pool.now += 12 * 3_600
    assert pool.limit.minimum_sat_per_kvb == 4_550
    pool.add(entry(3, 2_000))
    pool.now += 12 * 3_600
    assert pool.limit.minimum_sat_per_kvb == 10_100


def test_a_minimum_that_is_set_evicts_what_a_full_mempool_would_have() -> None:
    pool = Pool(9)
    parent = entry(1, 0)
    pool.add(parent, entry(2, 800, parent.tx), entry(3, 290), entry(4, 291))
    pool.limit.set_minimum(3_000)
    assert (pool.fees(), pool.limit.minimum_sat_per_kvb) == ([0, 291, 800], 3_000)
    pool.limit.set_minimum(0)
    assert (pool.fees(), pool.limit.minimum_sat_per_kvb) == ([0, 291, 800], 100)


def test_of_equal_feerates_the_lighter_and_then_the_lower_name_is_mined_first() -> None:
    pool = Pool(9)
    entries = [entry(n, 100) for n in range(1, 6)] + [entry(6, 200, vsize=200)]
    pool.add(*entries)
    names = [chunk.txids[0] for chunk in pool.mempool.chunks()]
    assert names == [*sorted(one.tx.txid for one in entries[:5]), entries[5].tx.txid]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"min_relay_sat_per_kvb": -1}, "min_relay_sat_per_kvb: expected 0 or more, received -1"),
        ({"block_weight_max": 4_000_001}, "block_weight_max: expected 8000..4000000"),
        ({"block_weight_max": 7_999}, "block_weight_max: expected 8000..4000000"),
        ({"incremental_relay_sat_per_kvb": 101}, "min_relay_sat_per_kvb: expected at least"),
    ],
)
def test_an_option_that_is_none_is_refused_by_name(wrong: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Options(**wrong)
