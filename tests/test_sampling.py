"""A sampled table is played in part by every run, whole when asked, and the same by one seed."""

from typing import Any, cast

import pytest

from tests.sampling import asked_by_name, left_out
from tests.simulation.seeds import VARIABLE


class _Case:
    """A collected test, as far as a sample looks at it."""

    def __init__(self, nodeid: str, *marked: object, mark: str = "sampled") -> None:
        self.nodeid = nodeid
        self._marked, self._mark = marked, mark

    def get_closest_marker(self, name: str) -> Any:
        is_marked = self._marked and name == self._mark
        return getattr(pytest.mark, name)(*self._marked).mark if is_marked else None


def _table(n_cases: int, *marked: object) -> list[pytest.Item]:
    return [cast("pytest.Item", _Case(f"a.py::table[{one}]", *marked)) for one in range(n_cases)]


def _played(cases: list[pytest.Item]) -> list[str]:
    left = left_out(cases)
    return [case.nodeid for case in cases if case not in left]


def test_a_run_plays_as_many_cases_as_a_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    played = set()
    for start in range(40):
        monkeypatch.setenv(VARIABLE, str(start))
        table = _table(20, 3)
        assert len(_played(table)) == 3
        assert _played(table) == _played(_table(20, 3))
        played.update(_played(table))
    assert played == {case.nodeid for case in table}


def test_a_short_table_is_played_whole_and_none_is_left_to_a_whole_run() -> None:
    assert len(_played(_table(2, 3))) == 2
    assert _played(_table(2, 0)) == []
    assert len(_played(_table(5))) == 5


def test_of_a_long_file_so_many_tests_are_played_each_with_all_its_cases() -> None:
    nodeids = [f"a.py::test_{test}[{case}]" for test in range(9) for case in range(3)]
    cases = [cast("pytest.Item", _Case(one, 4, mark="sampled_file")) for one in nodeids]
    played = _played(cases)
    tests = {nodeid.partition("[")[0] for nodeid in played}
    assert len(tests) == 4
    assert len(played) == 12


@pytest.mark.parametrize("marked", [("3",), (-1,), (1, 2)])
def test_a_sample_that_does_not_say_how_many_is_refused(marked: tuple[object, ...]) -> None:
    with pytest.raises(pytest.UsageError, match="sampled: expected a number, received"):
        left_out(_table(2, *marked))


def test_whoever_asks_for_a_case_gets_it() -> None:
    assert asked_by_name(["tests/a.py::table[7]"])
    assert not asked_by_name(["tests/a.py", "tests"])
