"""Deadlines: those of a peer's answer run while the daemon can listen, all others by the clock.

Nobody is late whose message waits in our own queue, or who could not be told for our own business.
So the time in which the event loop did not come round is not counted, nor that before our question
has left, which waits for the disk; and before the deadline of an answer is reached, whatever has
arrived by then is heard.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from cromford import effects as fx

# By these somebody has to answer, and is named, or hung up on, if it does not.
OF_ANSWERS: Final = (
    fx.AttemptDeadline,
    fx.RejoinDeadline,
    fx.CloseDeadline,
    fx.AdvanceDeadline,
    fx.RevocationDeadline,
    fx.LeafDeadline,
)
# How often the loop is asked whether it comes round, and how late it may be: above what a busy
# machine does to everybody, below what matters to a deadline of seconds.
BEAT_SECONDS: Final = 0.5
LATE_SECONDS: Final = 0.1


class Due(NamedTuple):
    """A deadline, and the stream it belongs to: two streams never have the same one."""

    stream: str
    deadline: fx.Deadline


@dataclass(eq=False, slots=True)
class _Pending:
    seconds: float
    handle: asyncio.TimerHandle | None = None  # None until what is to be answered has left.
    lost_before: float = 0.0  # Seconds that the loop had lost when this began to run.


class Deadlines:
    """Sets deadlines, and tells when one is reached.

    Args:
        reached: Told of each, once.
        heard: Returns once everything is handled that has arrived by now.
        spawn: Runs a task of the daemon.
        clock: Seconds; None is the event loop's.
        left: Calls something once all that was decided by now has left; None if that is at once.
    """

    def __init__(
        self,
        *,
        reached: Callable[[Due], None],
        heard: Callable[[], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        clock: Callable[[], float] | None = None,
        left: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._reached = reached
        self._heard = heard
        self._spawn = spawn
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._left = left
        self._pending: dict[Due, _Pending] = {}
        self._late: list[tuple[Due, _Pending]] = []  # Once all that has arrived is heard.
        self._is_hearing = False
        self._lost_seconds = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._beat_due = 0.0

    def __contains__(self, due: object) -> bool:
        return due in self._pending

    def set(self, due: Due, seconds: float) -> None:
        """Set a deadline, or move one that is set."""
        self.clear(due)
        pending = self._pending[due] = _Pending(seconds)
        if self._left is not None and _is_of_answer(due):
            self._left(partial(self._begin, due, pending))
        else:
            self._run(due, pending, seconds)

    def clear(self, due: Due) -> None:
        """Forget a deadline. Harmless if there is none."""
        pending = self._pending.pop(due, None)
        if pending is not None and pending.handle is not None:
            pending.handle.cancel()

    def seconds_left(self, due: Due) -> float | None:
        """Return how long a deadline is away, or None if there is none."""
        pending = self._pending.get(due)
        if pending is None:
            return None
        if pending.handle is None:
            return pending.seconds
        return max(0.0, round(pending.handle.when() - asyncio.get_running_loop().time(), 1))

    def close(self) -> None:
        """Forget all of them."""
        for due in list(self._pending):
            self.clear(due)
        if self._beat is not None:
            self._beat.cancel()

    def beat(self) -> None:
        """Take note of how long the loop has not come round, and ask again in a while."""
        now = self._clock()
        late = now - self._beat_due
        if late > LATE_SECONDS:
            self._lost_seconds += late
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if any(_is_of_answer(due) for due in self._pending):
            self._beat_due = now + BEAT_SECONDS
            self._beat = asyncio.get_running_loop().call_later(BEAT_SECONDS, self.beat)

    def _begin(self, due: Due, pending: _Pending) -> None:
        """Let a deadline run, unless it was cleared, or moved, before it did."""
        if self._pending.get(due) is pending:
            self._run(due, pending, pending.seconds)

    def _run(self, due: Due, pending: _Pending, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        pending.handle = loop.call_later(seconds, self._on_time, due)
        pending.lost_before = self._lost_seconds
        if _is_of_answer(due) and self._beat is None:
            self._beat_due = self._clock() + BEAT_SECONDS
            self._beat = loop.call_later(BEAT_SECONDS, self.beat)

    def _on_time(self, due: Due) -> None:
        if not _is_of_answer(due):
            del self._pending[due]
            self._reached(due)
            return
        self.beat()
        pending = self._pending[due]
        lost_seconds = self._lost_seconds - pending.lost_before
        if lost_seconds > 0:
            self._run(due, pending, lost_seconds)
        else:
            self._late.append((due, pending))
            if not self._is_hearing:
                self._is_hearing = True
                self._spawn(self._reach_late())

    async def _reach_late(self) -> None:
        """Reach deadlines once all is heard that has arrived: together, for each hears everybody.

        Each for itself, those of a thousand clients that went at once would take as many turns of
        everybody else's.
        """
        try:
            while self._late:
                late, self._late = self._late, []
                await self._heard()
                for due, pending in late:
                    # What was heard may have cleared it, or begun another step.
                    if self._pending.get(due) is pending:
                        del self._pending[due]
                        self._reached(due)
        finally:
            self._is_hearing = False


def _is_of_answer(due: Due) -> bool:
    return isinstance(due.deadline, OF_ANSWERS)
