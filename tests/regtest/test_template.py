import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.block import BLOCK_WEIGHT_MAX, FullBlock, Header, merkle_root
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.regtest.chain import IndexedBlock
from cromford.regtest.genesis import genesis_block, meets_target, subsidy_sat
from cromford.regtest.mempool import Mempool, MempoolEntry
from cromford.regtest.options import RESERVED_WEIGHT
from cromford.regtest.template import (
    TIME_AHEAD_MAX,
    build_block,
    chosen_entries,
    next_time,
)

CLOCK = 1_700_000_000


def tip(*, time: int, median_time: int, height: int = 5) -> IndexedBlock:
    header = Header(
        version=1,
        previous_hash=Txid(bytes(32)),
        merkle_root=bytes(32),
        time=time,
        bits=0,
        nonce=0,
    )
    block = FullBlock(header=header, txs=genesis_block().txs)
    return IndexedBlock(block=block, height=height, median_time=median_time, arrival=height)


def entry(n: int, fee_sat: int, *parents: Tx, weight: int = 400) -> MempoolEntry:
    outpoints = [parent.outpoint(0) for parent in parents]
    outpoints = outpoints or [OutPoint(txid=Txid(bytes([n]) * 32), vout=0)]
    tx = Tx(
        version=3,
        inputs=tuple(TxIn(outpoint=outpoint, nsequence=0) for outpoint in outpoints),
        outputs=(TxOut(amount_sat=n, script_pubkey=b""),),
    )
    return MempoolEntry(
        tx=tx, fee_sat=fee_sat, weight=weight, vsize=weight // 4, time=CLOCK, height=5
    )


def mempool_of(*entries: MempoolEntry) -> Mempool:
    mempool = Mempool()
    for one in entries:
        mempool.add(one)
    return mempool


def test_a_block_takes_the_clocks_time() -> None:
    assert next_time(tip(time=CLOCK - 50, median_time=CLOCK - 90), CLOCK) == CLOCK


def test_blocks_within_a_second_are_a_second_apart() -> None:
    assert next_time(tip(time=CLOCK, median_time=CLOCK - 5), CLOCK) == CLOCK + 1


@given(start=st.integers(0, 2 * TIME_AHEAD_MAX), n_blocks=st.integers(1, 60))
def test_time_passes_the_median_and_never_runs_far_ahead(start: int, n_blocks: int) -> None:
    times = [CLOCK + start - n for n in range(11, 0, -1)]
    for _ in range(n_blocks):
        median = sorted(times[-11:])[5]
        following = next_time(tip(time=times[-1], median_time=median), CLOCK)
        assert following > median
        assert following <= max(CLOCK + TIME_AHEAD_MAX, median + 1)
        times.append(following)


@pytest.mark.parametrize(
    ("height", "sat"), [(149, 5_000_000_000), (300, 1_250_000_000), (9_900, 0)]
)
def test_the_subsidy_halves_every_150_blocks(height: int, sat: int) -> None:
    assert subsidy_sat(height) == sat


def test_a_built_block_has_its_proof_and_commits_to_its_transactions() -> None:
    inside = [entry(1, 100).tx, entry(2, 100).tx]
    block = build_block(
        tip(time=CLOCK, median_time=CLOCK), txs=inside, fees_sat=200, script_pubkey=b"", time=CLOCK
    )
    assert meets_target(block.header.block_hash)
    assert block.header.merkle_root == merkle_root([tx.txid for tx in block.txs])
    assert block.txs[0].outputs[0].amount_sat == subsidy_sat(6) + 200
    assert FullBlock.parse(block.raw) == block


def test_a_parent_is_mined_before_the_child_that_pays_for_it() -> None:
    parent = entry(1, 0)
    child = entry(2, 5_000, parent.tx)
    rich = entry(3, 9_000)
    chosen = [
        one.tx.txid
        for one in chosen_entries(mempool_of(parent, child, rich), weight_max=BLOCK_WEIGHT_MAX)
    ]
    assert chosen == [rich.tx.txid, parent.tx.txid, child.tx.txid]


def test_a_transaction_that_pays_nothing_waits() -> None:
    assert chosen_entries(mempool_of(entry(1, 0)), weight_max=BLOCK_WEIGHT_MAX) == []


def test_what_does_not_fit_waits_with_its_children_and_others_go_ahead() -> None:
    weight_max = 20_000
    room = weight_max - RESERVED_WEIGHT
    first = entry(1, 10_000_000, weight=room - 1_000)
    large = entry(2, 5_000, weight=2_000)
    hangs_on_large = entry(3, 10, large.tx, weight=400)
    small = entry(4, 400, weight=400)
    chosen = chosen_entries(mempool_of(first, large, hangs_on_large, small), weight_max=weight_max)
    assert chosen == [first, small]
