"""The journal in one SQLite file: streams of records, durable before an append returns.

The write-ahead log is synced at every commit (`synchronous=FULL`; NORMAL may lose the last
commits with the power, and a lost revocation costs money). One process at a time: a lock file
beside the journal is held with `flock`, which the kernel releases however the process ends.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import apsw

from cromford.adapters import sqlite_schema as sql
from cromford.adapters.directories import FILE_MODE, make_directory, sync_directory
from cromford.adapters.sqlite_refusals import kind_of
from cromford.ports import (
    NOBODY,
    SNAPSHOT_SIZE_MAX,
    Archived,
    Checkpoint,
    Entry,
    Kept,
    Observer,
    StoreDamaged,
    StoreFailed,
    StoreInUse,
    StoreTooNew,
    check_order,
    oldest_of,
)

JOURNAL_NAME: Final = "journal.sqlite"
LOCK_NAME: Final = "journal.lock"
APPLICATION_ID: Final = 0x43524D46  # "CRMF", in the header of every journal
RECORD_SIZE_MAX: Final = 64 * 1024 * 1024  # Far above any record, far below SQLite's own limit.
_PAGE_RECORDS: Final = 256  # Records read at a time, so that a replay holds few in memory.
_PAGES_KIB: Final = 2000  # Of the file that are kept in memory: SQLite's own default, said.
_PAGES_COPIED: Final = 256  # In one step, while nobody else reads or writes: a megabyte.
_KNOWN_MAX: Final = 1024  # Streams whose head is kept in memory.
_LOG_SIZE_KEPT: Final = 4 * 1024 * 1024  # What a large checkpoint leaves of the write-ahead log.


# What a file holds that we never wrote: a text that is no UTF-8, a number that leads past 64 bits.
_NOT_OURS: Final = (UnicodeDecodeError, OverflowError)
_Row = tuple[Any, ...]


class Journal:
    """The journal of one data directory. Implements `ports.Store`.

    Once a write has failed, every later one fails too: what the failed one left on the disk is
    only known to the next opening, so the process has to stop.

    Attributes:
        observer: Told of every change.
    """

    def __init__(self, datadir: Path) -> None:
        """Open the journal in `datadir`, and make both if they are missing.

        Raises:
            StoreInUse: If another process holds it.
            StoreDamaged: If it is no journal any more.
            StoreTooNew: If a newer version wrote it.
            StoreFull: If there is no room for what an opening writes.
            StoreReadOnly: If it, or its directory, cannot be written.
            StoreFailed: If it is another program's file, or an older version's, or cannot be read.
        """
        self._path = datadir / JOURNAL_NAME
        self._failure: str | None = None
        self._known: dict[str, list[int]] = {}  # The number of a name, and how many records it has.
        self._newest = 0
        self._forgotten = 0
        self.observer: Observer = NOBODY
        self._turn = threading.RLock()  # One thread writes, another may read.
        with contextlib.ExitStack() as undo:
            self._lock_fd = _take_lock(datadir)
            undo.callback(os.close, self._lock_fd)
            with self._reported("open"):
                _create_file(self._path)
                self._connection = apsw.Connection(str(self._path))
                undo.callback(self._connection.close)
                self._prepare()
            undo.pop_all()

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        """Append all of `entries` and keep all of `archived`, or nothing; durable on return.

        Raises:
            ValueError: If a record exceeds `RECORD_SIZE_MAX`; nothing is written then.
            StoreFull: If there is no room.
            StoreFailed: If the disk refused. The records may or may not be there: stop.
        """
        for entry in entries:
            _check_size("a record", entry.record, RECORD_SIZE_MAX)
        if not entries and not archived:
            self._check_usable()
            return
        with self._turn:
            self._append(entries, archived)
            self.observer.appended(self._newest - len(entries) + 1, entries, archived)

    def _append(self, entries: Sequence[Entry], archived: Sequence[Archived]) -> None:
        with self._writing("append to") as execute_many:
            numbers = range(self._newest + 1, self._newest + len(entries) + 1)
            rows = [
                (number, *self._next_of(stream), record)
                for number, (stream, record) in zip(numbers, entries, strict=True)
            ]
            execute_many("INSERT INTO journal VALUES (?, ?, ?, ?)", rows)
            execute_many(
                "INSERT OR REPLACE INTO archive VALUES (?, ?, ?)",
                [(self._id_of(stream), key, value) for stream, key, value in archived],
            )
        self._newest += len(entries)

    def replay(self, stream: str, *, after: int = 0) -> Iterator[bytes]:
        """Yield the records of a stream after its first `after` ones, in order.

        Those are all that were appended before the first one is asked for.

        Raises:
            StoreFailed: If the file cannot be read, or a record is missing from the sequence.
        """
        self._check_usable()
        last, position = self.head(stream), after
        while position < last:
            page = self._page_after(stream, position, last)
            for n, record in page:
                position += 1
                if n != position:
                    raise self._missing(stream, position)
                yield record
            if not page:
                raise self._missing(stream, position + 1)

    def head(self, stream: str) -> int:
        """Return how many records a stream ever had.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        return self._of(stream)[1]

    def unlabelled(self) -> Iterator[str]:
        """Yield the streams that have records, and no label.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        return (name for _, name in self._pages(sql.UNLABELLED))

    def checkpoint(self, stream: str) -> Checkpoint | None:
        """Return a stream's checkpoint, or None.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        found = self._row(
            "SELECT c.n, c.snapshot, c.label, w.height FROM checkpoint c "
            "LEFT JOIN wake w ON w.stream = c.stream WHERE c.stream = ?",
            self._id(stream),
        )
        if found is None:
            return None
        n, snapshot, label, wake_height = found
        return Checkpoint(stream, int(n), bytes(snapshot), bytes(label), wake_height)

    def label(self, stream: str) -> bytes:
        """Return the label of a stream's checkpoint; empty if it has none, or records follow it.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        found = self._row(sql.LABEL, stream)
        return b"" if found is None else bytes(found[0])

    def labels(self) -> Iterator[tuple[str, bytes]]:
        """Yield, by stream, every label that is not empty.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        return ((name, bytes(label)) for _, name, label in self._pages(sql.LABELS))

    def due(self, height: int) -> Iterator[str]:
        """Yield the streams with a label that are to be loaded at a height, or should have been.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        return (name for _, name in self._pages(sql.DUE, height))

    def row(self, stream: str, shelf: str, key: bytes) -> bytes | None:
        """Return what lies under a key beside a stream's checkpoint, or None.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        found = self._row(sql.LYING, self._id(stream), shelf, key)
        return None if found is None else bytes(found[0])

    def rows_of(
        self, stream: str, shelf: str, keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield those of many keys under which something lies, with it, in no order.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        for first in range(0, len(keys), sql.KEYS_AT_ONCE):
            some = list(keys[first : first + sql.KEYS_AT_ONCE])
            some += some[-1:] * (sql.KEYS_AT_ONCE - len(some))  # The statement is the same.
            yield from self._rows(sql.LYING_OF, self._id(stream), shelf, *some)

    def rows(self, stream: str, shelf: str, *, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of a shelf from `start` on, with what lies there, in their order.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        while page := self._rows(sql.ROWS, self._id(stream), shelf, start, _PAGE_RECORDS):
            start = page[-1][0] + b"\0"  # No key lies between.
            yield from page

    def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in the place of the stream's one before, durable on return.

        Raises:
            ValueError: If the snapshot exceeds `SNAPSHOT_SIZE_MAX`, or is of fewer records than the
                checkpoint that is there, or of more than there are.
            StoreFailed: If the disk refused. The old one may be there, or the new one: stop.
        """
        _check_size("a snapshot", checkpoint.snapshot, SNAPSHOT_SIZE_MAX)
        with self._turn:
            self._replace_checkpoint(checkpoint)
            self.observer.replaced(checkpoint)

    def _replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        stream, n, snapshot, label, wake_height, _ = checkpoint
        stream_id, head = self._of(stream)
        kept = self._row("SELECT n FROM checkpoint WHERE stream = ?", stream_id)
        check_order(checkpoint, kept_n=kept[0] if kept else 0, head=head)
        with self._writing("append to") as execute_many:
            execute_many(
                "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?)",
                [(stream_id, n, label, snapshot)],
            )
            if wake_height is None:
                execute_many("DELETE FROM wake WHERE stream = ?", [(stream_id,)])
            else:
                execute_many(
                    "INSERT OR REPLACE INTO wake VALUES (?, ?)", [(stream_id, wake_height)]
                )
            execute_many(
                "DELETE FROM shelf WHERE stream = ? AND name = ? AND key = ?",
                [(stream_id, one.shelf, one.key) for one in checkpoint.rows if one.value is None],
            )
            execute_many(
                "INSERT OR REPLACE INTO shelf VALUES (?, ?, ?, ?)",
                [(stream_id, *one) for one in checkpoint.rows if one.value is not None],
            )
            execute_many(sql.FORGET, [(stream_id, n, self.oldest)])
            if self.oldest >= self._forgotten + sql.FORGET_LEFT_EVERY:
                execute_many(sql.FORGET_LEFT, [(self.oldest,)])
                self._forgotten = self.oldest

    def archived(self, stream: str, key: bytes) -> bytes | None:
        """Return what was archived for a stream under a key, or None.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        found = self._row(
            "SELECT value FROM archive WHERE stream = ? AND key = ?", self._id(stream), key
        )
        return None if found is None else bytes(found[0])

    def history(self, *, after: int, limit: int) -> list[Kept]:
        """Return records of all streams with a number above `after`, the oldest first.

        Raises:
            StoreFailed: If the file cannot be read.
        """
        first = max(after, self.oldest - 1)
        return [Kept(*row) for row in self._rows(sql.HISTORY, first, limit)]

    @property
    def newest(self) -> int:
        """The number of the newest record in the whole journal; 0 before the first."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The number of the oldest record from which on the history is whole."""
        return oldest_of(self._newest)

    def copy(self, path: Path, *, finished: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Copy the journal of one moment to a file that is not there; a step for each `next`.

        Between steps it is read and written as ever. The moment is that of the last step, in which
        `finished` is called: no change comes between.

        Raises:
            StoreFailed: If it cannot be.
        """
        self._check_usable()
        _create_file(path)
        copy = apsw.Connection(str(path))
        try:
            copy.pragma("synchronous", "off")  # A copy that is not finished is worth nothing.
            with self._turn:
                backup = copy.backup("main", self._connection, "main")
            try:
                is_done = False
                while not is_done:
                    with self._turn:
                        is_done = backup.step(_PAGES_COPIED)
                        if is_done:
                            finished()
                    yield
            finally:
                with self._turn:
                    backup.close()
        except apsw.Error as error:
            raise StoreFailed(f"cannot copy {self._path} to {path}: {error}") from error
        finally:
            copy.close()

    def close(self) -> None:
        """Release the file and its lock. Safe to call twice.

        Raises:
            StoreFailed: If SQLite could not close the file. What was appended is durable.
        """
        if self._lock_fd < 0:
            return
        self._failure = f"{self._path} is closed"
        try:
            with self._turn:  # A copy may be on its way, in another thread.
                self._connection.close()
        except apsw.Error as error:
            raise StoreFailed(f"cannot close {self._path}: {error}") from error
        finally:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _prepare(self) -> None:
        # No shared memory file, and no other process even with SQLite's own tools: it counts from
        # the first access on, and only if it comes before that (sqlite.org/wal.html, section 8).
        self._connection.pragma("locking_mode", "exclusive")
        # Nothing is written before the file is known to be ours.
        version = self._checked_version()
        self._connection.pragma("synchronous", "full")
        self._connection.pragma("cache_size", -_PAGES_KIB)
        if not version:
            self._create_schema()
        mode = self._connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise StoreFailed(f"{self._path}: journal mode: expected wal, received {mode}")
        self._connection.pragma("journal_size_limit", _LOG_SIZE_KEPT)
        if version == sql.SCHEMA_BEFORE:
            self._check_health(sql.TABLES_BEFORE)
            self._complete_schema()
        else:
            self._check_health(sql.TABLES)
        self._newest = int(self._connection.execute("SELECT max(number) FROM journal").get or 0)

    def _checked_version(self) -> int:
        """Return the schema's version, 0 of an empty file; refuse what is no journal of ours."""
        pragma = self._connection.pragma
        application_id, version = pragma("application_id"), pragma("user_version")
        n_objects = self._connection.execute("SELECT count(*) FROM sqlite_schema").get
        if (application_id, version, n_objects) == (0, 0, 0):
            return 0
        if application_id != APPLICATION_ID:
            raise StoreFailed(
                f"{self._path} is another program's SQLite file: application id: expected "
                f"{APPLICATION_ID:#x}, received {application_id:#x}"
            )
        if version > sql.SCHEMA_VERSION:
            raise StoreTooNew(
                f"{self._path} was written by a newer version: schema version: expected at most "
                f"{sql.SCHEMA_VERSION}, received {version}"
            )
        if version < sql.SCHEMA_BEFORE:
            raise StoreFailed(
                f"{self._path} is a journal of schema {version}, written by an unreleased version, "
                f"and cannot be read: schema version: expected {sql.SCHEMA_VERSION}"
            )
        return int(version)

    def _create_schema(self) -> None:
        # In one transaction, the two header fields included: a crash leaves all of it or nothing.
        self._execute_all(
            *sql.TABLES,
            f"PRAGMA application_id = {APPLICATION_ID}",
            f"PRAGMA user_version = {sql.SCHEMA_VERSION}",
        )

    def _complete_schema(self) -> None:
        self._execute_all(
            *sql.TABLES_ADDED, sql.WAKE_ALL, f"PRAGMA user_version = {sql.SCHEMA_VERSION}"
        )

    def _execute_all(self, *statements: str) -> None:
        for statement in ("BEGIN EXCLUSIVE", *statements, "COMMIT"):
            self._connection.execute(statement)

    def _check_health(self, expected: tuple[str, ...]) -> None:
        created = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
        schema = tuple(statement for (statement,) in self._connection.execute(created))
        if schema != expected:
            raise StoreFailed(f"{self._path}: schema: expected {expected}, received {schema}")
        verdict = self._connection.pragma("quick_check")
        if verdict != "ok":
            raise StoreDamaged(f"{self._path} is corrupt: {verdict}")

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StoreFailed(self._failure)

    @contextlib.contextmanager
    def _writing(self, action: str) -> Iterator[Callable[[str, Sequence[_Row]], None]]:
        """Give what executes a statement for several rows, in one transaction."""

        def execute_many(statement: str, rows: Sequence[_Row]) -> None:
            self._connection.executemany(statement, rows)

        self._check_usable()
        with self._turn, self._reported(action):
            if len(self._known) > _KNOWN_MAX:
                self._known.clear()  # Now, while all that they say is in the file, too.
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield execute_many
                self._connection.execute("COMMIT")
            except BaseException:
                self._failure = self._failure or f"cannot {action} {self._path}"
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _of(self, stream: str) -> list[int]:
        """Return the number of a stream's name, and how many records it has; zeros without any."""
        known = self._known.get(stream)
        if known is not None:
            return known
        with self._turn:
            found = self._row(sql.KNOWN, stream)
            return [0, 0] if found is None else self._known.setdefault(stream, [*found])

    def _id(self, stream: str) -> int:
        return self._of(stream)[0]

    def _id_of(self, stream: str) -> int:
        """Return the number of a stream's name; a new one gets its own, in this transaction."""
        stream_id = self._id(stream)
        if not stream_id:
            self._connection.execute("INSERT INTO stream (name) VALUES (?)", (stream,))
            stream_id = self._connection.last_insert_rowid()
            self._known[stream] = [stream_id, 0]
        return stream_id

    def _next_of(self, stream: str) -> tuple[int, int]:
        """Return the number of a stream's name, and that of its next record."""
        stream_id = self._id_of(stream)
        known = self._of(stream)
        known[1] += 1
        return stream_id, known[1]

    def _missing(self, stream: str, n: int) -> StoreDamaged:
        return StoreDamaged(f"{self._path}: record {n} of {stream} is missing")

    def _page_after(self, stream: str, position: int, last: int) -> list[tuple[int, bytes]]:
        rows = self._rows(sql.RECORDS, self._id(stream), position, last, _PAGE_RECORDS)
        return [(int(n), bytes(record)) for n, record in rows]

    def _pages(self, query: str, *bindings: int) -> Iterator[_Row]:
        """Yield all rows of a query, a page at a time; they begin with what it goes on from."""
        after = 0
        while page := self._rows(query, *bindings, after, _PAGE_RECORDS):
            after = page[-1][0]
            yield from page

    def _row(self, query: str, *bindings: int | bytes | str) -> _Row | None:
        rows = self._rows(query, *bindings)
        return rows[0] if rows else None

    def _rows(self, query: str, *bindings: int | bytes | str) -> list[_Row]:
        if self._failure is not None:
            raise StoreFailed(self._failure)
        with self._turn:
            try:
                return self._connection.execute(query, bindings).fetchall()
            except (apsw.Error, *_NOT_OURS):
                with self._reported("read"):
                    raise

    @contextlib.contextmanager
    def _reported(self, action: str) -> Iterator[None]:
        """Turn SQLite's errors into ours, and remember that the journal has failed."""
        try:
            yield
        except apsw.NotADBError as error:
            self._failure = f"{self._path} is not an SQLite file"
            raise StoreDamaged(self._failure) from error
        except (apsw.CorruptError, *_NOT_OURS) as error:
            self._failure = f"{self._path} is corrupt: {error}"
            raise StoreDamaged(self._failure) from error
        except (apsw.Error, OSError) as error:
            self._failure = f"cannot {action} {self._path}: {error}"
            number = error.errno if isinstance(error, OSError) else self._system_errno()
            raise kind_of(error, number)(self._failure) from error

    def _system_errno(self) -> int:
        """Return what the system said to SQLite last; where there is no connection, nothing."""
        connection: apsw.Connection | None = getattr(self, "_connection", None)
        return 0 if connection is None else connection.system_errno


def _check_size(what: str, data: bytes, size_max: int) -> None:
    if len(data) > size_max:
        raise ValueError(f"{what} has at most {size_max} bytes, received {len(data)}")


@contextlib.contextmanager
def locked(datadir: Path) -> Iterator[None]:
    """Hold the lock of a data directory without opening its journal; both are made if missing.

    Raises:
        StoreInUse: If a process has the journal open.
        StoreFailed: If the directory cannot be written.
    """
    lock_fd = _take_lock(datadir)
    try:
        yield
    finally:
        os.close(lock_fd)


def is_locked(datadir: Path) -> bool:
    """Say whether a process holds the lock of a data directory. Nothing is made, nor written.

    Raises:
        OSError: If it cannot be asked for.
    """
    try:
        lock_fd = os.open(datadir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock_fd)
    return False


def _take_lock(datadir: Path) -> int:
    path = datadir / LOCK_NAME
    try:
        make_directory(datadir)
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise kind_of(error, error.errno)(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock_fd)
        raise StoreInUse(
            f"{datadir / JOURNAL_NAME} is already in use by another process"
        ) from error
    except OSError as error:
        os.close(lock_fd)
        raise StoreFailed(f"cannot lock {path}: {error.strerror}") from error
    return lock_fd


def _create_file(path: Path) -> None:
    """Make the file with its mode before SQLite would make it with the umask's."""
    file_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(file_fd, FILE_MODE)
        os.fsync(file_fd)
    finally:
        os.close(file_fd)
    sync_directory(path.parent)
