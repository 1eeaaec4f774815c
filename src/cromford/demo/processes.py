"""The processes of a demo: started together, watched, and stopped whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, Self

from cromford.demo.failure import DemoFailed

STOP_SECONDS: Final = 5.0  # How long a process may take to stop before it is killed.
STOP_POLL_SECONDS: Final = 0.02
LOG_LINES_SHOWN: Final = 12
LOG_TAIL_BYTES: Final = 16 * 1024
_Handler = Callable[[int, FrameType | None], None] | signal.Handlers
_STOPPING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True, kw_only=True)
class Child:
    """One process, and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    is_wanted: bool = True

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])


class Children:
    """All processes of one demo. Leaving the `with` block stops every one of them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def start(self, name: str, args: Sequence[str]) -> Child:
        """Start `cromford` with these arguments; both its outputs go to `<name>.log`."""
        log = self._logs / f"{name}.log"
        # Not the user's: a CROMFORD_CHAIN_USER, say, would contradict the demo's cookie.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CROMFORD_")}
        # -P: a folder named cromford in the current directory is not the program.
        command = [sys.executable, "-P", "-m", "cromford", *args]
        # An interrupt while a process is being started would leave it running, known to nobody.
        with log.open("wb") as output, _interrupted_afterwards():
            process = subprocess.Popen(  # noqa: S603 - our own program, with our own arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            child = Child(name=name, process=process, log=log)
            self._children.append(child)
        return child

    def check_alive(self) -> None:
        """Refuse to go on when a process has ended that should not have.

        Raises:
            DemoFailed: With the last lines of its log.
        """
        for child in self._children:
            code = child.process.poll()
            if child.is_wanted and code is not None:
                raise DemoFailed(
                    "process_died",
                    f"{child.name} ended with code {code}; its log ends with\n{child.log_tail()}",
                )

    def stop(self, children: Sequence[Child]) -> None:
        """Stop these processes: politely, and after a moment by force."""
        for child in children:
            child.is_wanted = False
            if child.process.poll() is None:
                child.process.terminate()
        give_up = time.monotonic() + STOP_SECONDS
        while any(child.process.poll() is None for child in children):
            if time.monotonic() > give_up:
                for child in children:
                    child.process.kill()
            time.sleep(STOP_POLL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with _uninterrupted():
            self.stop(self._children)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo the way Ctrl-C does: with everything stopped.

    Raises:
        KeyboardInterrupt: Inside the block, when a signal comes.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let the stopping be finished: it is bounded, and a second Ctrl-C would leave processes."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Let a signal that comes inside the block be handled after it."""
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    with _handled_by(remember):
        yield
    for number in came:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
