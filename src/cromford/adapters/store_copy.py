"""All rows of a journal's file, and a journal's file of all rows. Nobody else uses it meanwhile."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from cromford.adapters import sqlite_schema as sql
from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.ports import StoreFailed

SCHEMA_VERSION: Final = sql.SCHEMA_VERSION
TABLES: Final = ("stream", "journal", "checkpoint", "archive", "shelf", "wake")
# A column too many, a value twice, a text where a number stands; beside what no column holds.
_REFUSED_ROWS: Final = (apsw.SQLError, apsw.BindingsError, apsw.ConstraintError, apsw.MismatchError)
_ROWS_AT_ONCE: Final = 256
_SIZE_AT_ONCE: Final = 1024 * 1024  # Of values; one row may be larger.
_NEWEST: Final = "SELECT number, record FROM journal ORDER BY number DESC LIMIT 1"
_HEADS: Final = f"SELECT s.name, {sql.HEAD} FROM stream s"  # noqa: S608 - ours

Row = Sequence[Any]


def rows_of(path: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yield all rows of a journal's file, some of one table at a time.

    Raises:
        StoreFailed: If it cannot be read.
    """
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.pragma("locking_mode", "exclusive")
            for table in TABLES:
                yield from ((table, rows) for rows in _batches(connection, table))
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreFailed(f"cannot read {path}: {error}") from error


def _batches(connection: apsw.Connection, table: str) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - one of ours
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(batch) >= _ROWS_AT_ONCE or size >= _SIZE_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def heads_of(path: Path) -> tuple[int, bytes, dict[str, int]]:
    """Return the number and SHA-256 of a journal's newest record, and the heads of its streams.

    Raises:
        StoreFailed: If it cannot be read.
    """
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.pragma("locking_mode", "exclusive")
            found: list[Any] = connection.execute(_NEWEST).fetchall()
            heads: list[Any] = connection.execute(_HEADS).fetchall()
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreFailed(f"cannot read {path}: {error}") from error
    newest, record = found[0] if found else (0, b"")
    digest = hashlib.sha256(record).digest()
    return int(newest), digest, {name: int(head) for name, head in heads}


def n_records_in(datadir: Path) -> int:
    """Return how many records a directory's journal ever had; 0 where there is no journal.

    Whoever asks holds the directory's lock.

    Raises:
        StoreFailed: If it cannot be read.
    """
    path = datadir / JOURNAL_NAME
    return heads_of(path)[0] if path.exists() and path.stat().st_size else 0


def fill(datadir: Path, rows: Iterable[tuple[str, Sequence[Row]]]) -> None:
    """Make the journal of a directory that has none, out of all rows of one.

    Raises:
        ValueError: If the rows are no journal's.
        StoreFailed: If it cannot be written.
    """
    Journal(datadir).close()  # An empty one.
    path = datadir / JOURNAL_NAME
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.pragma("locking_mode", "exclusive")
            connection.execute("BEGIN IMMEDIATE")
            for table, some in rows:
                if table not in TABLES:
                    raise ValueError(f"table: expected one of {TABLES}, received {table:.100}")
                marks = ", ".join("?" * len(some[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", some)  # noqa: S608 - checked
            connection.execute("COMMIT")
        finally:
            connection.close()
    except (*_REFUSED_ROWS, OverflowError, TypeError) as error:
        raise ValueError(f"rows that no journal has: {error}") from error
    except apsw.Error as error:
        raise StoreFailed(f"cannot write {path}: {error}") from error
