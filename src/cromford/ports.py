"""What the driver asks of the world: a few interfaces with contracts.

An adapter implements one of them for real; the simulation implements all of them in memory. The
pure floors never see a port: they return records and effects, and the driver calls these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cromford.bitcoin.block import Block, BlockRef, Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid

__all__ = [
    "Block",
    "BlockRef",
    "BlocksPruned",
    "Chain",
    "ChainStatus",
    "ChainUnavailable",
    "Coin",
    "Connection",
    "ConnectionLost",
    "CredentialsRefused",
    "Store",
    "StoreFailed",
    "StoreInUse",
    "TxRefused",
]


class Store(Protocol):
    """An append-only journal with one writer. State is the fold of what it replays."""

    def append(self, records: Sequence[bytes]) -> None:
        """Append all of `records` or none, durable when this returns.

        Durable means: survives the loss of power the moment after. There is no other write.

        Raises:
            StoreFailed: If it could not; the caller must stop, and never go on as if it had.
        """

    def replay(self) -> Iterator[bytes]:
        """Yield every record ever appended, in order."""

    def close(self) -> None:
        """Release the file and its lock."""


class StoreFailed(Exception):
    """The journal could not be opened, read or written."""


class StoreInUse(StoreFailed):
    """Another process holds the journal, and so everything beside it."""


class ChainUnavailable(Exception):
    """The node did not answer, or answered something unreadable. Retry later, bounded."""


class CredentialsRefused(ChainUnavailable):
    """The node is there and does not let us in. A node that restarts has another cookie."""


class BlocksPruned(ChainUnavailable):
    """The node has deleted blocks that are still to be read. None of them is skipped.

    Attributes:
        needed_height: The first block that is still to be read.
        kept_height: The first block that the node still has.
        header_height: Its best header.
    """

    def __init__(self, *, needed_height: int, kept_height: int, header_height: int) -> None:
        super().__init__(
            f"the node has pruned the blocks from height {needed_height} to {kept_height - 1}, "
            "which are still to be read: use a node that has them (--chain-url), or let this one "
            "load them again (bitcoind -reindex, with -prune=0 or a larger -prune)"
        )
        self.needed_height = needed_height
        self.kept_height = kept_height
        self.header_height = header_height


class TxRefused(Exception):
    """The node refused a transaction. `reason` is the node's own word, `txn-mempool-conflict`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node refused the transaction: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStatus:
    """Where a node is on its way to the newest block.

    Attributes:
        tip: The newest block of the active chain.
        tip_time: The tip's own stamp, in seconds since 1970, UTC.
        header_height: The height of the best header, known before its block is.
        is_initial_download: Whether the node says itself that it is far behind.
        kept_height: The first block that was not pruned; 0 where nothing was.
    """

    tip: BlockRef
    tip_time: int
    header_height: int
    is_initial_download: bool = False
    kept_height: int = 0


class Chain(Protocol):
    """A node that validates everything itself. No txindex, no node wallet, pruned is fine."""

    async def status(self) -> ChainStatus:
        """Return where the node is: its tip, its headers, the blocks it keeps.

        Raises:
            ChainUnavailable: If the node does not answer.
        """

    async def block_hash(self, height: int) -> Txid | None:
        """Return the hash of the active chain's block at `height`; None above the tip."""

    async def block(self, block_hash: Txid) -> Block:
        """Return a block by its hash, also one that has left the active chain."""

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed output nobody has spent in a block, or None."""

    async def broadcast(self, tx: Tx) -> None:
        """Hand a transaction to the mempool. One that is there, or confirmed, is accepted again.

        Raises:
            TxRefused: With the node's reason.
            ChainUnavailable: If the node does not answer.
        """

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        """Hand a parent and its child to the mempool together (`submitpackage`).

        Raises:
            TxRefused: With the node's reason for the first one refused.
            ChainUnavailable: If the node does not answer.
        """


class Connection(Protocol):
    """An encrypted, authenticated stream of messages with one peer (BOLT 8)."""

    @property
    def node_id(self) -> bytes:
        """The peer's 33-byte node key, proven by the handshake."""

    async def send(self, message: bytes) -> None:
        """Send one message of at most 65,535 bytes.

        Raises:
            ConnectionLost: If the peer is gone.
        """

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ConnectionLost: If the peer closed, vanished, or broke the encryption.
        """

    async def close(self) -> None:
        """Close the stream. Safe to call twice."""


class ConnectionLost(Exception):
    """The stream ended; the message says how."""
