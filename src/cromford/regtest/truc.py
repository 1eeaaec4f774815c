"""Version 3 transactions: topologically restricted until confirmation (BIP 431).

At most one unconfirmed parent, at most one unconfirmed child, small, and only with their own
kind. A second child may take the first one's place by paying more, without spending the same
coin: sibling eviction.
"""

from collections.abc import Sequence
from typing import Final

from cromford.bitcoin.fees import TRUC_CHILD_VSIZE_MAX, TRUC_VSIZE_MAX
from cromford.bitcoin.tx import TRUC_VERSION, Tx, Txid
from cromford.regtest.mempool import Mempool
from cromford.regtest.verdict import MempoolRefused, PackageRefused

REASON: Final = "TRUC-violation"
FAMILY_MAX: Final = 2  # A transaction and one unconfirmed relative.


class SiblingInTheWay(MempoolRefused):
    """The parent has another child, which might be evicted."""

    def __init__(self, details: str, sibling: Txid) -> None:
        super().__init__(REASON, details)
        self.sibling = sibling


def check_single(
    tx: Tx, *, vsize: int, parents: set[Txid], conflicts: set[Txid], mempool: Mempool
) -> None:
    """Check a transaction against the mempool.

    Args:
        tx: The transaction.
        vsize: Its size as policy counts it.
        parents: Those in the mempool it spends from.
        conflicts: Those in the mempool it would replace.
        mempool: The mempool.

    Raises:
        SiblingInTheWay: If only another child of its parent stands in the way.
        MempoolRefused: `TRUC-violation`.
    """
    for parent in sorted(parents):
        _check_kind(tx, _tx(mempool, parent))
    if tx.version != TRUC_VERSION:
        return
    if vsize > TRUC_VSIZE_MAX:
        raise MempoolRefused(
            REASON, f"version=3 tx {_name(tx)} is too big: {vsize} > {TRUC_VSIZE_MAX} virtual bytes"
        )
    if len(mempool.ancestors(parents)) + 1 > FAMILY_MAX:
        raise MempoolRefused(REASON, f"tx {_name(tx)} would have too many ancestors")
    for parent in parents:
        _check_child_size(tx, vsize)
        siblings = mempool.descendants((parent,)) - {parent}
        if not siblings or siblings & conflicts:
            continue
        details = f"tx {_name(_tx(mempool, parent))} would exceed descendant count limit"
        sibling = min(siblings)
        if len(siblings) == 1 and len(mempool.ancestors((sibling,))) == FAMILY_MAX:
            raise SiblingInTheWay(details, sibling)
        raise MempoolRefused(REASON, details)


def check_package(
    tx: Tx, *, vsize: int, parents: set[Txid], package: Sequence[Tx], mempool: Mempool
) -> None:
    """Check a transaction of a package against the package and the mempool.

    Args:
        tx: The transaction.
        vsize: Its size as policy counts it.
        parents: Those in the mempool it spends from.
        package: All transactions of the package, parents first.
        mempool: The mempool.

    Raises:
        PackageRefused: `TRUC-violation`.
    """
    try:
        _check_package(tx, vsize=vsize, parents=parents, package=package, mempool=mempool)
    except MempoolRefused as refused:
        raise PackageRefused(refused.reason, refused.details, is_policy=True) from refused


def _check_package(
    tx: Tx, *, vsize: int, parents: set[Txid], package: Sequence[Tx], mempool: Mempool
) -> None:
    spent = {tx_in.outpoint.txid for tx_in in tx.inputs}
    in_package = [other for other in package if other.txid in spent]
    all_parents = [_tx(mempool, parent) for parent in sorted(parents)] + in_package
    if tx.version != TRUC_VERSION:
        for parent in all_parents:
            _check_kind(tx, parent)
        return
    if len(all_parents) + 1 > FAMILY_MAX or (
        parents and len(mempool.ancestors(parents)) + len(in_package) + 1 > FAMILY_MAX
    ):
        raise MempoolRefused(REASON, f"tx {_name(tx)} would have too many ancestors")
    for parent in all_parents:
        _check_child_size(tx, vsize)
        _check_kind(tx, parent)
        for other in package:
            others_spent = {tx_in.outpoint.txid for tx_in in other.inputs}
            if other.txid != tx.txid and parent.txid in others_spent:
                raise MempoolRefused(
                    REASON, f"tx {_name(parent)} would exceed descendant count limit"
                )
            if tx.txid in others_spent:
                raise MempoolRefused(REASON, f"tx {_name(other)} would have too many ancestors")
        if parent.txid in mempool and mempool.children(parent.txid):
            raise MempoolRefused(REASON, f"tx {_name(parent)} would exceed descendant count limit")


def _check_kind(tx: Tx, parent: Tx) -> None:
    if (tx.version == TRUC_VERSION) == (parent.version == TRUC_VERSION):
        return
    if tx.version == TRUC_VERSION:
        words = "version=3 tx {} cannot spend from non-version=3 tx {}"
    else:
        words = "non-version=3 tx {} cannot spend from version=3 tx {}"
    raise MempoolRefused(REASON, words.format(_name(tx), _name(parent)))


def _check_child_size(tx: Tx, vsize: int) -> None:
    if vsize > TRUC_CHILD_VSIZE_MAX:
        raise MempoolRefused(
            REASON,
            f"version=3 child tx {_name(tx)} is too big: "
            f"{vsize} > {TRUC_CHILD_VSIZE_MAX} virtual bytes",
        )


def _tx(mempool: Mempool, txid: Txid) -> Tx:
    entry = mempool.get(txid)
    if entry is None:
        raise ValueError(f"transaction {txid} is not in the mempool")
    return entry.tx


def _name(tx: Tx) -> str:
    return f"{tx.txid} (wtxid={tx.wtxid})"
