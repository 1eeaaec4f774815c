"""Would our own node relay what follows from a factory's terms? Fees are agreed for months.

What is signed together pays by the terms, so the terms are judged by these transactions, one by
one: a fee that is rounded down may be a satoshi short of what a node takes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from cromford.bitcoin.fees import fee_sat_of, keypath_tx_vsize
from cromford.bitcoin.tx import vsize_of
from cromford.channel.terms import (
    COMMITMENT_WEIGHT,
    HTLC_OUTPUT_WEIGHT,
    HTLC_SUCCESS_WEIGHT,
    HTLC_TIMEOUT_WEIGHT,
    ChannelTerms,
)
from cromford.factory.kinds import VertexKind
from cromford.factory.shape import PlannedVertex

MARGIN: Final = Fraction(5, 4)  # Above what the node relays today: the terms stay as they are.


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedFee:
    """A transaction whose fee follows from the terms: its name, its virtual bytes, its fee."""

    name: str
    vsize: int
    fee_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TooCheap:
    """One that our node would not relay, and the least that it had to pay, margin included."""

    tx: FixedFee
    least_sat: int


def too_cheap(
    plan: PlannedVertex, channel: ChannelTerms, *, min_relay_sat_per_kw: int
) -> TooCheap | None:
    """Return the first transaction that our node would not relay, or None.

    Where transactions pay nothing themselves, their children pay: nothing is too cheap.

    Args:
        plan: The tree, or the part of it that matters.
        channel: What all its channels have in common.
        min_relay_sat_per_kw: The least that our node relays.
    """
    if channel.is_zero_fee:
        return None
    asked = -(-min_relay_sat_per_kw * MARGIN.numerator // MARGIN.denominator)
    for tx in _fees_of(_one_of_each(plan), channel):
        least_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=asked)
        if tx.fee_sat < least_sat:
            return TooCheap(tx=tx, least_sat=least_sat)
    return None


def fixed_fees(plan: PlannedVertex, channel: ChannelTerms) -> Iterator[FixedFee]:
    """Yield what the terms price: the tree, the emptiest and fullest commitment, HTLCs."""
    return _fees_of(plan.vertices(), channel)


def _one_of_each(plan: PlannedVertex) -> Iterator[PlannedVertex]:
    """Yield the first vertex of each kind, width and fee: all like it pay for as many bytes."""
    seen: set[tuple[object, ...]] = set()
    for vertex in plan.vertices():
        alike = (vertex.shape.kind, _n_paid(vertex), *(tx.fee_sat for tx in vertex.txs))
        if alike not in seen:
            seen.add(alike)
            yield vertex


def _fees_of(vertices: Iterable[PlannedVertex], channel: ChannelTerms) -> Iterator[FixedFee]:
    for vertex in vertices:
        yield from vertex_fees(vertex)
    for n_htlcs in (0, 2 * channel.max_accepted_htlcs):
        yield commitment_fee(channel, n_htlcs=n_htlcs)
    for name, weight in (("timeout", HTLC_TIMEOUT_WEIGHT), ("success", HTLC_SUCCESS_WEIGHT)):
        cost_sat = channel.htlc_tx_cost_sat(is_offered=name == "timeout")
        yield FixedFee(
            name=f"htlc_{name}",
            vsize=vsize_of(weight),
            fee_sat=cost_sat - channel.paid_anchor_sat,
        )


def vertex_fees(vertex: PlannedVertex) -> Iterator[FixedFee]:
    """Yield the transactions of one vertex, in the order in which they are published."""
    n_paid = _n_paid(vertex)
    made = [("kickoff", 1), ("state", n_paid)]
    if vertex.shape.kind is VertexKind.STATIC:
        made = [("static", n_paid)]
    for (label, n_outputs), tx in zip(made, vertex.txs, strict=True):
        yield FixedFee(
            name=f"{label}_{vertex.shape.name}",
            vsize=keypath_tx_vsize(n_p2tr_outputs=n_outputs, n_anchors=1),
            fee_sat=tx.fee_sat,
        )


def _n_paid(vertex: PlannedVertex) -> int:
    return len(vertex.children) or len(vertex.capacities_sat) + bool(vertex.lstock_sat)


def commitment_fee(channel: ChannelTerms, *, n_htlcs: int) -> FixedFee:
    """Return the commitment with two balances and some HTLCs, all with an output."""
    return FixedFee(
        name=f"commitment with {n_htlcs} HTLCs",
        vsize=vsize_of(COMMITMENT_WEIGHT + HTLC_OUTPUT_WEIGHT * n_htlcs),
        fee_sat=channel.commitment_fee_sat(n_htlc_outputs=n_htlcs),
    )
