"""The high-water mark while a daemon runs: raised after each commit, before what follows from it.

Order: journal, mark, effect. While the place does not take a mark, no channel is updated (the fact
`unmarkable`), and what was decided meanwhile is not said to peers; it is tried again by itself. The
journal and its memo belong to the thread that commits, and so does all of this but what is only
looked at.
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cromford.answers.backup import MarkState
from cromford.daemon.backup.asking import Asker
from cromford.daemon.backup.high_water import LINE_SIZE, HighWater, HighWaterMark, Memo
from cromford.daemon.backup.mark_file import BadMark, MarkFile, MarkMoved
from cromford.daemon.backup.mark_place import Judged, MarkPlace, StoreIs, judge
from cromford.daemon.backup.restored import NOT_NAMED, RecordsLost, mark_as_restored
from cromford.daemon.backup.said import reason_at
from cromford.ports import Archived, Entry, Store

ANSWER_SECONDS: Final = 5.0  # That a place may take, until it counts as unreachable.
RETRY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class _NeedsWord(Exception):
    """An operator has to say that this store is the newest."""


class Marks:
    """The marks of one store, in one place.

    The store may be marked as restored by this, so it is made before the store is read.

    Attributes:
        unmarkable: Why no mark can be written now; None while one can.
        is_current: Whether all that is durable in the journal is marked.
        is_proven: Whether the place proves that a restored store lost nothing.
        changed: Told, by the thread that commits, when `unmarkable` becomes None, or something.

    Args:
        store: The journal.
        place: Where its marks are.
        asker: Asks the place.
        retry_seconds: After how long it is asked again.
        clock: Seconds that never go back.

    Raises:
        StoreFailed: If the journal cannot be read or written.
    """

    def __init__(
        self,
        store: Store,
        place: MarkPlace,
        asker: Asker,
        *,
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._place = place
        self._asker = asker
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._water = HighWater.of(store)
        self._file: MarkFile | None = None
        self._marked: HighWaterMark | None = None
        self._failed_at: float | None = None
        self._begins_anew = False
        self._is_proof_kept = False
        self._may_mark_store = True
        self.unmarkable: str | None = None
        self.is_current = False
        self.is_proven = False
        self.needs_word = False
        self.changed: Callable[[], None] = lambda: None
        self.cover()
        self._may_mark_store = False  # From now on it is read.

    @property
    def memo(self) -> Memo:
        """What the store knows of its marks."""
        return self._water.memo

    def shown(self) -> MarkState:
        """Return the mark as plain data."""
        marked, position = self._marked, self._water.position
        return {
            "place": str(self._place.root),
            "is_reachable": self.unmarkable is None,
            "reason": self.unmarkable,
            "needs_begin_mark": self.needs_word,
            "marked_records": None if marked is None else marked.number,
            "records": position.number,
        }

    def begin_anew(self) -> None:
        """Let the next `cover` begin a new mark: an operator says that this store is the newest."""
        self._begins_anew = True

    def proof_is_kept(self) -> None:
        """Let the store forget that it was restored; what lifts its marks is durable by now."""
        self._is_proof_kept = True

    def grown(self, entries: Sequence[Entry]) -> Archived:
        """Return what is to be kept with records that are appended now."""
        return self._water.grown(entries)

    def cover(self) -> bool:
        """Mark what is durable by now, and say whether it is marked.

        Raises:
            RecordsLost: If a place that is back proves that records are lost.
            StoreFailed: If the journal cannot be read or written.
        """
        self.is_current = False
        if self._is_proof_kept and self.memo.source:
            restores = self.memo.restores_if_proven
            self._water.change(source="", origins=(), was_proven=True, restores=restores)
        if self._may_try():
            try:
                self._mark()
            except (OSError, BadMark, MarkMoved, ValueError, _NeedsWord) as error:
                self._failed_at = self._clock()
                self._file = None  # What is there is judged again, before more is written there.
                self._turn_to(reason_at(self._place.root, error))
            else:
                self._failed_at = None
                self.is_current = True
                self._turn_to(None)
        return self.is_current

    def close(self) -> None:
        """Let another process have the place."""
        self._asker.close()
        self._place.close()

    def _may_try(self) -> bool:
        """Say whether it is worth asking: a place that is away is not asked at each commit."""
        is_due = self._failed_at is None or self._clock() >= self._failed_at + self._retry_seconds
        return is_due or self._begins_anew

    def _turn_to(self, unmarkable: str | None) -> None:
        before, self.unmarkable = self.unmarkable, unmarkable
        if unmarkable is not None and before is None:
            _log.error("mark_unreachable reason=%s", unmarkable)
        elif unmarkable is None and before is not None:
            _log.warning("mark_reachable_again place=%s", self._place.root)
        if (before is None) != (unmarkable is None):
            self.changed()

    def _mark(self) -> None:
        begins_anew, self._begins_anew = self._begins_anew, False
        if self._file is None or begins_anew:
            self._file = self._opened(begins_anew=begins_anew)
        file, position = self._file, self._water.position
        if position == self._marked and self.unmarkable is None:
            return
        self._asker.ask(lambda: file.write(position))
        self._marked = position
        self._water.change(noted=(*position,), is_left_out=False)

    def _opened(self, *, begins_anew: bool) -> MarkFile:
        """Look at what is there, once in a run; what has to be begun is begun."""

        def look() -> Mapping[bytes, HighWaterMark | None]:
            self._place.open()
            return self._place.read()

        marks = self._asker.ask(look)
        judged = judge(self._water, marks, self._place.directory)
        self.needs_word = judged.verdict in {StoreIs.MISSING, StoreIs.UNKNOWN}
        if judged.verdict is StoreIs.LOST:
            self._take_as_restored(judged, marks)
        elif self.needs_word and not begins_anew:
            raise _NeedsWord(
                f"{judged.why}. Was it emptied, or is a file system not mounted? Only if this "
                "store is the newest there is, begin a new mark: `backup begin-mark`"
            )
        elif judged.verdict is StoreIs.PROVEN:
            self.is_proven = True
            self._water.change(line=self.memo.origins[-1], is_kept=True)
        elif begins_anew or not self.memo.line:
            self._begin_line(marks)
        self.is_proven = self.is_proven or self.memo.was_proven
        self.needs_word = False
        file = self._place.file(self.memo.line)
        if self._asker.ask(file.read) is None:
            self._begin(file)
        elif not self.memo.is_kept:
            self._water.change(is_kept=True)
        return file

    def _begin_line(self, marks: Mapping[bytes, HighWaterMark | None]) -> None:
        line = secrets.token_bytes(LINE_SIZE)
        known = tuple(dict.fromkeys((*self.memo.known, *marks, line)))
        self._water.change(line=line, known=known, is_kept=False, noted=(0, b""))

    def _begin(self, file: MarkFile) -> None:
        """Make the line's file. The store knows of the line first, durably, and then that it is."""
        self._keep_memo()
        position = self._water.position
        self._asker.ask(lambda: file.begin(position))
        self._water.change(is_kept=True)
        self._keep_memo()

    def _keep_memo(self) -> None:
        self._store.append([], [self._water.written()])

    def _take_as_restored(
        self, judged: Judged, marks: Mapping[bytes, HighWaterMark | None]
    ) -> None:
        if not self._may_mark_store:
            raise RecordsLost(judged.why)
        source = f"an older copy: {judged.why}"
        mark_as_restored(
            self._store, backup_id=NOT_NAMED, source=source, known=marks, is_provable=False
        )
        _log.critical("store_marked reason=%s", judged.why)
        self._water = HighWater.of(self._store)
