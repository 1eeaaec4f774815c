"""The steps of a demo: each has a name, a deadline, and somebody who is told how it goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from cromford.demo.failure import DemoFailed

POLL_SECONDS: Final = 0.05
_Answer = TypeVar("_Answer")


class Progress(Protocol):
    """Somebody who is told how the demo goes."""

    def begin(self, step: str) -> None:
        """Hear that a step begins."""

    def update(self, detail: str) -> None:
        """Hear what the step is waiting for at the moment."""

    def note(self, line: str) -> None:
        """Hear something worth keeping on the screen."""

    def end(self, outcome: str, seconds: float) -> None:
        """Hear how the step ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTaken:
    """A step that is over."""

    name: str
    outcome: str
    seconds: float


@dataclass(slots=True)
class DemoStep:
    """A step under way. Set `outcome` before it ends."""

    name: str
    deadline: float
    progress: Progress
    check_alive: Callable[[], None]
    outcome: str = "done"

    def wait_for(self, what: str, look: Callable[[], _Answer | None]) -> _Answer:
        """Return what `look` finds; it is asked until it finds something.

        Raises:
            DemoFailed: If the step's deadline passes, or a process has died.
        """
        while True:
            found = look()
            if found is not None:
                return found
            self.check_alive()
            if time.monotonic() > self.deadline:
                raise DemoFailed("deadline", f"{self.name}: gave up waiting for {what}")
            time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class Steps:
    """All steps so far."""

    progress: Progress
    check_alive: Callable[[], None]
    taken: list[StepTaken] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, *, seconds: float) -> Iterator[DemoStep]:
        """Take a step that may last `seconds`."""
        began = time.monotonic()
        self.progress.begin(name)
        step = DemoStep(name, began + seconds, self.progress, self.check_alive)
        yield step
        took = time.monotonic() - began
        self.taken.append(StepTaken(name=name, outcome=step.outcome, seconds=took))
        self.progress.end(step.outcome, took)
