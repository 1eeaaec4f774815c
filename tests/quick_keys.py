"""Passphrases that cost nothing: of what makes guessing them dear, each test would wait for some.

A file says with how much its key was derived, so what is written with little is read by the same
code. What a person's passphrase costs is asked for by name: `whole_cost`.
"""

from collections.abc import Iterator
from typing import NamedTuple
from unittest.mock import patch

import pytest

from cromford.daemon import seed_file


class Cost(NamedTuple):
    """What deriving one key takes."""

    iterations: int
    memory_kib: int
    lanes: int


WHOLE = Cost(seed_file.ARGON2_ITERATIONS, seed_file.ARGON2_MEMORY_KIB, seed_file.ARGON2_LANES)
QUICK = Cost(iterations=1, memory_kib=8 * WHOLE.lanes, lanes=WHOLE.lanes)


@pytest.fixture
def whole_cost() -> Cost:
    """Derive keys as the program does."""
    return WHOLE


@pytest.fixture(autouse=True)
def quick_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Derive keys with little, unless a test asks for the whole cost."""
    if "whole_cost" in request.fixturenames:
        yield
        return
    with (
        patch.object(seed_file, "ARGON2_ITERATIONS", QUICK.iterations),
        patch.object(seed_file, "ARGON2_MEMORY_KIB", QUICK.memory_kib),
    ):
        yield
