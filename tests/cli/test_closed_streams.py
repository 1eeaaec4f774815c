"""Whoever starts us may have closed what we read from, or write to: nothing is read, or told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLOSED = "<&- >&- 2>&-"
HIGHEST = 2  # Of the standard streams.


def run(closed: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with streams that a shell closed."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("closed", [">&-", CLOSED])
def test_an_answer_that_nobody_reads_is_given_all_the_same(closed: str) -> None:
    done = run(closed, "-m", "cromford", "plan", "--clients", "4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nobody_is_asked_where_nobody_can_answer(tmp_path: Path) -> None:
    datadir = ("--datadir", str(tmp_path / "d"))
    done = run("<&-", "-m", "cromford", "client", "seed", "restore", "--json", *datadir)
    assert json.loads(done.stderr)["code"] == "bad_seed"
    assert (done.returncode, done.stdout) == (2, "")


def test_an_error_that_nobody_hears_is_in_the_exit_code(tmp_path: Path) -> None:
    done = run(CLOSED, "-m", "cromford", "client", "status", "--datadir", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", CLOSED])
def test_no_file_of_ours_has_the_number_of_a_standard_stream(closed: str) -> None:
    """What somebody writes to a stream that was closed does not land in a journal, or a socket."""
    program = (
        "import os, sys; from cromford.cli import main\n"
        "main.hold_standard_streams()\n"
        "print('told', file=sys.stdout); print('told', file=sys.stderr); sys.stdin.isatty()\n"
        "os._exit(os.open(os.devnull, os.O_RDONLY))"
    )
    assert run(closed, "-c", program).returncode > HIGHEST
