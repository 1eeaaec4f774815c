"""Every run plays other worlds, and says which."""

import os

import pytest

from tests.simulation.seeds import VARIABLE, draw_start, seeds


def test_a_run_of_tests_has_one_start_that_its_workers_share() -> None:
    assert draw_start() == int(os.environ[VARIABLE])
    assert list(seeds(3)) == [draw_start(), draw_start() + 1, draw_start() + 2]


def test_starts_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()
    for _ in range(3):
        monkeypatch.delenv(VARIABLE)
        drawn.add(draw_start())
    assert len(drawn) == 3


def test_a_start_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "5x")
    with pytest.raises(ValueError, match=f"{VARIABLE}: expected a number, received '5x'"):
        draw_start()
