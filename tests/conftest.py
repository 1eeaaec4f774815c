"""What every test room shares: the published vectors, and one hypothesis profile."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parent.parent
VECTORS = Path(__file__).parent / "vectors"  # Its README.md says where each is from.

# A deadline per example would measure the neighbour on a shared core, not the code. The blob
# printed with a failure replays it.
settings.register_profile("cromford", deadline=None, print_blob=True)
settings.load_profile("cromford")


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
