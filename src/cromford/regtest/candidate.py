"""A transaction on its way into the mempool, and what may become of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from cromford.bitcoin.tx import Tx, Txid
from cromford.regtest.chain import ChainCoin
from cromford.regtest.mempool import MempoolEntry
from cromford.regtest.verdict import MempoolRefused, PackageRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A transaction that passed, with the feerate that decided."""

    tx: Tx
    vsize: int
    fee_sat: int
    effective_fee_sat: int
    effective_vsize: int
    effective_includes: tuple[Txid, ...]  # Witness ids of the transactions reckoned together.
    replaced: tuple[Txid, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyThere:
    """A transaction of a package that the mempool holds, perhaps with another witness."""

    entry: MempoolEntry


Result = Accepted | AlreadyThere | MempoolRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageResult:
    """What became of a package: an error for all of it or none, and results by witness id."""

    error: PackageRefused | None
    results: dict[Txid, Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """In which way a transaction is offered."""

    may_replace: bool = True
    may_evict_sibling: bool = True
    feerate_alone: bool = True  # Each transaction must pay for itself.
    is_returning: bool = False  # From a block that left the chain: limits do not apply.
    feerate_max: Fraction | None = None  # Satoshi per virtual byte the caller would pay.


@dataclass(slots=True, kw_only=True)
class Candidate:
    """A transaction on its way in, with what was found out about it."""

    tx: Tx
    coins: list[ChainCoin]
    fee_sat: int
    weight: int
    parents: set[Txid]
    conflicts: set[Txid]
    evicts_sibling: bool = False
    replaced: set[Txid] = field(default_factory=set)

    @property
    def vsize(self) -> int:
        """Virtual bytes as policy counts them."""
        return -(-self.weight // 4)

    @property
    def suffix(self) -> str:
        """What Core adds to a reason when a sibling would be evicted."""
        return " (including sibling eviction)" if self.evicts_sibling else ""


def accepted_of(candidate: Candidate, together: Sequence[Candidate] = ()) -> Accepted:
    """Return the verdict on a candidate that passed, alone or reckoned together with others."""
    reckoned = together or (candidate,)
    return Accepted(
        tx=candidate.tx,
        vsize=candidate.vsize,
        fee_sat=candidate.fee_sat,
        effective_fee_sat=sum(one.fee_sat for one in reckoned),
        effective_vsize=sum(one.vsize for one in reckoned),
        effective_includes=tuple(one.tx.wtxid for one in reckoned),
        replaced=tuple(sorted(candidate.replaced)),
    )


def entry_of(candidate: Candidate, *, now: int, height: int) -> MempoolEntry:
    """Return a candidate as the mempool keeps it."""
    return MempoolEntry(
        tx=candidate.tx,
        fee_sat=candidate.fee_sat,
        weight=candidate.weight,
        vsize=candidate.vsize,
        time=now,
        height=height,
    )
