"""A sample of worlds with payments; `make simulate` and `--payments` run many more."""

import pytest

from tests.simulation.payments import run_payments
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(4))
def test_no_crash_no_cut_and_no_silence_costs_anybody_a_millisatoshi(seed: int) -> None:
    run_payments(seed)


def test_one_seed_gives_one_story_of_payments() -> None:
    assert run_payments(12) == run_payments(12)
