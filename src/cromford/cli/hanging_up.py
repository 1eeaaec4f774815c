"""SIGHUP to a daemon: the level of its log is read again; it ends nobody.

Nothing else can change while a daemon runs: its policy stands in what it has agreed to. The log is
a stream that others keep, so no file is opened again.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from cromford.cli.failures import CommandFailed

_log = logging.getLogger(__name__)


@contextmanager
def log_level_again(read: Callable[[], str]) -> Iterator[None]:
    """Read the level of the log again whenever a SIGHUP comes, as long as the block lasts.

    Args:
        read: Returns the level: a flag's, the environment's, the file's. Called from a thread of
            its own; where it raises `CommandFailed`, the level stays.
    """

    def take() -> None:
        try:
            level = read()
        except CommandFailed as error:
            _log.error("log_level_kept reason=%s", error)
            return
        logging.getLogger().setLevel(level.upper())
        _log.warning("log_level_read level=%s", level)

    def heard(_number: int, _frame: FrameType | None) -> None:
        # A handler interrupts whatever is being done, perhaps a line that is being written. What it
        # raised would end that: where no thread may be had, the level stays until the next SIGHUP.
        with suppress(RuntimeError):
            threading.Thread(target=take, name="log level").start()

    before = signal.signal(signal.SIGHUP, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
