"""A sample of worlds, others in every run; `make simulate` runs many more."""

import pytest

from tests.simulation.opening import run_opening
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(12))
def test_no_crash_no_cut_and_no_silence_funds_without_an_exit_for_everybody(seed: int) -> None:
    run_opening(seed)


def test_one_seed_gives_one_story() -> None:
    assert run_opening(7) == run_opening(7)
