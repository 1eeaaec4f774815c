"""A command line to run, and daemons that answer it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli import answers
from tests.cli.fake_daemon import FakeDaemon
from tests.quick_keys import quick_keys, whole_cost

from cromford.cli.main import cromford

__all__ = ["CommandLine", "quick_keys", "whole_cost"]


@dataclass(frozen=True)
class CommandLine:
    """Runs commands against one data directory, or the default ones."""

    datadir: Path | None

    def run(
        self, *words: str, env: dict[str, str] | None = None, typed: str | None = None
    ) -> Result:
        place = [] if self.datadir is None else ["--datadir", str(self.datadir)]
        return CliRunner().invoke(cromford, [*place, *words], env=env, input=typed)

    def document(self, *words: str) -> Any:
        """Return the one JSON document on stdout of a command that succeeds in silence."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        return json.loads(result.stdout)


@pytest.fixture
def lsp(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "lsp", answers.LSP_ANSWERS) as daemon:
        yield daemon


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "client", answers.CLIENT_ANSWERS) as daemon:
        yield daemon


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], FakeDaemon]]:
    """Start a daemon with answers of the test's own."""
    started: list[FakeDaemon] = []

    def start(own: dict[str, Any]) -> FakeDaemon:
        daemon = FakeDaemon(tmp_path / f"fake-{len(started)}", own)
        daemon.__enter__()
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.__exit__()
