"""Blocks and their headers as values and bytes, with what regtest fixes for all of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.tx import (
    HASH_SIZE,
    WITNESS_SCALE,
    OutPoint,
    Tx,
    Txid,
    TxIn,
    TxOut,
    compact_size,
    read_compact_size,
)
from cromford.codec.reader import MalformedBytes, Reader
from cromford.crypto.keys import sha256d

HEADER_SIZE: Final = 80
BLOCK_WEIGHT_MAX: Final = 4_000_000  # BIP 141
MEDIAN_TIME_SPAN: Final = 11  # BIP 113: blocks whose median time counts as "now".

REGTEST_BITS: Final = 0x207FFFFF  # The easiest target there is: every second hash meets it.
REGTEST_TARGET: Final = 0x7FFFFF << 8 * 29
REGTEST_DIFFICULTY: Final = 4.656542373906925e-10
REGTEST_WORK_PER_BLOCK: Final = 2
VERSION_BITS_NONE: Final = 0x2000_0000  # BIP 9: no deployment signalled.

NULL_OUTPOINT: Final = OutPoint(txid=Txid(bytes(HASH_SIZE)), vout=0xFFFF_FFFF)


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
    def read(cls, reader: Reader) -> "Header":
        """Read a header.

        Raises:
            MalformedBytes: If fewer than 80 bytes are left.
        """
        return cls(
            version=reader.uint_le(4),
            previous_hash=Txid(reader.take(HASH_SIZE)),
            merkle_root=reader.take(HASH_SIZE),
            time=reader.uint_le(4),
            bits=reader.uint_le(4),
            nonce=reader.uint_le(4),
        )


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
        """Return the block of these bytes, all of them.

        Raises:
            MalformedBytes: If they are not exactly one block.
        """
        reader = Reader(data)
        header = Header.read(reader)
        txs = tuple(Tx.read(reader) for _ in range(read_compact_size(reader)))
        reader.check_end()
        if not txs:
            raise MalformedBytes("a block without a coinbase")
        return cls(header=header, txs=txs)


def meets_target(block_hash: bytes) -> bool:
    """Say whether a hash is proof enough on regtest."""
    return int.from_bytes(block_hash, "little") <= REGTEST_TARGET


def is_coinbase(tx: Tx) -> bool:
    """Say whether this is a coinbase: one input that spends nothing."""
    return len(tx.inputs) == 1 and tx.inputs[0].outpoint == NULL_OUTPOINT


def genesis_block() -> FullBlock:
    """Return the regtest chain's first block, which every node has from the start."""
    coinbase = Tx(
        version=1,
        inputs=(
            TxIn(
                outpoint=NULL_OUTPOINT,
                nsequence=0xFFFF_FFFF,
                script_sig=bytes.fromhex("04ffff001d010445")
                + b"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks",
            ),
        ),
        outputs=(
            TxOut(
                amount_sat=5_000_000_000,
                script_pubkey=bytes.fromhex(
                    "4104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"
                    "49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac"
                ),
            ),
        ),
    )
    header = Header(
        version=1,
        previous_hash=Txid(bytes(HASH_SIZE)),
        merkle_root=coinbase.txid,
        time=1_296_688_602,
        bits=REGTEST_BITS,
        nonce=2,
    )
    return FullBlock(header=header, txs=(coinbase,))
