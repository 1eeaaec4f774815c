"""The journal in one SQLite file: append-only, durable before an append returns.

The write-ahead log is synced at every commit (`synchronous=FULL`; NORMAL may lose the last
commits with the power, and a lost revocation costs money). One process at a time: a lock file
beside the journal is held with `flock`, which the kernel releases however the process ends.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import apsw

from cromford.ports import StoreFailed, StoreInUse

JOURNAL_NAME: Final = "journal.sqlite"
LOCK_NAME: Final = "journal.lock"
APPLICATION_ID: Final = 0x43524D46  # "CRMF", in the header of every journal
SCHEMA_VERSION: Final = 1
RECORD_SIZE_MAX: Final = 64 * 1024 * 1024  # Far above any record, far below SQLite's own limit.
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600  # The journal holds transactions that can be broadcast.
_PAGE_RECORDS: Final = 256  # Records read at a time, so that a replay holds few in memory.

_CREATE_TABLE: Final = "CREATE TABLE journal (id INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT"


class Journal:
    """The journal of one data directory. Implements `ports.Store`.

    Once an append has failed, every later one fails too: what the failed one left on the disk is
    only known to the next opening, so the process has to stop.
    """

    def __init__(self, datadir: Path) -> None:
        """Open the journal in `datadir`, and make both if they are missing.

        Raises:
            StoreInUse: If another process holds it.
            StoreFailed: If it is another program's file, a newer version's, or damaged; or if the
                directory cannot be written.
        """
        self._path = datadir / JOURNAL_NAME
        self._failure: str | None = None
        with contextlib.ExitStack() as undo:
            self._lock_fd = _take_lock(datadir)
            undo.callback(os.close, self._lock_fd)
            with self._reported("open"):
                _create_file(self._path)
                self._connection = apsw.Connection(str(self._path))
                undo.callback(self._connection.close)
                self._prepare()
            undo.pop_all()

    def append(self, records: Sequence[bytes]) -> None:
        """Append all of `records` or none, durable when this returns.

        Raises:
            ValueError: If a record exceeds `RECORD_SIZE_MAX`; nothing is written then.
            StoreFailed: If the disk refused. The records may or may not be there: stop.
        """
        for record in records:
            if len(record) > RECORD_SIZE_MAX:
                raise ValueError(
                    f"a record has at most {RECORD_SIZE_MAX} bytes, received {len(record)}"
                )
        if self._failure is not None:
            raise StoreFailed(self._failure)
        if not records:
            return
        with self._reported("append to"):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT INTO journal (record) VALUES (?)", [(record,) for record in records]
                )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def replay(self) -> Iterator[bytes]:
        """Yield every record appended before the first one is asked for, in order.

        Raises:
            StoreFailed: If the file cannot be read, or a record is missing from the sequence.
        """
        last_id = self._last_id()
        position = 0
        while position < last_id:
            page = self._page_after(position, last_id)
            for record_id, record in page:
                position += 1
                if record_id != position:
                    raise StoreFailed(f"{self._path}: record {position} is missing")
                yield record
            if not page:
                raise StoreFailed(f"{self._path}: record {position + 1} is missing")

    def close(self) -> None:
        """Release the file and its lock. Safe to call twice.

        Raises:
            StoreFailed: If SQLite could not close the file. What was appended is durable.
        """
        if self._lock_fd < 0:
            return
        self._failure = f"{self._path} is closed"
        try:
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
        # Nothing is written before the file is known to be ours.
        is_new = self._check_identity()
        # No shared memory file, and no other process even with SQLite's own tools.
        self._connection.pragma("locking_mode", "exclusive")
        self._connection.pragma("synchronous", "full")
        if is_new:
            self._create_schema()
        mode = self._connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise StoreFailed(f"{self._path}: journal mode: expected wal, received {mode}")
        self._check_health()

    def _check_identity(self) -> bool:
        """Say whether the file is still empty; refuse one that is not a journal of ours."""
        pragma = self._connection.pragma
        application_id, version = pragma("application_id"), pragma("user_version")
        n_objects = self._connection.execute("SELECT count(*) FROM sqlite_schema").get
        if (application_id, version, n_objects) == (0, 0, 0):
            return True
        if application_id != APPLICATION_ID:
            raise StoreFailed(
                f"{self._path} is another program's SQLite file: application id: expected "
                f"{APPLICATION_ID:#x}, received {application_id:#x}"
            )
        if version > SCHEMA_VERSION:
            raise StoreFailed(
                f"{self._path} was written by a newer version: schema version: expected at most "
                f"{SCHEMA_VERSION}, received {version}"
            )
        if version != SCHEMA_VERSION:
            raise StoreFailed(
                f"{self._path}: schema version: expected {SCHEMA_VERSION}, received {version}"
            )
        return False

    def _create_schema(self) -> None:
        # In one transaction, the two header fields included: a crash leaves all of it or nothing.
        execute = self._connection.execute
        execute("BEGIN EXCLUSIVE")
        execute(_CREATE_TABLE)
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        execute("COMMIT")

    def _check_health(self) -> None:
        schema = self._connection.execute("SELECT sql FROM sqlite_schema").get
        if schema != _CREATE_TABLE:
            raise StoreFailed(f"{self._path}: schema: expected {_CREATE_TABLE}, received {schema}")
        verdict = self._connection.pragma("quick_check")
        if verdict != "ok":
            raise StoreFailed(f"{self._path} is corrupt: {verdict}")

    def _last_id(self) -> int:
        if self._failure is not None:
            raise StoreFailed(self._failure)
        with self._reported("read"):
            last_id = self._connection.execute("SELECT max(id) FROM journal").get
            return int(last_id or 0)

    def _page_after(self, position: int, last_id: int) -> list[tuple[int, bytes]]:
        with self._reported("read"):
            return list(
                self._connection.execute(
                    "SELECT id, record FROM journal WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                    (position, last_id, _PAGE_RECORDS),
                )
            )

    @contextlib.contextmanager
    def _reported(self, action: str) -> Iterator[None]:
        """Turn SQLite's errors into ours, and remember that the journal has failed."""
        try:
            yield
        except apsw.NotADBError as error:
            self._failure = f"{self._path} is not an SQLite file"
            raise StoreFailed(self._failure) from error
        except apsw.CorruptError as error:
            self._failure = f"{self._path} is corrupt: {error}"
            raise StoreFailed(self._failure) from error
        except (apsw.Error, OSError) as error:
            self._failure = f"cannot {action} {self._path}: {error}"
            raise StoreFailed(self._failure) from error


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


def _take_lock(datadir: Path) -> int:
    path = datadir / LOCK_NAME
    try:
        make_directory(datadir)
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise StoreFailed(f"cannot open {path}: {error.strerror}") from error
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


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durably; readable by the owner only.

    Raises:
        OSError: If one cannot be made.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Let a new name survive the loss of power, as its contents do."""
    directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)
