"""Tables of cases that are too long for every run: `make test` plays some, `make tables` plays all.

A test says `@pytest.mark.sampled(3)`: three of its cases, drawn by the run's start seed, or fewer
where it has fewer; 0 leaves it to `make tables`. `--whole` plays every case, and so does a name of
one test (`file::test`): whoever asks for a case gets it.

A file of long tests says `pytestmark = pytest.mark.sampled_file(4)`: four of them are played.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable

import pytest

from tests.simulation.seeds import draw_start

WHOLE = "--whole"
WHOLE_FILES = "--whole-files"
MARKER = "sampled(n): n of the cases, drawn by the start seed; all of them with --whole"
FILE_MARKER = "sampled_file(n): n of a file's tests, drawn by the start seed; all with --whole"


def asked_by_name(arguments: Iterable[str]) -> bool:
    """Return whether somebody asks for a test, not for files."""
    return any("::" in argument for argument in arguments)


def left_out(items: Iterable[pytest.Item], *, whole_files: bool = False) -> set[pytest.Item]:
    """Return the cases that this run leaves to a whole one; of each file none, if so asked.

    Raises:
        pytest.UsageError: If a mark does not say how many.
    """
    whole = list(items)
    left: set[pytest.Item] = set()
    if not whole_files:
        left = _not_drawn(whole, "sampled_file", within=_file_of, by=_test_of)
    rest = (item for item in whole if item not in left)
    return left | _not_drawn(rest, "sampled", within=_test_of, by=_case_of)


def _not_drawn(
    items: Iterable[pytest.Item],
    mark: str,
    *,
    within: Callable[[pytest.Item], str],
    by: Callable[[pytest.Item], str],
) -> set[pytest.Item]:
    """Return what has a mark and is not drawn: of all `within` one name, so many names `by`."""
    groups: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    asked: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker(mark) is not None:
            groups[within(item)][by(item)].append(item)
            asked[within(item)] = _asked(item, mark)
    left: set[pytest.Item] = set()
    for name, members in groups.items():
        drawn = random.Random(f"{draw_start()} {name}")
        played = drawn.sample([*members], min(len(members), asked[name]))
        left.update(item for member in members.keys() - {*played} for item in members[member])
    return left


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _test_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _case_of(item: pytest.Item) -> str:
    return item.nodeid


def _asked(item: pytest.Item, mark: str) -> int:
    marker = item.get_closest_marker(mark)
    match marker and marker.args:
        case (int(n_cases),) if n_cases >= 0:
            return n_cases
        case said:
            raise pytest.UsageError(f"{item.nodeid}: {mark}: expected a number, received {said}")
