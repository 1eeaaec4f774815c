"""The replica: every change of a store follows it to a second place; soon, not before effects.

A thread encodes and writes, so that a place that is slow, full or away stalls nobody. What it
could not write it does not hold for ever: beyond `WAITING_MAX_BYTES`, or after a failed write, the
replica begins again with a base, once its place takes one.
"""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cromford.adapters.directories import sync_directory
from cromford.adapters.sealed import BadFile, SealedWriter
from cromford.adapters.sqlite import Journal
from cromford.answers.backup import ReplicaState
from cromford.daemon.backup.contents import Frame, appended, encode_frame, replaced
from cromford.daemon.backup.header import SEGMENT, Owner, begin_file
from cromford.daemon.backup.holding import HeldDirectory
from cromford.daemon.backup.making import PARTIAL, copied, write_backup
from cromford.daemon.backup.replica_files import (
    ReplicaFiles,
    generations_in,
    store_name,
    stores_in,
)
from cromford.daemon.backup.replica_tail import contains, tail_in, tail_of, why_lost
from cromford.daemon.backup.restored import RecordsLost, heeded_of
from cromford.daemon.backup.said import reason_at, reason_of
from cromford.ports import Archived, Checkpoint, Entry, StoreFailed

WAITING_MAX_BYTES: Final = 32 * 1024 * 1024
COMPACT_MIN_BYTES: Final = 4 * 1024 * 1024  # Segments that are always read rather than a base made.
RETRY_SECONDS: Final = 10.0
RETRY_TIMES: Final = 9  # A base that fails is a whole copy: a tenth of the time at most goes to it.
CLOSING_SECONDS: Final = 3.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Shared:
    """What the journal's threads and the replica's share, under one lock."""

    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)  # with the newest number then
    n_bytes: int = 0
    needs_base: bool = False
    is_closing: bool = False
    since: float | None = None  # When the oldest change came that is not there yet.


class Replica:
    """Implements `ports.Observer`: the journal's, while the daemon runs.

    Attributes:
        others: Where the place had replicas of other journals of the seed, once it was looked at:
            this one may have been begun because theirs was lost.

    Args:
        store: The journal. Nobody may have written to it since it was opened, but for what is
            appended before this is made.
        home: Its directory.
        directory: The second place.
        owner: Whose it is.
        journal_number: The journal's number.
        now: Seconds since 1970, UTC.
        retry_seconds: After how long a place that failed is tried again, at the soonest.
    """

    def __init__(
        self,
        store: Journal,
        home: Path,
        directory: Path,
        owner: Owner,
        *,
        journal_number: int,
        now: Callable[[], float] = time.time,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._store = store
        self._home = home
        self._root = directory
        self._held = HeldDirectory(directory, store_name(owner, journal_number))
        self._directory = self._held.path
        self._owner = owner
        self._journal_number = journal_number
        self._now = now
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._shared = _Shared()
        self._beginning = tail_of(store)
        self._files: ReplicaFiles | None = None
        self._base_id = b""
        self._base_size = 0
        self._segments_size = 0
        self._n_segments = 0
        self._writer: SealedWriter | None = None
        self._removable: set[int] = set()
        self._lost: str | None = None
        self.others: tuple[Path, ...] = ()
        self.failure: str | None = None
        self.reached: int | None = None  # The newest record that is there.
        self.reached_at: float | None = None
        store.observer = self
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)
        self._thread.start()

    # By whoever changes the journal, which is held meanwhile

    def appended(self, number: int, entries: Sequence[Entry], archived: Sequence[Archived]) -> None:
        """Take note of records.

        Raises:
            RecordsLost: If the place was away at the start, and proves now that records are lost.
        """
        if self._lost is not None:
            raise RecordsLost(self._lost)
        newest = number + len(entries) - 1
        self._take(newest, appended(number, entries, archived))

    def replaced(self, checkpoint: Checkpoint) -> None:
        """Take note of a checkpoint."""
        self._take(self._store.newest, replaced(checkpoint))

    def _take(self, newest: int, frame: Frame) -> None:
        with self._changed:
            shared = self._shared
            if shared.since is None:
                shared.since = self._now()
            if shared.needs_base:
                return  # A base will have it.
            data = encode_frame(frame)
            shared.waiting.append((newest, data))
            shared.n_bytes += len(data)
            if shared.n_bytes > WAITING_MAX_BYTES:
                self._drop_waiting()
            self._changed.notify_all()

    def _drop_waiting(self) -> None:
        self._shared.waiting.clear()
        self._shared.n_bytes = 0
        self._shared.needs_base = True

    # By the daemon

    def shown(self) -> ReplicaState:
        """Return how far the replica is, as plain data."""
        since, now = self._shared.since, self._now()
        newest = self._store.newest
        return {
            "place": str(self._root),
            "directory": str(self._directory),
            "is_reachable": self.failure is None,
            "reason": self.failure,
            "records": self.reached,
            "behind_records": newest - (self.reached or 0),
            "behind_seconds": 0 if since is None else max(0, int(now - since)),
            "written_at": None if self.reached_at is None else int(self.reached_at),
        }

    def close(self) -> None:
        """End, once what waits is written; a place that hangs is not waited for."""
        with self._changed:
            self._shared.is_closing = True
            self._changed.notify_all()
        self._thread.join(CLOSING_SECONDS)
        self._held.let_go()

    # In the thread

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            self._close_segment()

    def _follow(self) -> None:
        is_examined = False
        while True:
            began: float | None = None
            try:
                if not is_examined:
                    self._examine()
                    is_examined = True
                if self._shared.needs_base:
                    began = time.monotonic()
                    self._make_base()
                    began = None
                if not self._write_waiting():
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, memory, say, it may pass
                self._give_up(error)
                spent = 0.0 if began is None else time.monotonic() - began
                if self._is_over(max(self._retry_seconds, RETRY_TIMES * spent)):
                    return

    def _write_waiting(self) -> bool:
        """Wait for changes, and write them; say whether to go on."""
        with self._changed:
            shared = self._shared
            self._changed.wait_for(lambda: shared.waiting or shared.needs_base or shared.is_closing)
            waiting = [*shared.waiting]
            shared.waiting.clear()
            shared.n_bytes = 0
            if shared.needs_base:
                return not shared.is_closing
            if not waiting:
                return False  # It is over, and all is there.
            since = shared.since
        writer = self._writer or self._begin_segment()
        before = writer.size
        for _, data in waiting:
            writer.write(data)
        writer.flush()
        self._segments_size += writer.size - before
        self._reach(waiting[-1][0], since)
        if self._segments_size > max(COMPACT_MIN_BYTES, self._base_size):
            with self._changed:
                self._drop_waiting()
        return True

    def _begin_segment(self) -> SealedWriter:
        if self._files is None:
            raise AssertionError("a segment follows a base")
        self._n_segments += 1
        self._writer, _ = begin_file(
            self._files.segment(self._n_segments),
            self._owner,
            kind=SEGMENT,
            journal_number=self._journal_number,
            unix_time=int(self._now()),
            base=self._base_id,
            index=self._n_segments,
        )
        sync_directory(self._directory)
        return self._writer

    def _reach(self, newest: int, since: float | None) -> None:
        with self._changed:
            was, self.failure = self.failure, None
            self.reached, self.reached_at = newest, self._now()
            if not self._shared.waiting and not self._shared.needs_base:
                self._shared.since = None
            elif self._shared.since == since:
                self._shared.since = self._now()
        if was is not None:
            _log.warning("replica_goes_on place=%s records=%d", self._root, newest)

    def _give_up(self, error: Exception) -> None:
        if self.failure is None:
            is_foreseen = isinstance(error, OSError | StoreFailed | BadFile)
            _log.error(
                "replica_failed place=%s reason=%s",
                self._root,
                reason_of(error),
                exc_info=None if is_foreseen else error,
            )
        self.failure = reason_at(self._root, error)
        self._close_segment()
        with self._changed:
            self._drop_waiting()

    def _is_over(self, seconds: float) -> bool:
        """Rest before the next try; say whether the daemon ended meanwhile."""
        with self._changed:
            return self._changed.wait_for(lambda: self._shared.is_closing, timeout=seconds)

    def _close_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()

    # What is there when a daemon starts

    def _examine(self) -> None:
        """Find out whether the replica ends where the store began: then it goes on from there."""
        self._held.hold()
        for path in self._directory.glob(f"*{PARTIAL}*"):
            path.unlink(missing_ok=True)
        self.others = tuple(
            path for path in stores_in(self._root, self._owner) if path != self._directory
        )
        for path in self.others:
            _log.warning("replica_of_another_journal directory=%s", path)
        generations = generations_in(self._directory)
        for generation in generations:
            files = ReplicaFiles(self._directory, generation)
            try:
                tail, base_id = tail_in(files, self._owner)
            except BadFile as bad:
                _log.warning("replica_unreadable generation=%d reason=%s", generation, bad)
                continue
            if contains(self._store, tail):
                self._removable.add(generation)
            if generation != generations[-1]:
                continue
            if tail == self._beginning:
                segments, unbegun = files.begun_segments()
                if unbegun is not None:
                    unbegun.unlink()  # The next segment takes its place.
                self._files, self._base_id = files, base_id
                self._base_size = files.base.stat().st_size
                self._n_segments = len(segments)
                self._segments_size = sum(path.stat().st_size for path in segments)
                self._removable.discard(generation)
                self._reach(tail.number, None)
            elif tail != heeded_of(self._store):
                self._lost = why_lost(self._store, tail, self._directory)
                if self._lost is not None:
                    raise BadFile(self._lost)  # No base of ours may come after what it proves.
        if self._files is None:
            with self._changed:
                self._drop_waiting()

    # A base

    def _make_base(self) -> None:
        self._held.hold()
        self._close_segment()
        generations = generations_in(self._directory)
        files = ReplicaFiles(self._directory, max(generations, default=0) + 1)
        partial = files.base.with_name(f"{files.base.name}{PARTIAL}{os.getpid()}")
        partial.unlink(missing_ok=True)
        since: list[float | None] = []

        def begin_from_here() -> None:
            with self._changed:
                since.append(self._shared.since)
                self._shared.waiting.clear()
                self._shared.n_bytes = 0
                self._shared.needs_base = False

        with copied(self._store, self._home, finished=begin_from_here) as copy:
            made = write_backup(
                copy,
                partial,
                self._owner,
                journal_number=self._journal_number,
                unix_time=int(self._now()),
            )
        partial.rename(files.base)
        sync_directory(self._directory)
        if self._files is not None:
            self._removable.add(self._files.generation)
        self._files, self._base_id, self._base_size = files, made.backup_id, made.size
        self._n_segments = self._segments_size = 0
        self._reach(made.newest, since[-1])
        # What this store does not contain is never removed: it may be all that is left of another.
        for generation in sorted(self._removable & set(generations)):
            ReplicaFiles(self._directory, generation).remove()
        _log.info("replica_base generation=%d records=%d", files.generation, made.newest)
