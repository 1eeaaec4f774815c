"""How far a replica is, and whether it proves that a store lacks records.

A replica may lack the newest records, so it never proves that a store is the newest. But what it
has was durable in the store before: a store that has it no more is an older copy of one that went
on.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cromford.adapters.sealed import BadFile, Reach, read_sealed
from cromford.daemon.backup.contents import Appended, Frame, Moment, frames
from cromford.daemon.backup.header import SEGMENT, Owner, checked_header
from cromford.daemon.backup.replica_files import ReplicaFiles, generations_in
from cromford.daemon.backup.said import why_behind
from cromford.ports import Store


class Tail(NamedTuple):
    """The newest record of a store or a replica: its number and its SHA-256."""

    number: int
    digest: bytes


def tail_of(store: Store) -> Tail:
    """Return a store's tail.

    Raises:
        StoreFailed: If it cannot be read.
    """
    kept = store.history(after=store.newest - 1, limit=1)
    record = kept[0].record if kept else b""
    return Tail(store.newest, hashlib.sha256(record).digest())


def tail_in(files: ReplicaFiles, owner: Owner) -> tuple[Tail, bytes]:
    """Return the tail of a generation, and the random name of its base.

    Raises:
        BadFile: If it cannot be read as one.
        OSError: If it cannot be read at all.
    """
    header, _ = checked_header(files.base, owner)
    moment = next(frames(files.base, read_sealed(files.base, owner.secret)), None)
    if not isinstance(moment, Moment):
        raise BadFile(f"{files.base} is damaged: it does not begin with its moment")
    tail = Tail(moment.newest, moment.newest_hash)
    segments, _ = files.begun_segments()
    for index, segment in enumerate(segments, start=1):
        _, says = checked_header(segment, owner, kind=SEGMENT)
        if (says.base, says.index) != (header.file_id.hex(), index):
            raise BadFile(f"{segment} does not follow")
        for frame in _frames_in(segment, owner):
            if isinstance(frame, Appended) and frame.entries:
                newest = frame.number + len(frame.entries) - 1
                tail = Tail(newest, hashlib.sha256(frame.entries[-1][1]).digest())
    return tail, header.file_id


def newest_tail(directory: Path, owner: Owner) -> Tail | None:
    """Return the tail of a replica's newest generation; None where there is none.

    Raises:
        BadFile: If it cannot be read as one.
        OSError: If it cannot be read at all.
    """
    generations = generations_in(directory) if directory.is_dir() else []
    if not generations:
        return None
    tail, _ = tail_in(ReplicaFiles(directory, generations[-1]), owner)
    return tail


def contains(store: Store, tail: Tail) -> bool:
    """Say whether a store has all that a replica has, as far as its records tell.

    Raises:
        StoreFailed: If it cannot be read.
    """
    return _kept_at(store, tail.number) == tail


def why_lost(store: Store, tail: Tail, directory: Path) -> str | None:
    """Return why a replica proves that a store lacks records; None if it does not.

    Args:
        store: The store.
        tail: The replica's.
        directory: Where that is.

    Raises:
        StoreFailed: If the store cannot be read.
    """
    if tail.number > store.newest:
        holder = f"the replica in {directory}"
        return why_behind(store.newest, number=tail.number, holder=holder)
    kept = _kept_at(store, tail.number)
    if kept is not None and kept != tail:
        return f"record {tail.number} is not the one that the replica in {directory} has"
    return None


def _kept_at(store: Store, number: int) -> Tail | None:
    """Return what a store has at a number; None of a record that is gone, or never was."""
    kept = store.history(after=number - 1, limit=1)
    if not kept or kept[0].number != number:
        return None
    return Tail(number, hashlib.sha256(kept[0].record).digest())


def _frames_in(segment: Path, owner: Owner) -> Iterator[Frame]:
    return frames(segment, read_sealed(segment, owner.secret, reach=Reach()))
