"""What the driver asks of the world: a few interfaces with contracts.

An adapter implements one of them for real; the simulation implements all of them in memory. The
pure floors never see a port: they return records and effects, and the driver calls these.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from cromford.bitcoin.block import Block, BlockRef, Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid

__all__ = [
    "Block",
    "BlockRef",
    "Chain",
    "ChainUnavailable",
    "Coin",
    "Connection",
    "ConnectionLost",
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


class TxRefused(Exception):
    """The node refused a transaction. `reason` is the node's own word, `txn-mempool-conflict`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node refused the transaction: {reason}")
        self.reason = reason


class Chain(Protocol):
    """A node that validates everything itself. No txindex, no node wallet, pruned is fine."""

    async def tip(self) -> BlockRef:
        """Return the newest block of the active chain.

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
