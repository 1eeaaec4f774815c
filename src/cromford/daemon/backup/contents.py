"""What is in a backup: the rows of a store at one moment, and in a replica what changed since.

A frame is its size (4) and a MessagePack array. A backup has a `Moment`, then `TableRows`, then an
`End`; a segment of a replica has changes only, each of which is one commit.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from cromford.adapters.sealed import BadFile
from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.ports import Archived, Checkpoint, Entry
from cromford.ports import Row as ShelfRow

_SIZE_BYTES: Final = 4


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    """The base of all frames."""


class Moment(_Frame, frozen=True, tag="moment"):
    """What moment it is: the newest record's number, and how many records each stream has.

    `newest_hash` is the SHA-256 of the newest record.
    """

    newest: int
    newest_hash: bytes
    heads: dict[str, int]


class TableRows(_Frame, frozen=True, tag="rows"):
    """TableRows of one table."""

    table: str
    rows: list[tuple[Any, ...]]


class End(_Frame, frozen=True, tag="end"):
    """That it is all: how many rows there were."""

    n_rows: int


class Appended(_Frame, frozen=True, tag="appended"):
    """Records that were appended, the first with this number, and what was archived with them."""

    number: int
    entries: list[tuple[str, bytes]]
    archived: list[tuple[str, bytes, bytes]]


class Replaced(_Frame, frozen=True, tag="replaced"):
    """A checkpoint that took the place of the one before."""

    stream: str
    n: int
    snapshot: bytes
    label: bytes
    wake_height: int | None
    rows: list[tuple[str, bytes, bytes | None]]


Frame = Moment | TableRows | End | Appended | Replaced
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Frame]] = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    body = _ENCODER.encode(frame)
    return len(body).to_bytes(_SIZE_BYTES, "big") + body


def frames(path: Path, chunks: Iterable[bytes]) -> Iterator[Frame]:
    """Yield the frames of a file; one that was not written to its end is left out.

    Raises:
        BadFile: If one cannot be read.
    """
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        at = 0
        while len(waiting) - at >= _SIZE_BYTES:
            end = at + _SIZE_BYTES + int.from_bytes(waiting[at : at + _SIZE_BYTES], "big")
            if len(waiting) < end:
                break
            try:
                yield decoded(_DECODER, bytes(waiting[at + _SIZE_BYTES : end]))
            except MalformedBytes as error:
                raise BadFile(
                    f"{path} is damaged: what is in it cannot be read: {error}"
                ) from error
            at = end
        del waiting[:at]


def appended(number: int, entries: Iterable[Entry], archived: Iterable[Archived]) -> Appended:
    """Return the frame of records and what was archived with them."""
    return Appended(number, [(*entry,) for entry in entries], [(*one,) for one in archived])


def replaced(checkpoint: Checkpoint) -> Replaced:
    """Return the frame of a checkpoint."""
    stream, n, snapshot, label, wake_height, rows = checkpoint
    return Replaced(stream, n, snapshot, label, wake_height, [(*row,) for row in rows])


def checkpoint_of(frame: Replaced) -> Checkpoint:
    """Return the checkpoint of a frame."""
    rows = [ShelfRow(*row) for row in frame.rows]
    return Checkpoint(frame.stream, frame.n, frame.snapshot, frame.label, frame.wake_height, rows)
