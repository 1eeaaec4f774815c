"""What children cost at a feerate, before anybody leaves: for plans, and to check terms by.

One coin serves a whole way out: its transactions come one after the other, and the change of each
child confirms with its parent. What is published at once, HTLC transactions, needs a coin each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import WITNESS_SCALE, vsize_of
from cromford.watch.bumping import ANCHOR_CHILD_WEIGHT, ONE_COIN_WEIGHT
from cromford.watch.feerates import child_fee_sat


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenCost:
    """What it takes that each of some transactions pays a feerate together with its child.

    Attributes:
        n_children: Of those that pay less by themselves.
        vsize: Of all children, in virtual bytes.
        fee_sat: Of all children.
        coin_sat: What a coin has to hold for all of them, one after the other; 0 for none.
    """

    n_children: int
    vsize: int
    fee_sat: int

    @property
    def coin_sat(self) -> int:
        """What a coin has to hold for all of them, one after the other; 0 if there is none."""
        return self.fee_sat + P2TR_DUST_SAT if self.n_children else 0


def children_cost(
    parents: Sequence[FeeAndWeight], *, feerate_sat_per_kw: int, mempool_min_sat_per_kw: int
) -> ChildrenCost:
    """Return what children of one coin cost at a feerate.

    Args:
        parents: What is published, one after the other.
        feerate_sat_per_kw: What each should pay together with its child.
        mempool_min_sat_per_kw: What a mempool asks for: no child pays less.
    """
    fees = [
        child_fee_sat(
            ONE_COIN_WEIGHT,
            parent=parent,
            feerate_sat_per_kw=feerate_sat_per_kw,
            mempool_min_sat_per_kw=mempool_min_sat_per_kw,
        )
        for parent in parents
        if parent.fee_sat
        < fee_sat_of(vsize=vsize_of(parent.weight), feerate_sat_per_kw=feerate_sat_per_kw)
    ]
    return ChildrenCost(
        n_children=len(fees), vsize=len(fees) * vsize_of(ONE_COIN_WEIGHT), fee_sat=sum(fees)
    )


def without_coins_sat_per_kw(parents: Sequence[FeeAndWeight], *, anchor_sat: int) -> int:
    """Return the feerate up to which each of some transactions gets in by its own anchor alone.

    Args:
        parents: What is published, one after the other.
        anchor_sat: What an anchor holds; an empty one lifts nothing.
    """
    weight = WITNESS_SCALE * vsize_of(ANCHOR_CHILD_WEIGHT) if anchor_sat else 0
    return min(
        1000 * (parent.fee_sat + anchor_sat) // (parent.weight + weight) for parent in parents
    )
