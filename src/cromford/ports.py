"""What the driver asks of the world: a few interfaces with contracts.

An adapter implements one of them for real; the simulation implements all of them in memory. The
pure floors never see a port: they return records and effects, and the driver calls these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cromford.bitcoin.block import Block, BlockRef, Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.signing.handed_over import SealedKeys

__all__ = [
    "EVENTS_KEPT",
    "NOBODY",
    "Archived",
    "Block",
    "BlockRef",
    "BlocksPruned",
    "Chain",
    "ChainStatus",
    "ChainUnavailable",
    "Checkpoint",
    "Coin",
    "Connection",
    "ConnectionLost",
    "CredentialsRefused",
    "Entry",
    "Kept",
    "KeyStore",
    "Known",
    "MempoolTx",
    "NotTaken",
    "Observer",
    "PackageAnswer",
    "PackageNotTaken",
    "RelayFeerates",
    "Row",
    "Store",
    "StoreDamaged",
    "StoreFailed",
    "StoreFull",
    "StoreInUse",
    "StoreReadOnly",
    "StoreTooNew",
    "Taken",
    "TxRefused",
    "Verdict",
    "check_order",
    "oldest_of",
]

# What a wallet was paid and paid is in its snapshot: a million payments take less than this.
SNAPSHOT_SIZE_MAX: Final = 512 * 1024 * 1024
EVENTS_KEPT: Final = 10_000  # Records that stay, for whoever reads what happened.


class Entry(NamedTuple):
    """A record, and the stream of the journal that it belongs to."""

    stream: str
    record: bytes


class Kept(NamedTuple):
    """A record as the journal keeps it: its number in the whole journal, its stream, its bytes."""

    number: int
    stream: str
    record: bytes


class Row(NamedTuple):
    """What lies beside a checkpoint under a key of a shelf; without a value, it is taken away."""

    shelf: str
    key: bytes
    value: bytes | None


class Checkpoint(NamedTuple):
    """What the first `n` records of a stream amount to, in bytes that only their writer reads.

    Attributes:
        stream: The stream's name.
        n: Of how many records.
        snapshot: What is read to go on from it.
        label: Can be read without the rest: what is to be known of a stream that is not loaded.
        wake_height: From which height a stream with a label is to be loaded; None for never.
        rows: What changes of the rows beside it, each of which is read alone.
    """

    stream: str
    n: int
    snapshot: bytes
    label: bytes = b""
    wake_height: int | None = None
    rows: Sequence[Row] = ()


class Archived(NamedTuple):
    """A value that outlives the records it came from, found again by its stream and key."""

    stream: str
    key: bytes
    value: bytes


class Store(Protocol):
    """A journal of several streams with one writer. State is the fold of what a stream replays.

    The records of each stream are counted from 1, and those of the whole journal too. A record is
    never changed. Those that a checkpoint stands for are deleted, but for the newest
    `EVENTS_KEPT` records of the whole journal.
    """

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        """Append all of `entries` and keep all of `archived`, or nothing; durable on return.

        Durable means: survives the loss of power the moment after. The entries may be of several
        streams. What is archived under a key that is there takes its place.

        Raises:
            StoreFailed: If it could not; the caller must stop, and never go on as if it had.
        """

    def replay(self, stream: str, *, after: int = 0) -> Iterator[bytes]:
        """Yield the records of a stream that follow its first `after` ones, in order.

        Raises:
            StoreFailed: If one is missing, or a checkpoint has taken its place.
        """

    def head(self, stream: str) -> int:
        """Return how many records a stream ever had."""

    def unlabelled(self) -> Iterator[str]:
        """Yield the streams that have records, and no label."""

    def checkpoint(self, stream: str) -> Checkpoint | None:
        """Return a stream's checkpoint, or None; the rows beside it are read one by one."""

    def label(self, stream: str) -> bytes:
        """Return the label of a stream's checkpoint; empty if it has none, or records follow it."""

    def labels(self) -> Iterator[tuple[str, bytes]]:
        """Yield, by stream, every label that is not empty."""

    def due(self, height: int) -> Iterator[str]:
        """Yield the streams with a label that are to be loaded at a height, or should have been."""

    def row(self, stream: str, shelf: str, key: bytes) -> bytes | None:
        """Return what lies under a key beside a stream's checkpoint, or None."""

    def rows_of(
        self, stream: str, shelf: str, keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield those of many keys under which something lies, with it, in no order."""

    def rows(self, stream: str, shelf: str, *, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of a shelf from `start` on, with what lies there, in their order."""

    def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in the place of the stream's one before, durable on return.

        After a crash either the old one is there, with its rows and the records that follow it, or
        the new one with its own.

        Raises:
            StoreFailed: As `append`.
        """

    def archived(self, stream: str, key: bytes) -> bytes | None:
        """Return what was archived for a stream under a key, or None."""

    def history(self, *, after: int, limit: int) -> Sequence[Kept]:
        """Return records of all streams with a number above `after`, the oldest first.

        None is left out from `oldest` on; older ones may be gone, and are not returned.
        """

    @property
    def newest(self) -> int:
        """The number of the newest record in the whole journal; 0 before the first."""

    @property
    def oldest(self) -> int:
        """The number of the oldest record from which on the history is whole."""

    def close(self) -> None:
        """Release the file and its lock."""


class Observer(Protocol):
    """Told of each change of a journal once it is durable, in order, by the thread that wrote it.

    It must neither wait nor fail: the journal is held meanwhile.
    """

    def appended(self, number: int, entries: Sequence[Entry], archived: Sequence[Archived]) -> None:
        """Take note of records; the first has this number in the whole journal."""

    def replaced(self, checkpoint: Checkpoint) -> None:
        """Take note of a checkpoint that took the place of the one before."""


class _Nobody:
    """An observer of a journal that nobody observes."""

    def appended(self, *_what: object) -> None:
        pass

    def replaced(self, checkpoint: Checkpoint) -> None:
        pass


NOBODY: Final[Observer] = _Nobody()


def check_order(checkpoint: Checkpoint, *, kept_n: int, head: int) -> None:
    """Check that a checkpoint may take the place of one of `kept_n` records of `head`.

    Raises:
        ValueError: If not: records that it needs are gone, or were never there.
    """
    if not kept_n <= checkpoint.n <= head:
        raise ValueError(
            f"a checkpoint of {checkpoint.stream}: expected {kept_n}..{head} records, "
            f"received {checkpoint.n}"
        )


def oldest_of(newest: int) -> int:
    """Return the number of the oldest of the newest `EVENTS_KEPT` records."""
    return max(1, newest - EVENTS_KEPT + 1)


class StoreFailed(Exception):
    """The journal could not be opened, read or written."""


class StoreInUse(StoreFailed):
    """Another process holds the journal, and so everything beside it."""


class StoreFull(StoreFailed):
    """The disk has no room. What was not written was neither done nor told."""


class StoreReadOnly(StoreFailed):
    """The journal, or its directory, may be read and not be written."""


class DiskFailed(StoreFailed):
    """The disk, or what leads to it, failed as the journal was read or written."""


class StoreDamaged(StoreFailed):
    """What the journal holds is not what was written to it."""


class StoreTooNew(StoreFailed):
    """A newer version wrote it, and this one cannot read it. Nothing was changed."""


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
class Taken:
    """A transaction of a package that the mempool took now, with its own fee and size."""

    txid: Txid
    fee_sat: int
    vsize: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One that was there before: in the mempool, perhaps with another witness, or in a block."""

    txid: Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTaken:
    """One that was not taken, with the node's own word."""

    txid: Txid
    reason: str


Verdict = Taken | Known | NotTaken


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageAnswer:
    """What a node did with a package.

    Attributes:
        verdicts: One for each transaction, in the order of the package.
        replaced: What left the mempool for it.
    """

    verdicts: tuple[Verdict, ...]
    replaced: tuple[Txid, ...] = ()


class PackageNotTaken(TxRefused):
    """The node refused a package, or its child. A parent that pays for itself may be in.

    Attributes:
        reason: Why the package was refused, or else the child, or else what the child waits for.
        answer: What became of each transaction.
    """

    def __init__(self, reason: str, answer: PackageAnswer) -> None:
        super().__init__(reason)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayFeerates:
    """What a node asks for today, in satoshi per 1000 weight units, rounded up.

    Attributes:
        mempool_min_sat_per_kw: What gets in. It rises where a mempool is full, and falls again.
        min_relay_sat_per_kw: What gets into an empty mempool.
        incremental_sat_per_kw: What a replacement pays for its own weight, on top of the fees of
            all it replaces.
    """

    mempool_min_sat_per_kw: int
    min_relay_sat_per_kw: int
    incremental_sat_per_kw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolTx:
    """A transaction that waits for a block, and those it waits with.

    Attributes:
        txid: Its name.
        wtxid: Which of its possible witnesses it came with.
        fee_sat: What it pays itself.
        vsize: Its own size.
        weight: The same in weight units, raised where its signature checks cost more.
        replaced_fee_sat: What it and all that hangs on it pay: what a replacement has to exceed.
        package_fee_sat: What a miner gets for it, together with those it is mined with.
        package_weight: The weight of these; from a node that tells only sizes, four units for each
            virtual byte.
        parents: Unconfirmed transactions that it spends from.
        children: Unconfirmed transactions that spend from it.
    """

    txid: Txid
    wtxid: Txid
    fee_sat: int
    vsize: int
    weight: int
    replaced_fee_sat: int
    package_fee_sat: int
    package_weight: int
    parents: frozenset[Txid] = frozenset()
    children: frozenset[Txid] = frozenset()

    @property
    def package_sat_per_kw(self) -> int:
        """What a miner gets for each 1000 weight units, whoever pays it; rounded down."""
        return 1000 * self.package_fee_sat // self.package_weight


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


class KeyStore(Protocol):
    """Keys that clients handed over, sealed: losing some of them costs no money."""

    def get(self, *, attempt: int, client: int) -> SealedKeys | None:
        """Return what is held of one client's keys, if anything is."""

    def put(self, keys: SealedKeys) -> None:
        """Hold one client's keys; durable on return.

        Raises:
            OSError: If it cannot be written; what was held before is held still.
        """


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

    async def previous_hash(self, block_hash: Txid) -> Txid | None:
        """Return the hash of the block before one, also before one that left the active chain.

        None where the node never heard of that one. Pruned ones are known as long as others.

        Raises:
            ChainUnavailable: If the node does not answer.
        """

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed output nobody has spent in a block, or None."""

    async def broadcast(self, tx: Tx) -> None:
        """Hand a transaction to the mempool. One that is there, or confirmed, is accepted again.

        Raises:
            TxRefused: With the node's reason.
            ChainUnavailable: If the node does not answer.
        """

    async def broadcast_package(self, txs: Sequence[Tx]) -> PackageAnswer:
        """Hand parents and their child to the mempool together; return what became of each.

        The child pays for a parent that pays too little for itself. A parent that is in the
        mempool or in a block is no obstacle.

        Args:
            txs: The transactions, the child last.

        Raises:
            PackageNotTaken: If the child did not get in.
            TxRefused: If the node could not make sense of them.
            ChainUnavailable: If the node does not answer.
        """

    async def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        """Return what the mempool has of a transaction; None if it does not wait there.

        Raises:
            ChainUnavailable: If the node does not answer.
        """

    async def spenders(self, outpoints: Sequence[OutPoint]) -> Mapping[OutPoint, Txid]:
        """Return by which transaction in the mempool each of these is spent, where one is.

        Raises:
            ChainUnavailable: If the node does not answer.
        """

    async def relay_feerates(self) -> RelayFeerates:
        """Return what the node asks for today.

        Raises:
            ChainUnavailable: If the node does not answer.
        """

    async def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        """Return the feerate that the node expects to confirm within `target_blocks`, or None.

        At least its mempool's minimum, rounded up. None from a node that has not seen enough of
        the network yet, and from every one on regtest.

        Raises:
            ChainUnavailable: If the node does not answer.
        """


class Connection(Protocol):
    """An encrypted, authenticated stream of messages with one peer (BOLT 8)."""

    @property
    def node_id(self) -> bytes:
        """The peer's 33-byte node key, proven by the handshake."""

    async def send(self, *messages: bytes) -> None:
        """Send messages of at most 65,535 bytes each, in order; they leave together.

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
