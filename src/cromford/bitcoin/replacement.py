"""What it costs to take the place of another transaction that waits.

A version-3 parent has one unconfirmed child (BIP 431). Another child takes its place, over the same
output or over any other, if a miner gains by it: Bitcoin Core compares the two feerate diagrams,
what is collected from every weight of the family, and asks for the relay of the newcomer on top. It
is the same where the parent is in a block; then the rival is a family by itself.
"""

from fractions import Fraction
from math import ceil
from typing import NamedTuple

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import vsize_of


class FeeAndWeight(NamedTuple):
    """What a transaction pays, and its weight as relay policy counts it."""

    fee_sat: int
    weight: int


def replacement_fee_sat(
    weight: int, *, parent: FeeAndWeight | None, rival: FeeAndWeight, incremental_sat_per_kw: int
) -> int:
    """Return the least fee with which a transaction of this weight takes a rival's place.

    The rival's fee and the relay of the newcomer. A newcomer that is heavier pays more: at least
    the feerate that parent and rival have together, or the rival's own where it is the lower one.

    Args:
        weight: Of the newcomer.
        parent: The unconfirmed parent of both; None where what they spend is in a block.
        rival: The transaction that is there, without children of its own.
        incremental_sat_per_kw: What the node asks for the relay of a replacement.
    """
    relay_sat = fee_sat_of(vsize=vsize_of(weight), feerate_sat_per_kw=incremental_sat_per_kw)
    least_sat = rival.fee_sat + relay_sat
    if weight <= rival.weight:
        return least_sat
    rival_rate = Fraction(rival.fee_sat, rival.weight)
    if parent is None or rival_rate <= Fraction(parent.fee_sat, parent.weight):
        return max(least_sat, ceil(rival_rate * weight))
    family_rate = Fraction(parent.fee_sat + rival.fee_sat, parent.weight + rival.weight)
    return max(least_sat, ceil(family_rate * (parent.weight + weight)) - parent.fee_sat)
