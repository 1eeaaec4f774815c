"""A sample of worlds, others in every run; `make simulate` plays many more."""

import pytest

from tests.simulation.life import run_life
from tests.simulation.seeds import seeds


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(8))
def test_whatever_fails_nobody_honest_loses_anything_and_everything_ends(seed: int) -> None:
    run_life(seed)


@pytest.mark.sampled(0)
def test_one_seed_gives_one_story() -> None:
    assert run_life(7) == run_life(7)


# A purchase without an end; a coin counted twice; a factory over while its funding was shallow.
@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [38, 500012, 700048])
def test_a_world_that_failed_once_holds(seed: int) -> None:
    run_life(seed)
