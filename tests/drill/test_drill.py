"""Some points of a ceremony at which somebody dies, drawn for each run; `make drill` has all."""

import pytest

from tests.drill.points import run_ceremony, sampled
from tests.drill.scripts import CEREMONIES
from tests.simulation.seeds import seeds

BY_NAME = {ceremony.name: ceremony for ceremony in CEREMONIES}
N_SAMPLED = 1


@pytest.mark.parametrize("seed", seeds(1))
def test_whoever_dies_at_any_point_of_a_ceremony_everybody_ends_well(seed: int) -> None:
    ceremony = CEREMONIES[seed % len(CEREMONIES)]
    for result in run_ceremony(ceremony, choose=sampled(N_SAMPLED, seed=seed)):
        assert set(result.outcomes) <= ceremony.outcomes
        assert sum(result.outcomes.values()) == N_SAMPLED


def test_a_ceremony_has_its_name_alone() -> None:
    assert len(BY_NAME) == len(CEREMONIES)
