"""The mark's file: two slots, of which a write changes one, so that a crash leaves the other.

    magic (8) | version (1) | sequence (8) | number (8) | digest (32) | SHA-256 of all before (32)

The slot with the higher sequence counts. A slot that was not written to its end fails its hash.
"""

import hashlib
import os
import struct
from pathlib import Path
from typing import Final

from cromford.adapters.directories import FILE_MODE, sync_directory
from cromford.daemon.backup.high_water import DIGEST_SIZE, HighWaterMark

MAGIC: Final = b"CRMFMARK"
VERSION: Final = 1
_BODY: Final = struct.Struct(f">8sBQQ{DIGEST_SIZE}s")
_HASH_SIZE: Final = 32
SLOT_SIZE: Final = _BODY.size + _HASH_SIZE
N_SLOTS: Final = 2
SUFFIX: Final = ".mark"


class BadMark(Exception):
    """A mark's file is there, and does not say what a mark says."""


class MarkMoved(Exception):
    """A mark is not the one that was written here last: somebody else writes it, too."""


class MarkFile:
    """The mark of one line. It never goes back.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: tuple[int, HighWaterMark] | None = (
            None  # The sequence, as it was read or written.
        )
        self._tried: tuple[int, HighWaterMark] | None = None  # That failed, and may be there.

    def read(self) -> HighWaterMark | None:
        """Return the mark; None where there is no file.

        Raises:
            BadMark: If it cannot be read as one.
            OSError: If it cannot be read at all.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(N_SLOTS * SLOT_SIZE + 1)
        except FileNotFoundError:
            return None
        self._last = _newest(self.path, data)
        return self._last[1]

    def begin(self, position: HighWaterMark) -> None:
        """Make the file with its first mark, durably; none may be there.

        Raises:
            OSError: If it cannot be made.
        """
        partial = self.path.with_name(f"{self.path.name}.partial")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            os.write(fd, _slot(0, position) + bytes(SLOT_SIZE))
            os.fsync(fd)
        finally:
            os.close(fd)
        if self.path.exists():
            raise FileExistsError(f"{self.path} is there already")
        partial.rename(self.path)
        sync_directory(self.path.parent)
        self._last = (0, position)

    def write(self, position: HighWaterMark) -> None:
        """Raise the mark, durably.

        Raises:
            MarkMoved: If it is not as it was left here.
            BadMark: If it cannot be read any more.
            ValueError: If it would go back.
            OSError: If it cannot be written, or is not there.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            found = _newest(self.path, os.pread(fd, N_SLOTS * SLOT_SIZE + 1, 0))
            if found not in {self._last, self._tried}:
                raise MarkMoved(
                    f"{self.path}: expected {_shown(self._last)}, received {_shown(found)}: "
                    "another copy of this store runs"
                )
            sequence, before = found[0] + 1, found[1]
            if position != before and position.number <= before.number:
                raise ValueError(f"{self.path}: {position.number} is not above {before.number}")
            self._tried = (sequence, position)
            os.pwrite(fd, _slot(sequence, position), sequence % N_SLOTS * SLOT_SIZE)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._last = (sequence, position)


def _slot(sequence: int, position: HighWaterMark) -> bytes:
    body = _BODY.pack(MAGIC, VERSION, sequence, position.number, position.digest)
    return body + hashlib.sha256(body).digest()


def _newest(path: Path, data: bytes) -> tuple[int, HighWaterMark]:
    slots = (data[at : at + SLOT_SIZE] for at in range(0, N_SLOTS * SLOT_SIZE, SLOT_SIZE))
    found = [read for read in map(_read_slot, slots) if read is not None]
    if not found or len(data) > N_SLOTS * SLOT_SIZE:
        raise BadMark(f"{path} is damaged, or no mark: none of its slots can be read")
    return max(found)


def _read_slot(data: bytes) -> tuple[int, HighWaterMark] | None:
    body, digest = data[: _BODY.size], data[_BODY.size :]
    if len(data) != SLOT_SIZE or hashlib.sha256(body).digest() != digest:
        return None
    magic, version, sequence, number, of_chain = _BODY.unpack(body)
    return (
        (sequence, HighWaterMark(number, of_chain))
        if (magic, version) == (MAGIC, VERSION)
        else None
    )


def _shown(found: tuple[int, HighWaterMark] | None) -> str:
    return "no mark" if found is None else f"record {found[1].number}"
