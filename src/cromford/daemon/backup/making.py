"""Making a backup: one file, of a whole store at one moment, while its daemon runs or not."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cromford.adapters.directories import sync_directory
from cromford.adapters.sealed import MAGIC
from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.adapters.store_copy import heads_of, rows_of
from cromford.answers.backup import BackupMade
from cromford.daemon.backup.contents import End, Moment, TableRows, encode_frame
from cromford.daemon.backup.header import BACKUP, Owner, begin_file
from cromford.daemon.backup.places import PlaceRefused, is_within

COPY_NAME: Final = "backup-copy"  # And a random end: beside the journal while a backup is made.
PARTIAL: Final = ".partial-"
SPACE_LEFT_MIN: Final = 64 * 1024 * 1024  # Bytes that the daemon itself may need meanwhile.


class NoSpace(OSError):
    """There is no room for the copy that a backup is made of. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup that was made."""

    path: Path
    backup_id: bytes
    newest: int
    n_streams: int
    size: int


@contextlib.contextmanager
def copied(
    store: Journal, home: Path, *, finished: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Give a copy of a journal as it is at one moment, beside it, for as long as the block lasts.

    Raises:
        NoSpace: If the disk of the journal has no room for it.
        StoreFailed: If it cannot be made.
    """
    size = sum(file.stat().st_size for file in home.glob(f"{JOURNAL_NAME}*"))
    free = shutil.disk_usage(home).free
    if free < size + SPACE_LEFT_MIN:
        raise NoSpace(
            f"{home} has no room for a copy of the journal: expected "
            f"{size + SPACE_LEFT_MIN} bytes free, received {free}"
        )
    path = home / f"{COPY_NAME}-{secrets.token_hex(4)}.sqlite"
    try:
        for _ in store.copy(path, finished=finished):
            pass
        yield path
    finally:
        forget_copy(path)


def forget_copy(path: Path) -> None:
    """Remove a copy, and what SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)


def forget_copies(home: Path) -> None:
    """Remove what a process left that died while it made a backup. Its home is held."""
    for path in home.glob(f"{COPY_NAME}-*"):
        path.unlink(missing_ok=True)


def write_backup(
    copy: Path, path: Path, owner: Owner, *, journal_number: int, unix_time: int
) -> Made:
    """Write a backup of a copy to a path that is not there, durably but for its name.

    Raises:
        OSError: If it cannot be written.
        StoreFailed: If the copy cannot be read.
    """
    newest, newest_hash, heads = heads_of(copy)
    writer, backup_id = begin_file(
        path, owner, kind=BACKUP, journal_number=journal_number, unix_time=unix_time
    )
    try:
        writer.write(encode_frame(Moment(newest, newest_hash, heads)))
        n_rows = 0
        for table, rows in rows_of(copy):
            writer.write(encode_frame(TableRows(table, [tuple(row) for row in rows])))
            n_rows += len(rows)
        writer.write(encode_frame(End(n_rows)))
        writer.finish()
    finally:
        writer.close()
    return Made(
        path=path, backup_id=backup_id, newest=newest, n_streams=len(heads), size=writer.size
    )


def create_backup(
    store: Journal,
    home: Path,
    path: Path,
    owner: Owner,
    *,
    datadir: Path,
    journal_number: int,
    unix_time: int,
    overwrites: bool,
) -> Made:
    """Make a backup file, all of it or nothing.

    Args:
        store: The journal; others may write to it meanwhile.
        home: Its directory.
        path: Where the backup shall be.
        owner: Whose it is.
        datadir: The data directory that `home` is of: whoever loses it loses both.
        journal_number: The journal's number.
        unix_time: When, for whoever reads it.
        overwrites: Whether a file that is there is replaced.

    Raises:
        PlaceRefused: If it would lie within the data directory, or in the place of
            something that is no backup.
        FileExistsError: If it is there, and is not to be replaced.
        OSError: If it cannot be written.
        StoreFailed: If the journal cannot be read.
    """
    for directory in (datadir, home):  # A link may lead from the one to the other.
        if is_within(path, directory):
            raise PlaceRefused(
                f"{path} lies within {directory}, where the store is: what destroys one destroys "
                "both. Expected a file elsewhere"
            )
    with _named(path, overwrites=overwrites) as partial, copied(store, home) as copy:
        made = write_backup(
            copy, partial, owner, journal_number=journal_number, unix_time=unix_time
        )
        partial.replace(path)
        sync_directory(path.parent)
    return replace(made, path=path)


@contextlib.contextmanager
def _named(path: Path, *, overwrites: bool) -> Iterator[Path]:
    """Give the name to write under; the last one is reserved, and left free if it fails."""
    is_reserved = False
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not overwrites:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        is_reserved = True
    else:
        _check_replaceable(path)
    partial = path.with_name(f"{path.name}{PARTIAL}{secrets.token_hex(4)}")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        if is_reserved:
            path.unlink(missing_ok=True)
        raise


def _check_replaceable(path: Path) -> None:
    """Check that what is there is a backup, or empty: whoever may ask for one owns no other file.

    Raises:
        PlaceRefused: If it is something else.
        OSError: If it cannot be read.
    """
    try:
        # Whatever it is, it is not waited for: it may be a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            begins = file.read(len(MAGIC)) if is_file else b"?"
    except FileNotFoundError:
        return
    if begins not in {b"", MAGIC}:
        raise PlaceRefused(
            f"{path} is no backup, and only a backup is replaced by one. Expected another file"
        )


def shown_made(made: Made) -> BackupMade:
    """Return a backup that was made, as plain data."""
    return {
        "file": str(made.path),
        "backup_id": made.backup_id.hex(),
        "records": made.newest,
        "streams": made.n_streams,
        "size": made.size,
    }
