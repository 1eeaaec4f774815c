"""Marking a store as restored: a record in every stream whose channels it concerns."""

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cromford.daemon.backup.high_water import LINE_SIZE, RESTORE_SIZE, HighWater, read_memo
from cromford.daemon.backup.replica_tail import Tail, why_lost
from cromford.ports import Entry, Store
from cromford.protocol.journal.records import StoreRestored, encode_record
from cromford.protocol.journal.streams import CLIENT, HOUSE, factory_number

SOURCE_SIZE_MAX: Final = 200  # Characters.
NO_LINE: Final = b""
NOT_NAMED: Final = bytes(16)  # Of a store that no backup file was restored to.


class RecordsLost(Exception):
    """What came back proves that records are lost: a daemon that runs has to start anew."""


def heeded_of(store: Store) -> Tail | None:
    """Return the tail of the replica for which a store was marked last; None if for none.

    Raises:
        StoreFailed: If it cannot be read.
    """
    memo = read_memo(store)
    return None if memo is None or not memo.heeded[0] else Tail(*memo.heeded)


def mark_if_behind(store: Store, tail: Tail, directory: Path) -> str | None:
    """Mark a store as restored, if its replica proves that it lacks records; say why, or None.

    Once for each replica that does: what follows goes into another generation of it.

    Args:
        store: The store; nobody has read it before.
        tail: The replica's.
        directory: Where that is.

    Raises:
        StoreFailed: If the store cannot be read or written.
    """
    why = None if tail == heeded_of(store) else why_lost(store, tail, directory)
    if why is not None:
        source = f"an older copy: {why}"
        mark_as_restored(store, backup_id=NOT_NAMED, source=source, is_provable=False, heeded=tail)
    return why


def mark_as_restored(
    store: Store,
    *,
    backup_id: bytes,
    source: str,
    known: Iterable[bytes] = (),
    is_provable: bool = True,
    heeded: Tail | None = None,
) -> int:
    """Mark a store as restored, in one append; nobody has read it before.

    It begins a line of its own: the mark of the line that it was copied from stays what it is, and
    may prove that nothing was lost.

    Args:
        store: The store.
        backup_id: What it was restored from.
        source: Where that came from; cut to 200 characters.
        known: Lines whose marks were seen.
        is_provable: Whether a mark may prove that nothing was lost; not where one proves a loss.
        heeded: The tail of the replica that proves it, if one does.

    Returns:
        In how many streams.

    Raises:
        StoreFailed: If it cannot be written.
    """
    source = source[:SOURCE_SIZE_MAX]
    record = encode_record(StoreRestored(backup_id=backup_id, source=source))
    streams = sorted({*(name for name, _ in store.labels()), *store.unlabelled()})
    entries = [Entry(stream, record) for stream in streams if _is_concerned(stream)]
    high_water = HighWater.of(store)
    memo = high_water.memo
    line = secrets.token_bytes(LINE_SIZE)
    # What an earlier restore may have lost, no mark of a later line says.
    before = memo.origins if memo.source else ()
    has_mark = memo.is_kept and not memo.is_left_out
    origin = memo.line if is_provable and has_mark else NO_LINE
    high_water.change(
        line=line,
        known=tuple(dict.fromkeys((*memo.known, *known, line))),
        is_kept=False,
        is_left_out=False,
        noted=(0, b""),
        origins=(*before, origin),
        source=source,
        heeded=memo.heeded if heeded is None else (*heeded,),
        was_proven=False,
        restores=(*memo.restores, (store.newest + 1, secrets.token_bytes(RESTORE_SIZE))),
    )
    store.append(entries, [high_water.grown(entries)])
    return len(entries)


def _is_concerned(stream: str) -> bool:
    """Say whether a stream has channels, or decides about them."""
    return stream in {CLIENT, HOUSE} or factory_number(stream) is not None
