"""The tables of a journal in SQLite, and what is asked of them. See `sqlite`."""

from typing import Final

SCHEMA_VERSION: Final = 3
SCHEMA_BEFORE: Final = 2  # A journal of this one gets what it lacks as it is opened.

# `number` counts the records of the whole journal. The newest is never deleted, so that no number
# is given twice.
STREAM: Final = "CREATE TABLE stream (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT"
JOURNAL: Final = (
    "CREATE TABLE journal (number INTEGER PRIMARY KEY, stream INTEGER NOT NULL, "
    "n INTEGER NOT NULL, record BLOB NOT NULL, UNIQUE (stream, n)) STRICT"
)
CHECKPOINT: Final = (
    "CREATE TABLE checkpoint (stream INTEGER PRIMARY KEY, n INTEGER NOT NULL, "
    "label BLOB NOT NULL, snapshot BLOB NOT NULL) STRICT"
)
ARCHIVE: Final = (
    "CREATE TABLE archive (stream INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, "
    "PRIMARY KEY (stream, key)) STRICT, WITHOUT ROWID"
)
ROW: Final = (
    "CREATE TABLE shelf (stream INTEGER NOT NULL, name TEXT NOT NULL, key BLOB NOT NULL, "
    "value BLOB NOT NULL, PRIMARY KEY (stream, name, key)) STRICT, WITHOUT ROWID"
)
WAKE: Final = "CREATE TABLE wake (stream INTEGER PRIMARY KEY, height INTEGER NOT NULL) STRICT"
WAKE_ORDER: Final = "CREATE INDEX wake_order ON wake (height)"
TABLES_BEFORE: Final = (STREAM, JOURNAL, CHECKPOINT, ARCHIVE)  # Of schema 2.
TABLES_ADDED: Final = (ROW, WAKE, WAKE_ORDER)
TABLES: Final = (*TABLES_BEFORE, *TABLES_ADDED)
# Until which height a stream sleeps lay in its label, which is not ours to read: it is looked at.
WAKE_ALL: Final = "INSERT INTO wake SELECT stream, 0 FROM checkpoint WHERE length(label) > 0"
HEAD: Final = (
    "max(ifnull((SELECT max(n) FROM journal j WHERE j.stream = s.id), 0), "
    "ifnull((SELECT n FROM checkpoint h WHERE h.stream = s.id), 0))"
)
KNOWN: Final = f"SELECT s.id, {HEAD} FROM stream s WHERE s.name = ?"  # noqa: S608 - ours
HAS_LABEL: Final = (
    "length(c.label) > 0 AND "
    "c.n >= ifnull((SELECT max(n) FROM journal j WHERE j.stream = c.stream), 0)"
)
LABEL: Final = (
    "SELECT c.label FROM stream s JOIN checkpoint c ON c.stream = s.id "  # noqa: S608 - ours
    f"WHERE s.name = ? AND {HAS_LABEL}"
)
LABELS: Final = (
    "SELECT s.id, s.name, c.label FROM checkpoint c JOIN stream s ON s.id = c.stream "  # noqa: S608 - ours
    f"WHERE s.id > ? AND {HAS_LABEL} ORDER BY s.id LIMIT ?"
)
UNLABELLED: Final = (
    "SELECT s.id, s.name FROM stream s WHERE s.id > ? AND NOT EXISTS "  # noqa: S608 - ours
    f"(SELECT 1 FROM checkpoint c WHERE c.stream = s.id AND {HAS_LABEL}) ORDER BY s.id LIMIT ?"
)
# By the order of heights: what is far from due is not looked at.
DUE: Final = (
    "SELECT w.stream, s.name FROM wake w JOIN checkpoint c ON c.stream = w.stream "  # noqa: S608 - ours
    "JOIN stream s ON s.id = w.stream "
    f"WHERE w.height <= ? AND +w.stream > ? AND {HAS_LABEL} ORDER BY +w.stream LIMIT ?"
)
LYING: Final = "SELECT value FROM shelf WHERE stream = ? AND name = ? AND key = ?"
KEYS_AT_ONCE: Final = 256
LYING_OF: Final = (
    "SELECT key, value FROM shelf WHERE stream = ? AND name = ? AND key IN "  # noqa: S608 - ours
    f"({', '.join('?' * KEYS_AT_ONCE)})"
)
ROWS: Final = (
    "SELECT key, value FROM shelf WHERE stream = ? AND name = ? AND key >= ? ORDER BY key LIMIT ?"
)
RECORDS: Final = (
    "SELECT n, record FROM journal WHERE stream = ? AND n > ? AND n <= ? ORDER BY n LIMIT ?"
)
HISTORY: Final = (
    "SELECT j.number, s.name, j.record FROM journal j JOIN stream s ON s.id = j.stream "
    "WHERE j.number > ? ORDER BY j.number LIMIT ?"
)
FORGET: Final = "DELETE FROM journal WHERE stream = ? AND n <= ? AND number < ?"
# What was the newest of all when its stream's checkpoint was taken, and is so no more.
FORGET_LEFT: Final = (
    "DELETE FROM journal WHERE number IN (SELECT j.number FROM checkpoint c "
    "JOIN journal j ON j.stream = c.stream AND j.n <= c.n WHERE j.number < ?)"
)
FORGET_LEFT_EVERY: Final = 1_000  # Records: it looks at every stream.
