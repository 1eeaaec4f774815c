"""What every test room shares: the published vectors, and one hypothesis profile."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parent.parent

# A deadline per example would measure the neighbour on a shared core, not the code. The blob
# printed with a failure replays it.
settings.register_profile("cromford", deadline=None, print_blob=True)
settings.load_profile("cromford")


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def vector_path() -> Callable[[str], Path]:
    """Return the path of a published vector file, or skip where the files are not installed."""
    named = os.environ.get("CROMFORD_VECTORS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "vectors"

    def path_of(name: str) -> Path:
        path = folder / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {folder}: set CROMFORD_VECTORS to a folder that has it")
        return path

    return path_of


@pytest.fixture
def json_vectors(vector_path: Callable[[str], Path]) -> Callable[[str], Any]:
    def read(name: str) -> Any:
        return json.loads(vector_path(name).read_text(encoding="utf-8"))

    return read


@pytest.fixture
def csv_vectors(vector_path: Callable[[str], Path]) -> Callable[[str], list[dict[str, str]]]:
    def read(name: str) -> list[dict[str, str]]:
        with vector_path(name).open(encoding="utf-8", newline="") as rows:
            return list(csv.DictReader(rows))

    return read
