"""What the node does not take: the last refusal of each transaction that is still to be published.

Not journalled: whatever is owed is broadcast again at every start and every block, and so refused
again. An entry ends when the node takes the transaction, when something that spends its coins
confirms, or when nobody tries any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cromford.answers.chain import RefusedTransaction
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.journal.known_chain import refusal_kind

# Everything that is owed is tried at each block: what was not for an hour was given up.
UNTRIED_BLOCKS_MAX: Final = 6
REFUSALS_MAX: Final = 1_000
# From a commitment down to the sweep of an HTLC's second stage.
_LEVELS_BELOW_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedTx:
    """A transaction that the node refused, `count` times since `first_height`, last at `height`."""

    name: str
    tx: Tx
    reason: str
    first_height: int
    height: int
    count: int = 1

    def shown(self) -> RefusedTransaction:
        """Return it as plain data."""
        return {
            "name": self.name,
            "txid": str(self.tx.txid),
            "reason": self.reason,
            "first_height": self.first_height,
            "height": self.height,
            "count": self.count,
        }


class Refusals:
    """The refusals that still stand. Never changed in place: metrics are read by another thread."""

    def __init__(self) -> None:
        # By name and coins: what is signed anew for each block is one transaction to its owner.
        self._standing: dict[tuple[str, tuple[OutPoint, ...]], RefusedTx] = {}

    def __len__(self) -> int:
        return len(self._standing)

    def refused(self, name: str, tx: Tx, reason: str, *, height: int) -> bool:
        """Remember a refusal, and say whether it is news: of other coins, or for another reason."""
        standing = dict(self._standing)
        key = (name, tuple(tx_in.outpoint for tx_in in tx.inputs))
        known = standing.pop(key, None)
        refusal = RefusedTx(name=name, tx=tx, reason=reason, first_height=height, height=height)
        if known is not None:
            refusal = replace(refusal, first_height=known.first_height, count=known.count + 1)
        standing[key] = refusal
        if len(standing) > REFUSALS_MAX:
            del standing[next(iter(standing))]
        self._standing = standing
        return known is None or refusal_kind(known.reason) != refusal_kind(reason)

    def ended(self, txids: Iterable[Txid]) -> None:
        """Forget transactions that were given up."""
        over = set(txids)
        self._standing = {k: r for k, r in self._standing.items() if r.tx.txid not in over}

    def decided(self, txs: Iterable[Tx]) -> None:
        """Forget what spends a coin of transactions that the node took, or that are in a block."""
        spent = {tx_in.outpoint for tx in txs for tx_in in tx.inputs}
        self._standing = {k: r for k, r in self._standing.items() if spent.isdisjoint(k[1])}

    def forget_untried(self, *, height: int) -> None:
        """Forget what nobody publishes any more."""
        self._standing = {
            key: refusal
            for key, refusal in self._standing.items()
            if height - refusal.height <= UNTRIED_BLOCKS_MAX
        }

    def shown(self) -> list[RefusedTransaction]:
        """Return all of them as plain data, the longest untried first."""
        return [refusal.shown() for refusal in self._standing.values()]

    def shown_of(
        self, txids: Iterable[Txid], spends: Mapping[OutPoint, Tx]
    ) -> list[RefusedTransaction]:
        """Return those among some transactions and what is spent below them.

        Args:
            txids: The transactions of a factory.
            spends: The confirmed transactions that matter, by what they spend.
        """
        if not self._standing:
            return []
        family = set(txids)
        for _ in range(_LEVELS_BELOW_MAX):
            family.update(tx.txid for outpoint, tx in spends.items() if outpoint.txid in family)
        return [
            refusal.shown()
            for refusal in self._standing.values()
            if refusal.tx.txid in family
            or any(tx_in.outpoint.txid in family for tx_in in refusal.tx.inputs)
        ]
