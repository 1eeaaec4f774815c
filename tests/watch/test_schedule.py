import pytest

from cromford.watch.feerates import BELIEVED_SAT_PER_KW, MOST_SAT_PER_KW, OwnFees
from cromford.watch.schedule import scheduled_sat_per_kw


def offered(estimate: int, *, deadline_height: int | None, week: int | None = None) -> int:
    weeks = () if week is None else ((1008, week),)
    fees = OwnFees(
        estimates=((6, estimate), (144, estimate), *weeks),
        min_relay_sat_per_kw=25,
        mempool_min_sat_per_kw=30,
    )
    return scheduled_sat_per_kw(
        fees, deadline_height=deadline_height, first_height=1000, height=1000
    )


@pytest.mark.parametrize("estimate", [40, 5_000, BELIEVED_SAT_PER_KW])
def test_what_nothing_hurries_offers_a_day_s_estimate(estimate: int) -> None:
    assert offered(estimate, deadline_height=None) == estimate


@pytest.mark.parametrize("estimate", [BELIEVED_SAT_PER_KW + 1, MOST_SAT_PER_KW])
def test_what_nothing_hurries_waits_where_nobody_should_believe_the_estimate(estimate: int) -> None:
    """It would cost half of what is at stake. What has a deadline may be right to pay that."""
    assert offered(estimate, deadline_height=None) == 25
    assert offered(estimate, deadline_height=None, week=60) == 60
    assert offered(estimate, deadline_height=1200) == estimate
