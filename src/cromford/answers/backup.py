"""What keeps a daemon's store safe: backups, its replica, its mark."""

from typing import TypedDict

from cromford.answers.units import Bytes, Count, HexBytes, Seconds, UnixTime


class BackupMade(TypedDict):
    """A backup that was written: where, and what is in it."""

    file: str
    backup_id: HexBytes
    records: Count
    streams: Count
    size: Bytes


class ReplicaState(TypedDict):
    """How far the replica is behind its store.

    `reason` says why it cannot be written; `records` and `written_at` are None before it ever was.
    """

    place: str
    directory: str
    is_reachable: bool
    reason: str | None
    records: Count | None
    behind_records: Count
    behind_seconds: Seconds
    written_at: UnixTime | None


class MarkState(TypedDict):
    """How far the mark is; `reason` says why it cannot be written.

    `needs_begin_mark` where an operator has to say that this store is the newest.
    """

    place: str
    is_reachable: bool
    reason: str | None
    needs_begin_mark: bool
    marked_records: Count | None
    records: Count


class BackupStatus(TypedDict):
    """What keeps a store safe, and what does not.

    `seed` is a fingerprint. `source` is what the store was restored from, empty if it was not;
    `replica` and `mark` are None where none is kept.
    """

    is_running: bool
    seed: HexBytes
    journal_number: Count
    records: Count
    replica: ReplicaState | None
    mark: MarkState | None
    is_restored: bool
    source: str
    warnings: list[str]
