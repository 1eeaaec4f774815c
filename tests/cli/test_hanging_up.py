"""A SIGHUP has the level of the log read again, and ends nobody."""

import logging
import os
import signal
import threading

import pytest

from cromford.cli.hanging_up import log_level_again


def test_where_no_thread_can_begin_a_hang_up_ends_nobody_and_the_next_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    levels, was_read = ["error"], threading.Event()

    def read() -> str:
        was_read.set()
        return levels.pop()

    root = logging.getLogger()
    before = root.level
    try:
        with log_level_again(read):
            with monkeypatch.context() as full:
                full.setattr(threading.Thread, "start", refuse)
                os.kill(os.getpid(), signal.SIGHUP)
            assert levels == ["error"]
            os.kill(os.getpid(), signal.SIGHUP)
            assert was_read.wait(60)
            for thread in threading.enumerate():
                if thread.name == "log level":
                    thread.join(60)
            assert root.level == logging.ERROR
    finally:
        root.setLevel(before)
