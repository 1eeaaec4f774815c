"""What started us, where it wants to be told how we are: systemd's notify socket (sd_notify(3)).

Ready is a daemon that answers its operator: its journal is open and folded, and its node was asked
once, or is waited for. A node that is away, or that catches up for hours, is no start that failed;
what is lacking until new risk is taken is in the status, in the words of `/readyz`. The watchdog is
told what `/healthz` says: it hears nothing while the loop, or the disk, does not answer.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Final

from cromford.daemon.health import Check, Probed, readiness
from cromford.ports import StoreFailed

ADDRESS: Final = "NOTIFY_SOCKET"
WATCHDOG_MICROSECONDS: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"
STATUS_SECONDS: Final = 5.0  # How old what is told may be.
SEND_SECONDS: Final = 1.0  # What the first and the last word may take, where nobody reads.
BEATS: Final = 2  # In the time after which silence ends us: sd_watchdog_enabled(3) asks for half.

_log = logging.getLogger(__name__)


class Supervisor:
    """Who started us, as the environment names it; without `NOTIFY_SOCKET` nobody is told.

    Args:
        environment: The process's.
        pid: The process's: a watchdog may be meant for another that inherited the environment.
    """

    def __init__(self, environment: Mapping[str, str], *, pid: int) -> None:
        self._address = environment.get(ADDRESS, "")
        is_ours = environment.get(WATCHDOG_PID, str(pid)) == str(pid)
        digits = environment.get(WATCHDOG_MICROSECONDS, "") if is_ours and self._address else ""
        has_watchdog = digits.isascii() and digits.isdecimal() and int(digits) > 0
        self.watchdog_seconds = int(digits) / 1e6 if has_watchdog else None
        self._is_unreachable = False

    def tell(self, *said: str, waits: bool = False) -> None:
        """Send assignments as one datagram. A socket that fails is told once, in the log.

        Args:
            said: The assignments, each a line.
            waits: Whether a reader whose queue is full is waited for, `SEND_SECONDS` at most. What
                is said again soon need not be.
        """
        if not self._address:
            return
        # systemd writes an abstract name with an @ where the kernel has a zero byte.
        name = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
                sending.settimeout(SEND_SECONDS if waits else 0)
                sending.sendto("\n".join(said).encode(), name)
        except OSError as error:
            if not self._is_unreachable:
                _log.warning("supervisor_unreachable reason=%s", error)
            self._is_unreachable = True

    @contextlib.asynccontextmanager
    async def told(
        self, status: Callable[[], str], settled: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Tell that we are ready, then how we are, and in the end that we stop.

        Args:
            status: Returns how we are, in a line.
            settled: Returns once all that was decided by now is durable.
        """
        first = status()
        self.tell("READY=1", f"STATUS={first}", waits=True)
        telling = asyncio.create_task(self._go_on_telling(first, status, settled))
        try:
            yield
        finally:
            self.tell("STOPPING=1", "STATUS=stopping", waits=True)
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    async def _go_on_telling(
        self, said: str, status: Callable[[], str], settled: Callable[[], Awaitable[None]]
    ) -> None:
        if not self._address:
            return
        pause = STATUS_SECONDS
        if self.watchdog_seconds is not None:
            pause = min(pause, self.watchdog_seconds / BEATS)
        while True:
            if self.watchdog_seconds is not None:
                try:
                    await settled()
                except StoreFailed:
                    return  # Whoever wrote ends the daemon, and says why.
                self.tell("WATCHDOG=1")
            await asyncio.sleep(pause)
            if (now := status()) != said:
                self.tell(f"STATUS={now}")
                said = now


def supervisor() -> Supervisor:
    """Return who started this process."""
    return Supervisor(os.environ, pid=os.getpid())


def supervised(
    daemon: Probed, settled: Callable[[], Awaitable[None]]
) -> contextlib.AbstractAsyncContextManager[None]:
    """Tell who started us of a daemon, as long as it serves."""
    return supervisor().told(lambda: status_line(daemon.height, readiness(daemon)), settled)


def status_line(height: int, checks: Iterable[Check]) -> str:
    """Return how a daemon is, in one line: the height it has seen, and what is lacking."""
    lacking = [f"{one.check}: {one.detail}" for one in checks if not one.ok]
    seen = "no block yet" if height < 0 else f"height {height}"
    line = "; ".join([seen, *lacking] if lacking else [seen, "ready"])
    # Some of the words are the node's: a line of theirs is no assignment of ours.
    return "".join(letter if letter.isprintable() else "?" for letter in line)
