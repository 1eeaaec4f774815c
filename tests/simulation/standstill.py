"""One decision of a process in a thread of its own, so that the process may stand still in it.

Only one thread ever runs: whoever lets it go on waits until it stands still, or is done.
"""

import threading
from collections.abc import Callable

from tests.simulation.sim_node import Crash


class StoodStill(Crash):
    """The process is paused here, for so long that a successor is started."""


class Holder:
    """What a process that may stand still is doing.

    Args:
        work: What it does.

    Attributes:
        error: How that ended, if it was raised.
        is_over: Whether it ended.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self.is_over = False
        self._work = work
        self._goes_on = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Begin, and return once it stands still or is over."""
        self._thread.start()
        self._has_stopped.acquire()

    def go_on(self) -> None:
        """Go on from where it stands still, and return once it is over."""
        self._goes_on.release()
        self._has_stopped.acquire()

    def stand_still(self) -> None:
        """Stand still here, until somebody lets it go on. In its own thread."""
        self._has_stopped.release()
        self._goes_on.acquire()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
            self.error = error
        self.is_over = True
        self._has_stopped.release()
