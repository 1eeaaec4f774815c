"""Blocks on disk: one file, appended to, and read again when the node starts.

Each entry is a letter, a length and its bytes: `B` a block that was accepted, `I` the hash of one
that was invalidated, `R` of one that was reconsidered. A last entry cut short by a crash is
dropped. What is read is not trusted: the kernel validates the active chain again.
"""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from cromford.bitcoin.block import BLOCK_WEIGHT_MAX
from cromford.codec.reader import MalformedBytes, Reader

BLOCK: Final = b"B"
INVALIDATED: Final = b"I"
RECONSIDERED: Final = b"R"
KINDS: Final = (BLOCK, INVALIDATED, RECONSIDERED)
LENGTH_SIZE: Final = 4


class DatadirBusy(Exception):
    """Another process has this data directory open."""


class BlockFile:
    """The file of one data directory, locked against a second process.

    Raises:
        DatadirBusy: If another process has it open.
        OSError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise DatadirBusy(f"{path.parent} is in use by another process") from error

    def replay(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the kind and the bytes of every entry, and cut off a torn end."""
        self._file.seek(0)
        reader = Reader(self._file.read())
        whole = 0
        while reader.n_left:
            try:
                kind = reader.take(1)
                data = reader.take(reader.uint_le(LENGTH_SIZE))
            except MalformedBytes:
                break
            if kind not in KINDS:
                break
            whole = reader.position
            yield kind, data
        self._file.truncate(whole)

    def append(self, kind: bytes, data: bytes) -> None:
        """Write one entry. It survives the end of the process, not the loss of power.

        Raises:
            ValueError: If it is larger than any block.
            OSError: If the disk is full.
        """
        if len(data) > BLOCK_WEIGHT_MAX:
            raise ValueError(f"an entry of at most {BLOCK_WEIGHT_MAX} bytes, received {len(data)}")
        self._file.write(kind + len(data).to_bytes(LENGTH_SIZE, "little") + data)

    def close(self) -> None:
        """Close the file and release the lock. Safe to call twice."""
        self._file.close()
