import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.watch.children_cost import ChildrenCost, children_cost, without_coins_sat_per_kw
from cromford.watch.feerates import (
    LAST_BLOCKS,
    RISING_BLOCKS,
    OwnFeerate,
    OwnFees,
    blocks_left,
    child_fee_sat,
    fee_to_offer_sat,
    path_budget_sat,
    penalty_budget_sat,
    racing_fee_sat,
    risen_sat_per_kw,
)

feerates = st.integers(0, 1_000_000)
heights = st.integers(0, 3_000)
amounts = st.integers(0, 21_000_000)
weights = st.integers(4 * 65, 4 * 10_000)


@given(estimate=st.none() | feerates, minimum=feerates, fallback=feerates)
def test_the_own_feerate_never_falls_below_what_the_own_mempool_takes(
    estimate: int | None, minimum: int, fallback: int
) -> None:
    own = OwnFeerate(
        estimate_sat_per_kw=estimate, mempool_min_sat_per_kw=minimum, fallback_sat_per_kw=fallback
    ).sat_per_kw
    assert own >= minimum
    if estimate is None:
        assert own in {2 * minimum, fallback}
        assert own >= 2 * minimum
    else:
        assert own in {estimate, minimum}


@given(own=feerates, first=heights, deadline=heights, height=heights)
def test_a_feerate_rises_with_each_block_near_the_deadline_and_with_none_before(
    own: int, first: int, deadline: int, height: int
) -> None:
    def at(tip: int) -> int:
        return risen_sat_per_kw(own, first_height=first, height=tip, deadline_height=deadline)

    today, tomorrow = at(height), at(height + 1)
    is_near = deadline - RISING_BLOCKS <= height and height - deadline < 0
    if is_near and height >= first:
        assert 4 * (tomorrow - 1) <= 5 * today
        assert 4 * tomorrow >= 5 * (today - 1)
    if height < max(first, deadline - RISING_BLOCKS):
        assert today == tomorrow == own
    assert own <= today <= tomorrow <= -(-own * 5**RISING_BLOCKS // 4**RISING_BLOCKS)


def test_a_feerate_near_the_deadline_in_numbers() -> None:
    def at(height: int, *, first: int = 0) -> int:
        return risen_sat_per_kw(1_000, first_height=first, height=height, deadline_height=100)

    assert [at(height) for height in (0, 64, 65, 66, 70, 82, 100)] == [
        1_000,
        1_000,
        1_250,
        1_563,
        3_815,
        55_512,
        3_081_488,
    ]
    assert at(95, first=95) == 1_000
    assert at(98, first=95) == 1_954


@given(deadline=heights, height=heights)
def test_an_estimate_is_asked_for_the_blocks_left_and_one_after_the_deadline(
    deadline: int, height: int
) -> None:
    target = blocks_left(deadline_height=deadline, height=height)
    assert target == deadline - height if height < deadline else target == 1


@given(stake=amounts, left=st.integers(-10, 2_000))
def test_a_penalty_spends_half_the_stake_and_in_the_end_all_but_dust(stake: int, left: int) -> None:
    budget = penalty_budget_sat(stake, blocks_left=left)
    if left > LAST_BLOCKS:
        assert budget == path_budget_sat(stake) == stake // 2
    else:
        assert budget == max(0, stake - P2TR_DUST_SAT)


@given(wanted=amounts, least=amounts, budget=amounts)
def test_what_is_offered_is_within_the_budget_and_is_taken(
    wanted: int, least: int, budget: int
) -> None:
    offered = fee_to_offer_sat(wanted, least_sat=least, budget_sat=budget)
    if offered is None:
        assert least > budget
    else:
        assert least <= offered <= budget
        assert offered == wanted or wanted < least or wanted > budget


families = st.builds(FeeAndWeight, amounts, weights)


@given(parent=families, weight=weights, feerate=feerates, minimum=feerates)
def test_a_child_lifts_its_parent_to_the_feerate_and_pays_the_minimum_itself(
    parent: FeeAndWeight, weight: int, feerate: int, minimum: int
) -> None:
    fee_sat = child_fee_sat(
        weight, parent=parent, feerate_sat_per_kw=feerate, mempool_min_sat_per_kw=minimum
    )
    together_sat = parent.fee_sat + fee_sat
    assert 1000 * together_sat // (parent.weight + weight) >= feerate
    assert 1000 * fee_sat // weight >= minimum
    slack_weight = 2 * 3  # What virtual bytes round up, of each.
    is_enough_less = 1000 * (fee_sat - 2) >= minimum * (weight + slack_weight)
    if is_enough_less:
        assert 1000 * (together_sat - 2) < feerate * (parent.weight + weight + slack_weight)


@given(own=feerates, stake=amounts, parent=families, weight=weights, span=st.integers(1, 300))
def test_a_path_bumped_every_block_costs_no_more_than_half_of_what_is_at_stake(
    own: int, stake: int, parent: FeeAndWeight, weight: int, span: int
) -> None:
    waiting_sat: int | None = None
    for height in range(span + 1):
        feerate = risen_sat_per_kw(own, first_height=0, height=height, deadline_height=span)
        wanted_sat = child_fee_sat(
            weight, parent=parent, feerate_sat_per_kw=feerate, mempool_min_sat_per_kw=25
        )
        if waiting_sat is not None and wanted_sat <= waiting_sat:
            continue
        least_sat = fee_sat_of(vsize=-(-weight // 4), feerate_sat_per_kw=25)
        if waiting_sat is not None:
            least_sat = replacement_fee_sat(
                weight,
                parent=parent,
                rival=FeeAndWeight(waiting_sat, weight),
                incremental_sat_per_kw=25,
            )
        budget_sat = path_budget_sat(stake)
        offered = fee_to_offer_sat(wanted_sat, least_sat=least_sat, budget_sat=budget_sat)
        if offered is not None:
            assert waiting_sat is None or offered > waiting_sat
            assert offered <= stake // 2
            waiting_sat = offered


MOST_SAT_PER_VB = 10_000  # Core's `DEFAULT_MAX_RAW_TX_FEE_RATE`: 0.1 BTC for 1000 vB.


@given(
    estimate=st.none() | st.integers(1, 10**12),
    vsize=st.integers(100, 5_000),
    n=st.integers(0, 144),
)
def test_no_race_is_lost_because_its_node_takes_the_fee_for_a_mistake(
    estimate: int | None, vsize: int, n: int
) -> None:
    """Whatever the node says of fees, and however long nothing confirms."""
    fees = OwnFees(estimates=() if estimate is None else ((2, estimate),))
    most_sat = MOST_SAT_PER_VB * vsize
    fee_sat = racing_fee_sat(
        vsize,
        fees=fees,
        budget_sat=10 * most_sat,
        first_height=1_000,
        height=1_000 + n,
        rival_height=1_144,
    )
    assert fee_sat is not None
    assert 0 < fee_sat <= most_sat
    assert fees.within(144) <= MOST_SAT_PER_VB * 250


def test_a_race_that_ends_in_more_than_a_day_is_run_at_no_feerate_that_nobody_should_believe() -> (
    None
):
    """Nobody can come first so soon, and half of what is at stake would go to a node that errs."""
    errs = OwnFees(estimates=((2, 2_000_000), (144, 2_000_000), (1008, 60)))
    shut = OwnFees(mempool_min_sat_per_kw=2_000_000)
    dear = OwnFees(estimates=((2, 250_000), (144, 250_000)))

    def at(height: int, fees: OwnFees) -> int | None:
        return racing_fee_sat(
            1_000,
            fees=fees,
            budget_sat=20_000_000,
            first_height=1_000,
            height=height,
            rival_height=1_200,
        )

    assert [at(height, errs) for height in (1_000, 1_055)] == [240, 240 + 55 * 100]
    assert [at(height, shut) for height in (1_000, 1_055)] == [None, None]
    assert [at(1_056, fees) for fees in (errs, shut)] == [8_000_000 + 56 * 100, 10_000_000]
    assert at(1_000, dear) == 1_000_000


def test_a_mempool_that_asks_for_more_than_anybody_pays_is_not_offered_less() -> None:
    own = OwnFeerate(
        estimate_sat_per_kw=10**9, mempool_min_sat_per_kw=10**8, fallback_sat_per_kw=500
    )
    assert own.sat_per_kw == 10**8


@pytest.mark.parametrize(
    ("estimates", "relayed", "lowest"),
    [
        (((2, 9_000), (144, 2_000), (1008, 700)), 25, 700),
        (((2, 9_000), (144, 2_000), (1008, 20)), 25, 25),
        (((2, 9_000), (144, 2_000)), 25, 25),
        (((2, 9_000), (144, 2_000), (1008, 250_001)), 25, 25),
        (((2, 9_000), (144, 2_000), (1008, 250_000)), 25, 250_000),
        ((), 25, 25),
        ((), 250, 250),
        ((), 250_000, 250_000),
        ((), 250_001, 25),
        (((1008, 700),), 250_001, 700),
    ],
)
def test_what_can_wait_pays_the_estimate_for_a_week_or_the_least_that_is_relayed(
    estimates: tuple[tuple[int, int], ...], relayed: int, lowest: int
) -> None:
    """Neither today's mempool nor the operator's value makes it dearer, nor a relay that errs."""
    fees = OwnFees(
        estimates=estimates,
        min_relay_sat_per_kw=relayed,
        mempool_min_sat_per_kw=max(4_000, relayed),
        fallback_sat_per_kw=8_000,
    )
    assert fees.lowest_sat_per_kw == lowest
    assert fees.lowest_sat_per_kw <= fees.within(1008)


# What one's own node says


def test_a_node_is_believed_up_to_a_thousand_satoshi_a_vbyte() -> None:
    """What can wait does; and of two who say what a week costs the cheaper one is right."""
    assert OwnFees(estimates=((144, 250_000),)).day_sat_per_kw == 250_000
    assert OwnFees(estimates=((144, 250_001),)).day_sat_per_kw is None
    assert OwnFees(estimates=((1008, 250_000),)).lowest_sat_per_kw == 250_000
    assert OwnFees(estimates=((1008, 250_001),)).lowest_sat_per_kw == 25
    assert OwnFees(estimates=((1008, 900), (2016, 700), (4032, 800))).lowest_sat_per_kw == 700
    assert OwnFees(estimates=((1007, 20),), min_relay_sat_per_kw=0).lowest_sat_per_kw == 0


def test_an_estimate_is_the_one_for_the_most_blocks_that_are_not_more() -> None:
    fees = OwnFees(estimates=((2, 5_000), (6, 3_000), (144, 1_000)))
    told = [fees.within(n_blocks) for n_blocks in (1, 2, 5, 6, 143, 144, 2_000)]
    assert told == [5_000, 5_000, 5_000, 3_000, 3_000, 1_000, 1_000]
    assert OwnFees(mempool_min_sat_per_kw=400).within(6) == 800, "without one, twice the minimum"
    assert OwnFees().within(6) == 500, "and the operator's at the least"


def test_what_bumps_may_cost_in_numbers() -> None:
    """Half of it; what is late, all of it but an output's dust."""
    assert [path_budget_sat(sat) for sat in (0, 1, 999, 1_000)] == [0, 0, 499, 500]
    late = [path_budget_sat(sat, is_late=True) for sat in (0, 330, 331, 1_000)]
    assert late == [0, 0, 1, 670]
    penalties = [penalty_budget_sat(1_000, blocks_left=left) for left in (7, 6, 5)]
    assert penalties == [500, 670, 670]


# Children of a whole way out


def test_what_the_children_of_a_way_out_cost_in_numbers() -> None:
    """Two of 124 vbytes that pay 1 and 2 sat/vB: at 2 sat/vB only the first needs a child."""
    parents = [FeeAndWeight(124, 496), FeeAndWeight(248, 496)]

    def cost(sat_per_vb: int) -> ChildrenCost:
        return children_cost(
            parents, feerate_sat_per_kw=250 * sat_per_vb, mempool_min_sat_per_kw=25
        )

    assert cost(1) == ChildrenCost(n_children=0, vsize=0, fee_sat=0)
    assert cost(2) == ChildrenCost(n_children=1, vsize=153, fee_sat=2 * 277 - 124)
    assert cost(3) == ChildrenCost(n_children=2, vsize=306, fee_sat=6 * 277 - 372)
    assert [cost(n).coin_sat for n in (1, 2, 3)] == [0, 430 + 330, 1_290 + 330]


def test_how_far_an_anchor_alone_lifts_the_poorest_transaction() -> None:
    """With its child of 65 vbytes; an empty anchor has none."""
    parents = [FeeAndWeight(500, 496), FeeAndWeight(248, 496)]
    assert without_coins_sat_per_kw(parents, anchor_sat=240) == 1000 * 488 // 756 == 645
    assert without_coins_sat_per_kw(parents, anchor_sat=0) == 500
