"""What an operator is told about a store's safety, whether its daemon runs or not."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cromford import told

RESTORED: Final = (
    "this store was restored: what came after its backup may be lost. Its channels take no update, "
    "and no commitment of ours is published. They can only be closed: a client asks its LSP, an "
    "LSP runs `lsp close`"
)

# What to do where a backup cannot be written.
BACKUP_ELSEWHERE: Final = "Name a file outside of the data directory, best on another disk."
CANNOT_WRITE: Final = "Nothing was left there. Name a file in a directory that can be written."
MARK_LEFT_OUT: Final = (
    "the store had a mark, and is run without --mark-dir: an old copy that is put back would not "
    "be found out"
)


def of_another_journal(directory: Path) -> str:
    """Return what is to be said of a replica of another journal of the seed."""
    return (
        f"{directory} is the replica of another journal of this seed, and nothing of it can be "
        "left with this store: where it lives, stop the daemon, move the journal away, and put "
        "that one back with `backup restore`; else remove it"
    )


def why_behind(newest: int, *, number: int, holder: str) -> str:
    """Return why a store lacks records: it ends before one that somebody else knows.

    Args:
        newest: The store's newest record.
        number: The other one.
        holder: Who knows it, and where.
    """
    lost = told.counted(number - newest, "record is", "records are")
    return f"{lost} lost: the store has {newest}, and record {number} is in {holder}"


def reason_of(error: Exception) -> str:
    """Return why a place could not be read or written, in words and without a number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def reason_at(place: Path, error: Exception) -> str:
    """Return why a place could not be read or written, naming the place once."""
    reason = reason_of(error)
    return reason if str(place) in reason else f"{place}: {reason}"


def warnings_of(
    replica: Mapping[str, Any] | None, mark: Mapping[str, Any] | None, source: str
) -> Iterator[str]:
    """Yield what is to be said of a replica and a mark, as they are shown; None of each missing.

    Args:
        replica: How far the replica is.
        mark: How far the mark is.
        source: What the store was restored from; empty if it was not.
    """
    if replica is None:
        yield (
            "no replica is kept: who loses the data directory loses every channel. See --backup-dir"
        )
    elif replica.get("reason"):
        yield f"the replica is not written: {replica['reason']}"
    if mark is None:
        yield (
            "no mark is kept: nothing can prove that a restored store lost no record, so its "
            "channels could only close. See --mark-dir"
        )
    elif mark.get("reason"):
        yield f"no channel is updated: {mark['reason']}"
    if source:
        yield f"{RESTORED} (restored from {source})"
