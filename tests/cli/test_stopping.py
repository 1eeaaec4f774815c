"""`stop` asks; `stop --wait` ends when nobody has the data directory any more, or says who has."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.adapters.sqlite import locked
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
