"""Reading a backup, a file or a replica's directory, into a journal beside which nobody is.

Everything is checked while it is read; a journal that was not filled to its end is thrown away by
whoever asked for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cromford.adapters import store_copy
from cromford.adapters.sealed import (
    BadFile,
    NoSealedFile,
    Reach,
    Truncated,
    check_whole,
    read_sealed,
)
from cromford.adapters.sqlite import Journal
from cromford.daemon.backup.contents import (
    Appended,
    End,
    Frame,
    Moment,
    Replaced,
    TableRows,
    checkpoint_of,
    frames,
)
from cromford.daemon.backup.header import SEGMENT, Owner, Says, checked_header
from cromford.daemon.backup.replica_files import ReplicaFiles, generations_in, stores_in
from cromford.daemon.backup.said import reason_at
from cromford.ports import Archived, Entry


class NoBackup(BadFile):
    """There is none."""

    code = "backup_not_found"


class Unreadable(BadFile):
    """The system does not let it be read, or not to its end."""

    code = "backup_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBackup:
    """A backup that was read to its end.

    Attributes:
        path: The file, or the directory.
        backup_id: The random name of the file; of a replica, of what it began with.
        says: What its header says.
        newest: The number of the newest record.
        heads: How many records each stream has.
        n_segments: Of a replica.
        n_bytes_left_out: Of a replica's last segment: what was begun, and not written to its end.
    """

    path: Path
    backup_id: bytes
    says: Says
    newest: int
    heads: dict[str, int]
    n_segments: int = 0
    n_bytes_left_out: int = 0


def load(path: Path, owner: Owner, into: Path) -> FoundBackup:
    """Fill an empty directory's journal with what a backup has.

    Raises:
        BadFile: If the backup cannot be read, is not whole, or none of the owner's.
        StoreFailed: If the journal cannot be written.
    """
    with _reading(path):
        is_replica, is_there = path.is_dir(), path.exists()
    if is_replica:
        return _load_replica(path, owner, into)
    if not is_there:
        raise NoBackup(f"{path}: there is no such file")
    return _load_file(path, owner, into)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name what is read in whatever the system says meanwhile: the store's disk has its own words.

    Raises:
        Unreadable: Instead of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise Unreadable(reason_at(path, error)) from error


def _chunks(path: Path, owner: Owner, reach: Reach | None = None) -> Iterator[bytes]:
    with _reading(path):
        yield from read_sealed(path, owner.secret, reach=reach)


def _load_file(path: Path, owner: Owner, into: Path) -> FoundBackup:
    # By name first: whose it is is told before it is read.
    with _reading(path):
        # A pipe would be waited for.
        if not path.is_file():
            raise NoSealedFile(f"{path} is no backup: expected a file")
        header, says = checked_header(path, owner)
        check_whole(path)
    content = _Content(path, frames(path, _chunks(path, owner)))
    try:
        store_copy.fill(into, content.rows())
    except ValueError as error:
        raise BadFile(f"{path} is damaged: {error}") from error
    found = FoundBackup(
        path=path,
        backup_id=header.file_id,
        says=says,
        newest=content.moment.newest,
        heads=content.moment.heads,
    )
    _check(found, into)
    return found


class _Content:
    """What a backup's frames say, in their order."""

    def __init__(self, path: Path, found: Iterator[Frame]) -> None:
        self._path = path
        self._frames = found
        first = next(found, None)
        if not isinstance(first, Moment):
            raise BadFile(f"{path} is damaged: it does not begin with its moment")
        self.moment: Final = first

    def rows(self) -> Iterator[tuple[str, Sequence[store_copy.Row]]]:
        n_rows = 0
        for frame in self._frames:
            match frame:
                case TableRows(table=table, rows=rows) if rows:
                    yield table, rows
                    n_rows += len(rows)
                case End(n_rows=expected):
                    # Asked once more, the file says whether anything follows.
                    if n_rows != expected or next(self._frames, None) is not None:
                        break
                    return
                case _:
                    break
        raise Truncated(f"{self._path} is damaged: it does not have all that it had")


def _check(found: FoundBackup, into: Path) -> None:
    """Check that the journal has what the backup says; SQLite has checked the file's health."""
    with Journal(into) as store:
        newest = store.newest
        for stream, head in found.heads.items():
            if store.head(stream) != head:
                raise BadFile(
                    f"{found.path} is damaged: stream {stream}: expected {head} records, received "
                    f"{store.head(stream)}"
                )
    if newest != found.newest:
        raise BadFile(
            f"{found.path} is damaged: newest record: expected {found.newest}, received {newest}"
        )


def _load_replica(path: Path, owner: Owner, into: Path) -> FoundBackup:
    with _reading(path):
        files = _newest_of(path, owner)
    base = _load_file(files.base, owner, into)
    reach = Reach()
    segments, unbegun = files.begun_segments()
    with Journal(into) as store:
        for number, segment in enumerate(segments, start=1):
            # Another run went on from exactly where one was cut off: if not, that one is damaged.
            cut_off = segments[number - 2] if reach.n_bytes_left_out else None
            reach = Reach()
            if segment != files.segment(number):
                raise BadFile(f"{files.segment(number)} is missing, and {segment} follows it")
            _check_follows(segment, owner, base, index=number)
            for frame in frames(segment, _chunks(segment, owner, reach)):
                _replay(store, segment, frame, cut_off=cut_off)
        newest = store.newest
        heads = {stream: store.head(stream) for stream in _streams_of(base, store)}
    return FoundBackup(
        path=path,
        backup_id=base.backup_id,
        says=base.says,
        newest=newest,
        heads=heads,
        n_segments=len(segments),
        n_bytes_left_out=reach.n_bytes_left_out + (unbegun.stat().st_size if unbegun else 0),
    )


def _streams_of(base: FoundBackup, store: Journal) -> list[str]:
    new = {kept.stream for kept in store.history(after=base.newest, limit=store.newest)}
    return sorted({*base.heads} | new)


def _newest_of(path: Path, owner: Owner) -> ReplicaFiles:
    """Return the newest generation of a replica whose base is whole."""
    stores = stores_in(path, owner) or [path]
    if len(stores) > 1:
        raise NoBackup(
            f"{path} has replicas of several journals of this seed, name one: "
            f"{', '.join(str(store) for store in stores)}"
        )
    (directory,) = stores
    generations = generations_in(directory)
    if not generations:
        raise NoBackup(
            f"{path}: there is no replica of a {owner.role} on {owner.network.name} with the seed "
            f"{owner.fingerprint.hex()}"
        )
    newest = ReplicaFiles(directory, generations[-1])
    try:
        checked_header(newest.base, owner)
        check_whole(newest.base)
    except BadFile:
        # Older ones are removed only when the next is whole: its writer died in between.
        if len(generations) > 1:
            return ReplicaFiles(directory, generations[-2])
        raise
    return newest


def _check_follows(segment: Path, owner: Owner, base: FoundBackup, *, index: int) -> None:
    with _reading(segment):
        _, says = checked_header(segment, owner, kind=SEGMENT)
    if (says.base, says.index) != (base.backup_id.hex(), index):
        raise BadFile(
            f"{segment}: expected segment {index} of {base.backup_id.hex()}, received segment "
            f"{says.index} of {says.base}"
        )


def _replay(store: Journal, segment: Path, frame: Frame, *, cut_off: Path | None) -> None:
    match frame:
        case Appended(number=number, entries=entries, archived=archived):
            if number != store.newest + 1:
                before = f"{cut_off} is damaged: its end is missing, and " if cut_off else ""
                raise BadFile(
                    f"{before}{segment} does not follow: expected record {store.newest + 1}, "
                    f"received {number}"
                )
            store.append([Entry(*one) for one in entries], [Archived(*one) for one in archived])
        case Replaced():
            try:
                store.replace_checkpoint(checkpoint_of(frame))
            except ValueError as error:
                raise BadFile(f"{segment} does not follow: {error}") from error
        case _:
            raise BadFile(f"{segment} is damaged: it has what a segment has not")
