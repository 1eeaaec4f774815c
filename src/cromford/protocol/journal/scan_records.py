"""What is remembered of the chain: which blocks were read, and what they had for whom."""

import msgspec

from cromford.protocol.journal.record import Record


class Finding(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The transactions of a block that concern one stream, in the block's order."""

    stream: str
    txs: tuple[bytes, ...]


class Scanned(Record, frozen=True, kw_only=True, tag="scanned"):
    """A block joined the active chain and was read."""

    height: int
    block_hash: bytes
    found: tuple[Finding, ...]


class ScanUndone(Record, frozen=True, kw_only=True, tag="scan_undone"):
    """The block at this height, the tip, left the active chain."""

    height: int


ScanRecord = Scanned | ScanUndone
