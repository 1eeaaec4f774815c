"""Tables of cases that are too long for every run: `make test` plays some, `make tables` plays all.

A test says `@pytest.mark.sampled(3)`: three of its cases, drawn by the run's start seed, or fewer
where it has fewer; 0 leaves it to `make tables`. `--whole` plays every case, and so does a name of
one test (`file::test`): whoever asks for a case gets it.
"""

import random
from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.simulation.seeds import draw_start

WHOLE = "--whole"
MARKER = "sampled(n): n of the cases, drawn by the start seed; all of them with --whole"


def asked_by_name(arguments: Iterable[str]) -> bool:
    """Return whether somebody asks for a test, not for files."""
    return any("::" in argument for argument in arguments)


def left_out(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Return the cases that this run leaves to a whole one.

    Raises:
        pytest.UsageError: If a `sampled` does not say how many.
    """
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled") is not None:
            tables[item.nodeid.partition("[")[0]].append(item)
    left: set[pytest.Item] = set()
    for name, cases in tables.items():
        drawn = random.Random(f"{draw_start()} {name}")
        left.update(cases)
        left.difference_update(drawn.sample(cases, min(len(cases), _asked(cases[0]))))
    return left


def _asked(item: pytest.Item) -> int:
    marker = item.get_closest_marker("sampled")
    match marker and marker.args:
        case (int(n_cases),) if n_cases >= 0:
            return n_cases
        case said:
            raise pytest.UsageError(f"{item.nodeid}: sampled: expected a number, received {said}")
