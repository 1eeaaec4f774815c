"""Makes records durable beside the event loop: a thread waits for the disk, and nobody else.

What several decisions remember while the disk is busy is committed together. What may be done once
it is durable is done by the loop, in the order in which it was decided. Records for which nothing
waits go with the next for which something does.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cromford.daemon.marks import Marks
from cromford.ports import Archived, Checkpoint, Entry, Store, StoreFailed

WAITING_MAX: Final = (
    1_000  # Decisions that wait for the disk; with more, the loop waits for it too.
)
# How long records for which nothing waits lie there at most: about as long as a disk takes to sync.
# What a peer says next comes sooner, and the two are one append.
LINGER_SECONDS: Final = 0.005


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to make durable, and what follows."""

    entries: Sequence[Entry]
    archived: Sequence[Archived]
    checkpoint: Checkpoint | None
    then: Callable[[], None]


class Committer:
    """One thread that writes to the journal. Everything here is called by the event loop.

    After a failed write nothing is written any more, and nothing that waited is done.

    Where there are marks, one is written after each write and before what follows it. One that
    cannot be written holds up nothing here: what follows is done, and told that it is not covered.

    Attributes:
        is_covered: Whether all that led to what follows now is marked; True where nothing is.

    Args:
        store: The journal. Nobody else writes to it meanwhile.
        failed: Told, once, if a write fails, or what follows one.
        marks: Of the journal, if any are kept.
    """

    def __init__(
        self, store: Store, *, failed: Callable[[Exception], None], marks: Marks | None = None
    ) -> None:
        self.is_covered = marks is None or marks.is_current
        self._marks = marks
        self._store = store
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_due = False  # Whether what waits is to be written now.
        self._lingering: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._failure: Exception | None = None
        self._n_submitted = 0
        self._n_done = 0
        # What follows without records of its own, and after how many jobs.
        self._behind: deque[tuple[int, Callable[[], None]]] = deque()
        self._settlers: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def commit(
        self,
        entries: Sequence[Entry],
        archived: Sequence[Archived],
        then: Callable[[], None],
        *,
        is_awaited: bool = True,
    ) -> None:
        """Make records durable, and then call `then`; at once where nothing has to be waited for.

        Those that are not awaited wait for others, until somebody asks whether all is settled, and
        at most for `LINGER_SECONDS`.

        Raises:
            StoreFailed: If an earlier write failed.
        """
        if entries or archived:
            self._submit(_Job(entries, archived, None, then), is_awaited=is_awaited)
            return
        self._check_usable()
        if self._n_done == self._n_submitted and not self._behind:
            then()
        elif len(self._behind) < WAITING_MAX:
            self._behind.append((self._n_submitted, then))
            self._hurry()
        else:
            self._submit(_Job((), (), None, then))

    async def keep(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in its place, after all that was committed before.

        Raises:
            StoreFailed: If it, or an earlier write, failed.
        """
        self._submit(_Job((), (), checkpoint, lambda: None))
        await self.settled()

    async def cover(self) -> None:
        """Try to mark what is durable, after all that was committed before.

        Raises:
            StoreFailed: If an earlier write failed.
        """
        self._submit(_Job((), (), None, lambda: None))
        await self.settled()

    async def settled(self) -> None:
        """Return once everything that was committed by now is durable, and what follows is done.

        Raises:
            StoreFailed: If it will never be.
        """
        self._check_usable()
        if self._n_done < self._n_submitted:
            self._hurry()
            settled = self._loop.create_future()
            self._settlers.append((self._n_submitted, settled))
            await settled

    async def close(self) -> None:
        """Write what waits, and end. What would have followed is not done any more."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        try:
            await asyncio.to_thread(self._thread.join)
        except RuntimeError:  # The system allows no thread that would wait for it.
            self._thread.join()
        self._fail(StoreFailed("the journal is closed"), is_told=False)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StoreFailed(str(self._failure)) from self._failure

    def _submit(self, job: _Job, *, is_awaited: bool = True) -> None:
        self._check_usable()
        self._n_submitted += 1
        with self._changed:
            if len(self._waiting) >= WAITING_MAX:
                self._is_due = True
                self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._waiting) < WAITING_MAX or self._is_over)
            self._waiting.append(job)
        if is_awaited:
            self._hurry()
        elif self._lingering is None:
            self._lingering = self._loop.call_later(LINGER_SECONDS, self._hurry)

    def _hurry(self) -> None:
        """Let all that waits be written as soon as the disk is free."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        with self._changed:
            self._is_due = bool(self._waiting)
            self._changed.notify_all()

    @property
    def _is_over(self) -> bool:
        return not self._thread.is_alive()

    # In the thread

    def _run(self) -> None:
        while jobs := self._next():
            try:
                self._write(jobs)
                is_covered = self._marks is None or self._marks.cover()
            except Exception as error:  # noqa: BLE001 - the loop is told, whatever it is
                self._tell(self._fail, error)
                return
            self._tell(self._done, jobs, is_covered)

    def _next(self) -> list[_Job]:
        """Return what is written next in one go: all that wait up to a checkpoint, or that one."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_due or self._is_closing)
            jobs: list[_Job] = []
            while self._waiting and not (jobs and self._waiting[0].checkpoint):
                jobs.append(self._waiting.popleft())
                if jobs[-1].checkpoint is not None:
                    break
            self._is_due = bool(self._waiting)
            self._changed.notify_all()
            return jobs

    def _write(self, jobs: Sequence[_Job]) -> None:
        checkpoint = jobs[0].checkpoint
        if checkpoint is not None:
            self._store.replace_checkpoint(checkpoint)
            return
        entries = [entry for job in jobs for entry in job.entries]
        archived = [one for job in jobs for one in job.archived]
        if self._marks is not None and entries:
            archived.append(self._marks.grown(entries))
        if entries or archived:
            self._store.append(entries, archived)

    def _tell(self, what: Callable[..., None], *about: object) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is gone, and whoever waited with it.
            self._loop.call_soon_threadsafe(what, *about)

    # In the loop again

    def _done(self, jobs: Sequence[_Job], is_covered: bool) -> None:  # noqa: FBT001 - as it is told
        self.is_covered = is_covered
        try:
            for job in jobs:
                self._follow(job.then)
                self._n_done += 1
                while self._behind and self._behind[0][0] <= self._n_done:
                    self._follow(self._behind[0][1])
                    self._behind.popleft()  # Now: what it causes comes after all that is here.
        except Exception as error:  # noqa: BLE001 - told to whoever stops the daemon
            self._fail(error)
        if self._failure is not None:
            return
        while self._settlers and self._settlers[0][0] <= self._n_done:
            _, settled = self._settlers.popleft()
            if not settled.done():
                settled.set_result(None)

    def _follow(self, then: Callable[[], None]) -> None:
        """Do what follows, unless nothing does any more."""
        if self._failure is None and not self._is_closing:
            then()

    def _fail(self, error: Exception, *, is_told: bool = True) -> None:
        if self._failure is not None:
            return
        self._failure = error
        while self._settlers:
            _, settled = self._settlers.popleft()
            if not settled.done():
                settled.set_exception(StoreFailed(str(error)))
        if is_told:
            self._failed(error)
