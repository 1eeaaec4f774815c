"""What a role knows of the chain: the tip, and where its own transactions confirmed.

Height is the only clock of the protocol. Being confirmed, losing or dead are views of the chain,
recomputed after every reorg; nothing is ever deleted because of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.factory.vertices import TreeNode
from cromford.shelf import Shelf
from cromford.wallet.coins import Wallet

KIND_SIZE_MAX: Final = 80
RECENT_BLOCKS: Final = 288  # How many block hashes are kept to find where a reorg forked.


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChain:
    """The active chain as far as a role cares, and what our node says of what we publish."""

    recent: tuple[BlockRef, ...] = ()  # oldest first
    confirmed: Shelf[Txid, int] = field(default_factory=Shelf)
    spends: Mapping[OutPoint, Tx] = field(default_factory=dict)  # by our confirmed transactions
    # The kinds of reasons for which transactions of ours were refused that are in no block. Also of
    # those whose coin something else spent: after a reorganisation the same is no news.
    refused: Mapping[Txid, tuple[str, ...]] = field(default_factory=dict)
    recorded_height: int = -1  # of the tip, also where more blocks left than are remembered

    @property
    def height(self) -> int:
        """The height of the tip; -1 before the first block was seen."""
        return self.recent[-1].height if self.recent else -1

    def depth(self, txid: Txid) -> int:
        """Return the confirmations of a transaction; 0 if it has none."""
        height = self.confirmed.get(txid)
        return 0 if height is None else self.height - height + 1

    def rival_depth(self, tx: Tx, *, but: AbstractSet[Txid] = frozenset()) -> int:
        """Return the confirmations of what else spends a coin of a transaction; 0 if nothing.

        Those in `but` are none of its rivals.
        """
        spenders = (self.spends.get(tx_in.outpoint) for tx_in in tx.inputs)
        rivals = (
            other
            for other in spenders
            if other is not None and other.txid != tx.txid and other.txid not in but
        )
        return max((self.depth(rival.txid) for rival in rivals), default=0)

    def names_at(self, nodes: Iterable[TreeNode], height: int) -> tuple[str, ...]:
        """Return the names of the tree transactions that confirmed at a height, in order."""
        return tuple(node.name for node in nodes if self.confirmed.get(node.tx.txid) == height)

    def with_block(self, block: BlockRef, txs: Sequence[Tx]) -> "KnownChain":
        """Return the view after a block was connected in which `txs` confirmed."""
        recent = (*self.recent[-RECENT_BLOCKS + 1 :], block)
        if not txs:
            return changed(self, recent=recent, recorded_height=block.height)
        return KnownChain(
            recent=recent,
            confirmed=self.confirmed.update(dict.fromkeys((tx.txid for tx in txs), block.height)),
            spends={**self.spends, **{tx_in.outpoint: tx for tx in txs for tx_in in tx.inputs}},
            refused={t: k for t, k in self.refused.items() if t not in {tx.txid for tx in txs}},
            recorded_height=block.height,
        )

    def with_refusal(self, txid: Txid, reason: str) -> "KnownChain":
        """Return the view after our node refused a transaction of ours."""
        kinds = (*self.refused.get(txid, ()), refusal_kind(reason))
        return replace(self, refused={**self.refused, txid: kinds})

    def without_block(self, height: int) -> "KnownChain":
        """Return the view after the block at `height` and all above it left the chain."""
        return self.without(height, [t for t, h in self.confirmed.walk() if h >= height])

    def without(self, height: int, txids: Iterable[Txid]) -> "KnownChain":
        """Return the same, where it is known which transactions of ours those blocks had."""
        confirmed = self.confirmed
        for txid in txids:
            confirmed = confirmed.delete(txid)
        return replace(
            self,
            recent=tuple(block for block in self.recent if block.height < height),
            confirmed=confirmed,
            spends={o: tx for o, tx in self.spends.items() if tx.txid in confirmed},
            recorded_height=height - 1,
        )


def refusal_kind(reason: str) -> str:
    """Return a node's reason without the numbers and names that follow it.

    `min relay fee not met, 2 < 154` and the same with other numbers are one kind.
    """
    return reason.partition(",")[0][:KIND_SIZE_MAX]


def relevant_txs(
    txs: Sequence[Tx],
    *,
    wallet: Wallet,
    watched: AbstractSet[Txid],
    watched_outpoints: AbstractSet[OutPoint],
) -> tuple[Tx, ...]:
    """Return the transactions of one block that a role remembers, in their order.

    Those it watches, those that pay to its wallet, and those that spend from it or from a watched
    outpoint. What a watched one or its spender creates is watched in the same block too.
    """
    relevant: list[Tx] = []
    created: set[OutPoint] = set()
    for tx in txs:
        pays = wallet.paid_by(tx)
        is_ours = tx.txid in watched or any(
            tx_in.outpoint in watched_outpoints or tx_in.outpoint in created for tx_in in tx.inputs
        )
        spends = any(tx_in.outpoint in wallet.unspent for tx_in in tx.inputs)
        if pays or spends or is_ours:
            relevant.append(tx)
            created.update(pays)
        if is_ours:
            created.update(tx.outpoints)
    return tuple(relevant)
