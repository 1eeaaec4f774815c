"""The form of a package, before any of its transactions is looked at."""

from collections.abc import Sequence
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.regtest.verdict import PackageRefused

PACKAGE_TXS_MAX: Final = 25
PACKAGE_WEIGHT_MAX: Final = 404_000


def check_well_formed(txs: Sequence[Tx]) -> None:
    """Check the form of a package: bounded, sorted, without conflicts inside.

    Raises:
        PackageRefused: With the reason.
    """
    if len(txs) > PACKAGE_TXS_MAX:
        raise PackageRefused("package-too-many-transactions", is_policy=True)
    if len(txs) > 1 and sum(tx.weight for tx in txs) > PACKAGE_WEIGHT_MAX:
        raise PackageRefused("package-too-large", is_policy=True)
    later = {tx.txid for tx in txs}
    if len(later) != len(txs):
        raise PackageRefused("package-contains-duplicates", is_policy=True)
    for tx in txs:
        if any(tx_in.outpoint.txid in later for tx_in in tx.inputs):
            raise PackageRefused("package-not-sorted", is_policy=True)
        later.remove(tx.txid)
    seen: set[OutPoint] = set()
    for tx in txs:
        outpoints = {tx_in.outpoint for tx_in in tx.inputs}
        if outpoints & seen:
            raise PackageRefused("conflict-in-package", is_policy=True)
        seen |= outpoints


def is_child_with_parents(txs: Sequence[Tx]) -> bool:
    """Say whether the last spends from all others, and these do not spend from one another."""
    parents = {tx.txid for tx in txs[:-1]}
    if not parents <= {tx_in.outpoint.txid for tx_in in txs[-1].inputs}:
        return False
    return not any(tx_in.outpoint.txid in parents for tx in txs[:-1] for tx_in in tx.inputs)
