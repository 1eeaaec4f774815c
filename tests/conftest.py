"""What every test room shares: the published vectors, one hypothesis profile, one start seed."""

import csv
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.sampling import FILE_MARKER, MARKER, WHOLE, WHOLE_FILES, asked_by_name, left_out
from tests.simulation.seeds import VARIABLE, draw_start

REPOSITORY = Path(__file__).parent.parent
VECTORS = Path(__file__).parent / "vectors"  # Its README.md says where each is from.

# A deadline per example would measure the neighbour on a shared core, not the code. The blob
# printed with a failure replays it.
settings.register_profile("cromford", deadline=None, print_blob=True)
settings.load_profile("cromford")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run play the whole of each table."""
    parser.addoption(WHOLE, action="store_true", help="all cases of tests that are sampled")
    parser.addoption(WHOLE_FILES, action="store_true", help="all tests of files that are sampled")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the start seed before there are workers, so that all of them get it."""
    for marker in (MARKER, FILE_MARKER):
        config.addinivalue_line("markers", marker)
    try:
        draw_start()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a sample has no room for."""
    if config.getoption(WHOLE) or asked_by_name(config.args):
        return
    left = left_out(items, whole_files=config.getoption(WHOLE_FILES))
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def pytest_collection_finish() -> None:
    """Let no collection of garbage go through thousands of tests and modules that stay."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which worlds were played, and how each failure is replayed."""
    start = f"{VARIABLE}={draw_start()}"
    for report in terminalreporter.getreports("failed"):
        terminalreporter.write_line(f"replay: {start} .venv/bin/pytest -n 0 '{report.nodeid}'")
    terminalreporter.write_line(f"the same worlds again: {start} make test")


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def json_vectors() -> Callable[[str], Any]:
    def read(name: str) -> Any:
        return json.loads((VECTORS / name).read_text(encoding="utf-8"))

    return read


@pytest.fixture
def csv_vectors() -> Callable[[str], list[dict[str, str]]]:
    def read(name: str) -> list[dict[str, str]]:
        with (VECTORS / name).open(encoding="utf-8", newline="") as rows:
            return list(csv.DictReader(rows))

    return read
