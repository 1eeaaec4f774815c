from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.tx import Txid
from cromford.regtest.linearize import Weighted, chunks_of, improves

PARENT, RIVAL, OURS = (Txid(bytes([n]) * 32) for n in (1, 2, 3))
INCREMENTAL = 25


def weighted(txid: Txid, one: FeeAndWeight, *parents: Txid) -> Weighted:
    return Weighted(txid=txid, fee_sat=one.fee_sat, weight=one.weight, parents=frozenset(parents))


def is_accepted(parent: FeeAndWeight | None, rival: FeeAndWeight, ours: FeeAndWeight) -> bool:
    """Say what a node would: the relay is paid for, and a miner gains."""
    relay_sat = fee_sat_of(vsize=-(-ours.weight // 4), feerate_sat_per_kw=INCREMENTAL)
    if ours.fee_sat < rival.fee_sat + relay_sat:
        return False
    if parent is None:
        old = {RIVAL: weighted(RIVAL, rival)}
        new = {OURS: weighted(OURS, ours)}
    else:
        old = {PARENT: weighted(PARENT, parent), RIVAL: weighted(RIVAL, rival, PARENT)}
        new = {PARENT: weighted(PARENT, parent), OURS: weighted(OURS, ours, PARENT)}
    return improves(chunks_of(old), chunks_of(new))


fees_and_weights = st.builds(FeeAndWeight, st.integers(0, 100_000), st.integers(4 * 65, 4 * 10_000))


@given(st.none() | fees_and_weights, fees_and_weights, st.integers(4 * 65, 4 * 1_000))
def test_the_fee_is_enough_and_none_below_it_is(
    parent: FeeAndWeight | None, rival: FeeAndWeight, weight: int
) -> None:
    fee_sat = replacement_fee_sat(
        weight, parent=parent, rival=rival, incremental_sat_per_kw=INCREMENTAL
    )
    assert is_accepted(parent, rival, FeeAndWeight(fee_sat, weight))
    assert not is_accepted(parent, rival, FeeAndWeight(fee_sat - 1, weight))


def test_a_small_rival_costs_its_feerate_times_our_size_not_its_fee() -> None:
    """Seen on a Bitcoin Core of 2026: 1,000 sat in 111 vbytes stand against 1,016 in 153."""
    fee_sat = replacement_fee_sat(
        612,
        parent=FeeAndWeight(124, 496),
        rival=FeeAndWeight(1_000, 444),
        incremental_sat_per_kw=INCREMENTAL,
    )
    assert fee_sat == 1_201
