"""A sample of worlds with purchases; `make simulate` and `--sales` or `--sold` run many more."""

import pytest

from tests.simulation.sales import run_sales
from tests.simulation.seeds import seeds
from tests.simulation.sold_exits import run_sold_exits


@pytest.mark.parametrize("seed", seeds(2))
def test_a_purchase_is_done_for_a_whole_leaf_or_for_nobody_whatever_fails(seed: int) -> None:
    run_sales(seed)


@pytest.mark.parametrize("seed", seeds(2))
def test_after_purchases_everybody_leaves_with_its_own_on_the_kernels_chain(seed: int) -> None:
    run_sold_exits(seed)
