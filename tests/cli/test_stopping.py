"""`stop` asks; `stop --wait` ends when nobody has the data directory any more, or says who has."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.adapters.sqlite import LOCK_NAME, is_locked, locked
from cromford.cli import stopping

roles = pytest.mark.parametrize("role", ["lsp", "client", "agent"])
Fake = Callable[[dict[str, Any]], FakeDaemon]


def failure(line: CommandLine, *words: str) -> tuple[int, dict[str, Any]]:
    result = line.run(*words, "--json")
    assert result.stdout == ""
    return result.exit_code, json.loads(result.stderr)


@roles
def test_a_stop_that_waits_ends_when_the_lock_is_free(fake: Fake, role: str) -> None:
    is_held, is_asked = threading.Event(), threading.Event()

    def hold(home: Path) -> None:
        with locked(home):
            is_held.set()
            assert is_asked.wait(timeout=60)

    def asked(_params: object) -> object:
        is_asked.set()
        return {"stopping": True}

    daemon = fake({"stop": asked})
    holder = threading.Thread(target=hold, args=(daemon.datadir / "regtest",))
    holder.start()
    assert is_held.wait(timeout=60)
    line = CommandLine(daemon.datadir)
    assert line.document(role, "stop", "--wait") == {"stopped": True}
    holder.join()
    assert daemon.calls == [("stop", {})]
    assert line.run(role, "stop", "--wait").stdout == "the daemon has stopped\n"


def test_a_daemon_that_does_not_end_is_told_after_the_time_that_was_given(fake: Fake) -> None:
    daemon = fake({"stop": {"stopping": True}})
    home = daemon.datadir / "regtest"
    with locked(home):
        words = ("lsp", "stop", "--wait", "--timeout", "1")
        exit_code, error = failure(CommandLine(daemon.datadir), *words)
    assert (exit_code, error["code"], error["retryable"]) == (1, "still_stopping", True)
    assert error["message"] == f"a process still holds {home} after 1 s"


def test_one_that_is_on_its_way_out_is_waited_for_though_it_answers_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True, True, False])
    monkeypatch.setattr(stopping, "_is_held", lambda _home: next(looks))
    assert CommandLine(tmp_path / "d").document("lsp", "stop", "--wait") == {"stopped": True}
    assert next(looks, None) is None


@roles
def test_one_that_is_on_its_way_in_is_asked_as_soon_as_it_can_be(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Whoever folds a long journal has its lock for a while before it answers anybody."""
    datadir = tmp_path / "fake-0"
    is_asked = threading.Event()

    def asked(_params: object) -> object:
        is_asked.set()
        return {"stopping": True}

    started: list[FakeDaemon] = []

    def look(home: Path) -> bool:
        assert home == datadir / "regtest"
        if not started:
            started.append(fake({"stop": asked}))
        return not is_asked.is_set()

    monkeypatch.setattr(stopping, "_is_held", look)
    line = CommandLine(datadir)
    assert line.document(role, "stop", "--wait", "--timeout", "30") == {"stopped": True}
    assert started[0].datadir == datadir
    assert started[0].calls == [("stop", {})]


@roles
@pytest.mark.parametrize("waits", [(), ("--wait", "--timeout", "1")], ids=["at_once", "waits"])
def test_one_that_takes_no_connection_was_not_asked_and_that_is_told(
    tmp_path: Path, role: str, waits: tuple[str, ...]
) -> None:
    home = tmp_path / "d" / "regtest"
    with locked(home):
        exit_code, error = failure(CommandLine(tmp_path / "d"), role, "stop", *waits)
    assert (exit_code, error["code"], error["retryable"]) == (1, "daemon_busy", True)
    assert (
        error["message"] == f"a process holds {home}, and takes no connection: it starts, or ends"
    )
    assert error["remediation"].startswith("It was not asked to stop.")


def test_on_a_disk_that_can_only_be_read_it_is_seen_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error of a disk the system mounts it so, and whoever runs there has to end."""
    open_file = os.open

    def only_read(path: Path, flags: int, *mode: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return open_file(path, flags, *mode)

    with locked(tmp_path):
        monkeypatch.setattr(os, "open", only_read)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    (tmp_path / LOCK_NAME).unlink()
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


@roles
def test_where_nobody_runs_nobody_is_waited_for_and_nothing_is_made(
    tmp_path: Path, role: str
) -> None:
    exit_code, error = failure(CommandLine(tmp_path / "d"), role, "stop", "--wait")
    assert (exit_code, error["code"]) == (1, "daemon_not_running")
    assert not (tmp_path / "d").exists()


def test_a_time_to_wait_needs_something_to_wait_for(fake: Fake) -> None:
    daemon = fake({"stop": {"stopping": True}})
    exit_code, error = failure(CommandLine(daemon.datadir), "lsp", "stop", "--timeout", "5")
    assert (exit_code, error["code"]) == (2, "usage")
    assert daemon.calls == []
