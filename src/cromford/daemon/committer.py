"""Makes records durable beside the event loop: a thread waits for the disk, and nobody else.

What several decisions remember while the disk is busy is committed together. What may be done once
it is durable is done by the loop, in the order in which it was decided.
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
        self._is_closing = False
        self._failure: Exception | None = None
        self._n_submitted = 0
        self._n_done = 0
        self._settlers: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def commit(
        self, entries: Sequence[Entry], archived: Sequence[Archived], then: Callable[[], None]
    ) -> None:
        """Make records durable, and then call `then`; at once where nothing has to be waited for.

        Raises:
            StoreFailed: If an earlier write failed.
        """
        if not entries and not archived and self._n_done == self._n_submitted:
            self._check_usable()
            then()
        else:
            self._submit(_Job(entries, archived, None, then))

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
            settled = self._loop.create_future()
            self._settlers.append((self._n_submitted, settled))
            await settled

    async def close(self) -> None:
        """Write what waits, and end. What would have followed is not done any more."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        await asyncio.to_thread(self._thread.join)
        self._fail(StoreFailed("the journal is closed"), is_told=False)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StoreFailed(str(self._failure)) from self._failure

    def _submit(self, job: _Job) -> None:
        self._check_usable()
        self._n_submitted += 1
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < WAITING_MAX or self._is_over)
            self._waiting.append(job)
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
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            jobs: list[_Job] = []
            while self._waiting and not (jobs and self._waiting[0].checkpoint):
                jobs.append(self._waiting.popleft())
                if jobs[-1].checkpoint is not None:
                    break
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
        for job in jobs:
            if self._failure is not None:
                return
            try:
                if not self._is_closing:
                    job.then()
            except Exception as error:  # noqa: BLE001 - told to whoever stops the daemon
                self._fail(error)
                return
            self._n_done += 1
        while self._settlers and self._settlers[0][0] <= self._n_done:
            _, settled = self._settlers.popleft()
            if not settled.done():
                settled.set_result(None)

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
