import pytest

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import Tx
from cromford.factory.exit_path import ExitStep
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, MOST_SAT_PER_KW, OwnFees
from cromford.watch.schedule import (
    scheduled_budget_sat,
    scheduled_sat_per_kw,
    step_deadline_height,
)


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
    """It would cost half of what is at stake. In its last day a deadline may be worth that."""
    for far in (None, 1_145, 14_000):
        assert offered(estimate, deadline_height=far) == 25
        assert offered(estimate, deadline_height=far, week=60) == 60
    assert offered(estimate, deadline_height=1_144) == estimate


def test_what_may_wait_less_than_a_day_pays_an_estimate_that_may_be_believed_too() -> None:
    fees = OwnFees(estimates=((6, BELIEVED_SAT_PER_KW + 1), (36, 900), (144, 400), (1008, 60)))
    assert [fees.believed_within(n_blocks) for n_blocks in (6, 36, 144)] == [60, 900, 400]


@pytest.mark.parametrize(
    ("minimum", "budget_sat"), [(BELIEVED_SAT_PER_KW, 5_000), (BELIEVED_SAT_PER_KW + 1, 0)]
)
def test_what_nothing_hurries_costs_nothing_while_a_mempool_asks_for_what_nobody_should_believe(
    minimum: int, budget_sat: int
) -> None:
    """A `minrelaytxfee` of 0.1 is one in bitcoin per 1000 vB: 10,000 sat/vB."""
    fees = OwnFees(mempool_min_sat_per_kw=minimum)

    def budget(deadline_height: int | None) -> int:
        return scheduled_budget_sat(10_000, fees, deadline_height=deadline_height, height=1_000)

    assert [budget(height) for height in (None, 14_000, 1_145)] == [budget_sat] * 3
    assert [budget(height) for height in (1_144, 1_001)] == [5_000, 5_000]
    assert budget(1_000) == 10_000 - P2TR_DUST_SAT


def test_each_step_leaves_the_later_ones_their_delays_and_six_blocks_each() -> None:
    """And six to the commitment, which has to be in a block at the end."""
    tx = Tx(version=3, inputs=(), outputs=())
    later = [
        ExitStep(name=name, tx=tx, delay_blocks=delay, fee_sat=0)
        for name, delay in (("state", 432), ("kickoff", 0))
    ]
    assert step_deadline_height((), end_height=2_000) == 1_994
    assert step_deadline_height(later, end_height=2_000) == 2_000 - 438 - 6 - 6


def test_with_a_far_deadline_a_days_estimate_is_offered_and_with_a_near_one_its_own() -> None:
    fees = OwnFees(estimates=((6, 9_000), (144, 4_000), (1008, 1_000)))

    def at(deadline_height: int) -> int:
        return scheduled_sat_per_kw(
            fees, deadline_height=deadline_height, first_height=1_000, height=1_000
        )

    assert [at(height) for height in (4_000, 1_144, 1_143, 1_006)] == [4_000, 4_000, 9_000, 9_000]
