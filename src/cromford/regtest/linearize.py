"""In which order a miner takes the transactions of a cluster, and in which pieces.

A cluster is a set of unconfirmed transactions connected by spending. It is ordered by taking,
again and again, the transaction whose unconfirmed ancestors with itself pay the best feerate.
That is exact for the one-parent-one-child clusters of version 3 (BIP 431) and close for others;
Core searches longer for the best order of large clusters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from cromford.bitcoin.tx import Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """A transaction as the order sees it."""

    txid: Txid
    fee_sat: int
    weight: int
    parents: frozenset[Txid]  # Only those in the same cluster.


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Transactions that a miner takes together or not at all."""

    txids: tuple[Txid, ...]
    fee_sat: int
    weight: int

    @property
    def feerate(self) -> Fraction:
        """Satoshi per weight unit."""
        return Fraction(self.fee_sat, self.weight)


def chunks_of(cluster: Mapping[Txid, Weighted]) -> list[Chunk]:
    """Return the chunks of a cluster, parents before children, best feerate first."""
    chunks: list[Chunk] = []
    for group in _ancestor_groups(cluster):
        chunk = Chunk(
            txids=tuple(item.txid for item in group),
            fee_sat=sum(item.fee_sat for item in group),
            weight=sum(item.weight for item in group),
        )
        # A chunk that pays better than the one before it pulls it along.
        while chunks and chunk.feerate > chunks[-1].feerate:
            before = chunks.pop()
            chunk = Chunk(
                txids=before.txids + chunk.txids,
                fee_sat=before.fee_sat + chunk.fee_sat,
                weight=before.weight + chunk.weight,
            )
        chunks.append(chunk)
    return chunks


def mining_order(clusters: Iterable[Mapping[Txid, Weighted]]) -> list[Chunk]:
    """Return the chunks of all clusters as a miner takes them; the last one is evicted first.

    Core's order for equal feerates: the lighter first, counted with those of the same cluster
    before it, then the one whose highest txid is lower.
    """
    keyed: list[tuple[tuple[Fraction, int, Txid], Chunk]] = []
    for cluster in clusters:
        feerate, weight = Fraction(-1), 0
        for chunk in chunks_of(cluster):
            weight = chunk.weight + (weight if chunk.feerate == feerate else 0)
            feerate = chunk.feerate
            keyed.append(((-feerate, weight, max(chunk.txids)), chunk))
    return [chunk for _, chunk in sorted(keyed, key=lambda item: item[0])]


def _ancestor_groups(cluster: Mapping[Txid, Weighted]) -> list[list[Weighted]]:
    groups: list[list[Weighted]] = []
    left = dict(cluster)
    while left:
        best: list[Weighted] = []
        best_feerate = Fraction(-1)
        for item in left.values():
            ancestors = _with_ancestors(item, left)
            feerate = Fraction(
                sum(ancestor.fee_sat for ancestor in ancestors),
                sum(ancestor.weight for ancestor in ancestors),
            )
            if feerate > best_feerate:
                best, best_feerate = ancestors, feerate
        groups.append(best)
        for item in best:
            del left[item.txid]
    return groups


def _with_ancestors(item: Weighted, left: Mapping[Txid, Weighted]) -> list[Weighted]:
    """Return an item after its ancestors that are left, in a valid order."""
    order: dict[Txid, Weighted] = {}
    pending = [item]
    while pending:
        current = pending[-1]
        missing = [left[txid] for txid in sorted(current.parents) if txid in left]
        missing = [parent for parent in missing if parent.txid not in order]
        if missing:
            pending.extend(missing)
            continue
        order.setdefault(current.txid, current)
        pending.pop()
    return list(order.values())


def improves(before: Iterable[Chunk], after: Iterable[Chunk]) -> bool:
    """Say whether `after` pays a miner more somewhere and nowhere less.

    Compares the two feerate diagrams: the fees collected as a function of the weight taken,
    the best chunks first.
    """
    old, new = _diagram(before), _diagram(after)
    weights = {weight for weight, _ in (*old, *new)}
    differences = [_fee_at(new, weight) - _fee_at(old, weight) for weight in weights]
    return min(differences, default=Fraction()) >= 0 and max(differences, default=Fraction()) > 0


def _diagram(chunks: Iterable[Chunk]) -> list[tuple[int, int]]:
    points = [(0, 0)]
    for chunk in sorted(chunks, key=lambda chunk: chunk.feerate, reverse=True):
        weight, fee_sat = points[-1]
        points.append((weight + chunk.weight, fee_sat + chunk.fee_sat))
    return points


def _fee_at(points: Sequence[tuple[int, int]], weight: int) -> Fraction:
    for (weight_1, fee_1), (weight_2, fee_2) in pairwise(points):
        if weight_1 <= weight <= weight_2:
            share = Fraction(weight - weight_1, weight_2 - weight_1)
            return fee_1 + share * (fee_2 - fee_1)
    return Fraction(points[-1][1])
