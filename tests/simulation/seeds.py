"""The seeds of a test run: as many as a test asks for, from a start that varies.

`tests/conftest.py` draws the start once for all workers and prints it. `CROMFORD_SEED=<start>` in
the environment plays the same worlds again.
"""

import os
import secrets
from typing import Final

VARIABLE: Final = "CROMFORD_SEED"
STARTS: Final = 1_000_000_000


def draw_start() -> int:
    """Return the start in the environment; draw it and put it there if there is none.

    Workers are started with this environment, so they all name the same tests.

    Raises:
        ValueError: If the environment has something else than a number.
    """
    given = os.environ.setdefault(VARIABLE, str(secrets.randbelow(STARTS)))
    if not given.isdecimal():
        raise ValueError(f"{VARIABLE}: expected a number, received {given!r}")
    return int(given)


def seeds(n_seeds: int) -> range:
    """Return as many seeds as a test wants to play."""
    start = draw_start()
    return range(start, start + n_seeds)
