"""The place of a store's marks: what is found there says what the store is.

    <directory>/<role>-<network>-<seed>-<journal>/<line>.mark

A mark is never lowered and never removed here. A line that the store never heard of is a copy of
it that went on: then this one is behind, whatever the numbers say.
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cromford.daemon.backup.high_water import LINE_SIZE, HighWater, HighWaterMark, MarkSays
from cromford.daemon.backup.holding import HeldDirectory
from cromford.daemon.backup.mark_file import SUFFIX, BadMark, MarkFile
from cromford.daemon.backup.places import is_within
from cromford.daemon.backup.said import why_behind

_log = logging.getLogger(__name__)


class StoreIs(Enum):
    """What the marks in a place say of a store."""

    CURRENT = "current"  # The line's mark is contained, or is begun now.
    PROVEN = "proven"  # It was restored, and lost nothing.
    LOST = "lost"  # Records are missing, or it is a copy of one that went on.
    MISSING = "missing"  # There was a mark, and there is none.
    UNKNOWN = "unknown"  # It is too far behind to be compared.


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, with what is to be said of it."""

    verdict: StoreIs
    why: str = ""


class MarkPlace:
    """Where the marks of one store are.

    Args:
        directory: That of all stores.
        name: The store's.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._held = HeldDirectory(directory, name)
        self.root = directory
        self.directory = self._held.path

    def file(self, line: bytes) -> MarkFile:
        """Return the file of a line's mark."""
        return MarkFile(self.directory / f"{line.hex()}{SUFFIX}")

    def open(self) -> None:
        """Make the store's directory where it is missing, and hold it for this process.

        Where a place has no locks, what is written there is compared before each write.

        Raises:
            OSError: If the place is not there, cannot be written, or another process holds it.
        """
        self._held.hold()

    def close(self) -> None:
        """Let another process have it."""
        self._held.let_go()

    def lines(self) -> tuple[bytes, ...]:
        """Return the lines that have a mark here.

        Raises:
            OSError: If the place cannot be read.
        """
        found = []
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            with contextlib.suppress(ValueError):
                found.append(bytes.fromhex(path.stem))
        return tuple(line for line in found if len(line) == LINE_SIZE)

    def read(self) -> dict[bytes, HighWaterMark | None]:
        """Return the marks that are here, by line; None of one that cannot be read.

        Raises:
            OSError: If the place cannot be read.
        """
        found: dict[bytes, HighWaterMark | None] = {}
        for line in self.lines():
            try:
                found[line] = self.file(line).read()
            except BadMark:
                found[line] = None
        return found


def judge(
    high_water: HighWater, marks: Mapping[bytes, HighWaterMark | None], where: Path
) -> Judged:
    """Say what the marks in a place say of a store.

    Args:
        high_water: The store's chain.
        marks: By line; None of one that cannot be read.
        where: The store's directory in the place.

    Raises:
        StoreFailed: If the store cannot be read.
    """
    memo = high_water.memo
    if any(line not in memo.known for line in marks):
        why = f"{where} has the mark of another copy of this store, which went on"
        return Judged(StoreIs.LOST, why)
    own = _judge_own(high_water, marks, where)
    if own.verdict is not StoreIs.CURRENT:
        # What was marked since it was restored may be lost, whatever it was restored from.
        return own
    if memo.source and all(_is_reached(high_water, marks.get(one)) for one in memo.origins):
        if not _is_one_place(where, memo.source):
            return Judged(StoreIs.PROVEN)
        _log.warning("mark_proves_nothing reason=%s", f"its place had the backup, {memo.source}")
    return own


def _is_reached(high_water: HighWater, mark: HighWaterMark | None) -> bool:
    return mark is not None and high_water.standing(mark) is MarkSays.CONTAINED


def _is_one_place(where: Path, source: str) -> bool:
    """Say whether a backup came from where the marks are: what is stale there is stale together."""
    place, backup = where.parent, Path(source)
    return is_within(backup, place) or is_within(place, backup)


def _judge_own(
    high_water: HighWater, marks: Mapping[bytes, HighWaterMark | None], where: Path
) -> Judged:
    """Say what a store's own mark says of it."""
    memo = high_water.memo
    if memo.line not in marks:
        why = f"{where} has no mark of this store, and had one"
        return Judged(StoreIs.MISSING, why) if memo.is_kept else Judged(StoreIs.CURRENT)
    mark = marks[memo.line]
    if mark is None:
        return Judged(StoreIs.UNKNOWN, f"the mark in {where} is damaged")
    match high_water.standing(mark):
        case MarkSays.CONTAINED:
            return Judged(StoreIs.CURRENT)
        case MarkSays.LEADS:
            newest = high_water.position.number
            why = why_behind(newest, number=mark.number, holder=f"the mark in {where}")
            return Judged(StoreIs.LOST, why)
        case MarkSays.DIFFERS:
            why = f"record {mark.number} is not the one that was marked in {where}"
            return Judged(StoreIs.LOST, why)
        case MarkSays.UNKNOWN:
            why = (
                f"the mark in {where} is of record {mark.number}, and the records that would tell "
                "whether it is this store's are gone"
            )
            return Judged(StoreIs.UNKNOWN, why)
