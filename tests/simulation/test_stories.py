"""A sample of stories judged to the satoshi: states that land, and exits after purchases."""

import pytest

from tests.simulation.cut_short import run_cut_short
from tests.simulation.seeds import seeds
from tests.simulation.sold_exits import run_sold_exits


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(1))
def test_after_purchases_everybody_leaves_with_its_own_on_the_kernels_chain(seed: int) -> None:
    run_sold_exits(seed)


@pytest.mark.parametrize("seed", seeds(1))
def test_wherever_an_advance_ends_each_signed_state_gives_everybody_its_own(seed: int) -> None:
    run_cut_short(seed)
