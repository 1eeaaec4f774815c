"""Blocks from their bytes, and confirmed coins, as much of them as a role needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.tx import (
    HASH_SIZE,
    WITNESS_SCALE,
    OutPoint,
    Tx,
    Txid,
    TxOut,
    compact_size,
    read_compact_size,
)
from cromford.codec.reader import MalformedBytes, Reader
from cromford.crypto.keys import sha256d

HEADER_SIZE: Final = 80
BLOCK_WEIGHT_MAX: Final = 4_000_000  # BIP 141. A byte weighs at least one, so bytes too.
COINBASE_MATURITY: Final = 100  # Consensus: blocks before a coinbase output may be spent.
MEDIAN_TIME_SPAN: Final = 11  # BIP 113: blocks whose median time counts as "now".
NULL_OUTPOINT: Final = OutPoint(txid=Txid(bytes(HASH_SIZE)), vout=0xFFFF_FFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """Names one block of the active chain."""

    height: int
    block_hash: Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block as the roles need it."""

    height: int
    block_hash: Txid
    previous_hash: Txid
    txs: tuple[Tx, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """An unspent output of the active chain."""

    outpoint: OutPoint
    txout: TxOut
    confirmations: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """The 80 bytes that proof of work is done over."""

    version: int
    previous_hash: Txid
    merkle_root: bytes
    time: int
    bits: int
    nonce: int

    def serialize(self) -> bytes:
        """Return the bytes of the header."""
        return self.prefix + self.nonce.to_bytes(4, "little")

    @property
    def prefix(self) -> bytes:
        """All bytes of the header but the nonce."""
        return (
            self.version.to_bytes(4, "little")
            + self.previous_hash
            + self.merkle_root
            + self.time.to_bytes(4, "little")
            + self.bits.to_bytes(4, "little")
        )

    @cached_property
    def block_hash(self) -> Txid:
        """The hash that names the block, in internal byte order."""
        return Txid(sha256d(self.serialize()))

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Return the header of these 80 bytes.

        Raises:
            MalformedBytes: If there are more or fewer.
        """
        reader = Reader(data)
        header = cls(
            version=reader.uint_le(4),
            previous_hash=Txid(reader.take(HASH_SIZE)),
            merkle_root=reader.take(HASH_SIZE),
            time=reader.uint_le(4),
            bits=reader.uint_le(4),
            nonce=reader.uint_le(4),
        )
        reader.check_end()
        return header


@dataclass(frozen=True, kw_only=True)
class FullBlock:
    """A header and the transactions it commits to, the coinbase first."""

    header: Header
    txs: tuple[Tx, ...]

    @cached_property
    def raw(self) -> bytes:
        """The bytes of the block, witnesses included."""
        return (
            self.header.serialize()
            + compact_size(len(self.txs))
            + b"".join(tx.serialize() for tx in self.txs)
        )

    @property
    def stripped_size(self) -> int:
        """The size without witnesses, in bytes."""
        sizes = sum(len(tx.stripped) for tx in self.txs)
        return HEADER_SIZE + len(compact_size(len(self.txs))) + sizes

    @property
    def weight(self) -> int:
        """Weight units (BIP 141)."""
        return self.stripped_size * (WITNESS_SCALE - 1) + len(self.raw)

    @classmethod
    def parse(cls, data: bytes) -> "FullBlock":
        """Return the block of these bytes, all of them, whose header commits to its transactions.

        The proof of work and every other rule of consensus are a node's to check.

        Raises:
            MalformedBytes: If they are not exactly one block.
        """
        if len(data) > BLOCK_WEIGHT_MAX:
            raise MalformedBytes(
                f"a block has at most {BLOCK_WEIGHT_MAX} bytes, received {len(data)}"
            )
        reader = Reader(data)
        header = Header.parse(reader.take(HEADER_SIZE))
        txs = tuple(Tx.read(reader) for _ in range(read_compact_size(reader)))
        reader.check_end()
        _check_committed(header, txs)
        return cls(header=header, txs=txs)


def parse_block(raw: bytes, *, block_hash: Txid, height: int) -> Block:
    """Return the block of these bytes, which is the one asked for.

    Raises:
        MalformedBytes: If they are not that block.
    """
    block = FullBlock.parse(raw)
    if block.header.block_hash != block_hash:
        raise MalformedBytes(
            f"block hash: expected {block_hash}, received {block.header.block_hash}"
        )
    return Block(
        height=height,
        block_hash=block_hash,
        previous_hash=block.header.previous_hash,
        txs=block.txs,
    )


def is_coinbase(tx: Tx) -> bool:
    """Say whether this is a coinbase: one input that spends nothing."""
    return len(tx.inputs) == 1 and tx.inputs[0].outpoint == NULL_OUTPOINT


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """Return the merkle root of transaction hashes; an odd last one is paired with itself.

    So a block whose last transactions are doubled has the root of the one without them.

    Raises:
        ValueError: If there is none.
    """
    if not hashes:
        raise ValueError("a block has at least its coinbase")
    level = list(hashes)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256d(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def _check_committed(header: Header, txs: Sequence[Tx]) -> None:
    if not txs:
        raise MalformedBytes("a block without transactions")
    # A doubled end leaves the merkle root as it was (CVE-2012-2459). No valid block holds a
    # transaction twice, because each spends its inputs.
    seen: set[Txid] = set()
    for tx in txs:
        if tx.txid in seen:
            raise MalformedBytes(f"transaction {tx.txid} is in the block twice")
        seen.add(tx.txid)
    root = merkle_root([tx.txid for tx in txs])
    if root != header.merkle_root:
        raise MalformedBytes(
            f"merkle root: expected {header.merkle_root[::-1].hex()}, received {root[::-1].hex()}"
        )
