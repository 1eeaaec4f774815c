"""What a client costs in a month, against sums over blocks and lives that are played out."""

import random
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulation.seeds import draw_start

from cromford.factory.kinds import VertexKind
from cromford.planning.draft import Draft, draft_of
from cromford.planning.idea import DAY_BLOCKS, YEAR_BLOCKS, Idea
from cromford.planning.monthly import (
    all_there,
    feerate_from_which_less,
    in_channel,
    in_factory,
    in_lasting_channel,
    locked_blocks,
    served_blocks,
    share_there,
)
from cromford.planning.plan import N_POINTS, best_active_blocks, plan_factory

MONTH = 4_320
A_THIRD_A_YEAR = 333_333
N_LIVES = 400

losses = st.one_of(st.just(0), st.integers(1, 999_999))


def draft(**changes: Any) -> Draft:
    return draft_of(replace(Idea(), **changes))


def cost(of: Draft, active_blocks: int) -> float:
    return in_factory(of, active_blocks).cost_sat


def test_after_a_year_as_many_are_lost_as_was_said() -> None:
    assert share_there(Idea(loss_millionths=100_000), YEAR_BLOCKS) == pytest.approx(0.9)
    assert share_there(Idea(loss_millionths=100_000), 2 * YEAR_BLOCKS) == pytest.approx(0.81)
    assert share_there(Idea(loss_millionths=0), YEAR_BLOCKS) == 1


@pytest.mark.parametrize("loss_millionths", [0, 1, 100_000, 900_000])
def test_a_client_is_served_for_the_sum_of_all_blocks_in_which_it_is_there(
    loss_millionths: int,
) -> None:
    idea = Idea(loss_millionths=loss_millionths)
    summed = sum(share_there(idea, block) for block in range(13_000))
    assert served_blocks(idea, 13_000) == pytest.approx(summed, rel=1e-3)


@given(loss_millionths=losses, active_blocks=st.integers(2_016, 51_000))
def test_nobody_is_served_longer_than_the_factory_lives_or_locked_longer_than_it_expires(
    loss_millionths: int, active_blocks: int
) -> None:
    of = draft(loss_millionths=loss_millionths)
    assert 0 < served_blocks(of.idea, active_blocks) <= active_blocks
    assert 0 <= all_there(of, active_blocks) <= 1
    moved_blocks = active_blocks + of.terms.dying_blocks
    assert moved_blocks <= locked_blocks(of, active_blocks) <= moved_blocks + of.end_blocks


def test_what_lives_that_are_played_out_cost_is_what_is_planned() -> None:
    """Eight clients, a third of them lost a year, four hundred factories by dice."""
    dice = random.Random(draw_start())
    of = draft(loss_millionths=A_THIRD_A_YEAR, feerate_sat_per_kw=5_000)
    active_blocks, n_clients = 12_960, of.terms.n_clients
    hazard = 1 / served_blocks(of.idea, inf) if of.idea.loss_millionths else 0
    vsize, served, locked = 0.0, 0.0, 0.0
    for _ in range(N_LIVES):
        lost = [dice.expovariate(hazard) for _ in range(n_clients)]
        served += sum(min(block, active_blocks) for block in lost)
        is_whole = min(lost) > active_blocks + of.terms.dying_blocks
        vsize += of.funding_vsize + (of.close_vsize if is_whole else of.sweep_vsize)
        locked += active_blocks + of.terms.dying_blocks + (0 if is_whole else of.end_blocks)
    months = served / MONTH
    capital_sat = of.plan.input_sat * of.idea.capital_millionths / 1e6 / YEAR_BLOCKS * locked
    planned = in_factory(of, active_blocks)
    assert planned.vsize == pytest.approx(vsize / months, rel=0.05)
    assert planned.fee_sat == pytest.approx(20 * vsize / months, rel=0.05)
    assert planned.capital_sat == pytest.approx(capital_sat / months, rel=0.05)


@pytest.mark.parametrize("n_clients", [2, 8, 64, 256])
@pytest.mark.parametrize("loss_millionths", [0, 50_000, 500_000])
def test_no_day_is_better_than_the_best(n_clients: int, loss_millionths: int) -> None:
    of = draft(n_clients=n_clients, loss_millionths=loss_millionths, feerate_sat_per_kw=5_000)
    least, most = of.active_range_blocks
    best = best_active_blocks(of)
    for active_blocks in range(least, most + 1, 5 * DAY_BLOCKS):
        assert cost(of, best) <= cost(of, active_blocks)
    assert cost(of, best) < cost(of, least)


def test_nobody_lost_makes_the_longest_life_the_best_and_many_lost_a_short_one() -> None:
    quick = Idea(step_blocks=72, states_per_layer=2, dying_blocks=144)
    found = [
        plan_factory(replace(quick, loss_millionths=loss))["best"]
        for loss in (0, 100_000, 500_000, 999_999)
    ]
    lives = [best["active_blocks"] for best in found]
    assert lives == sorted(lives, reverse=True)
    assert len(set(lives)) == len(lives)
    assert [best["is_longest"] for best in found] == [True, False, False, False]
    assert [best["is_shortest"] for best in found] == [False, False, False, True]


def test_a_longer_way_out_asks_for_a_longer_life_and_costs_more() -> None:
    static, dw = (
        draft_of(Idea(n_clients=64, inner_kind=kind)) for kind in (VertexKind.STATIC, VertexKind.DW)
    )
    assert static.exit_blocks < dw.exit_blocks
    assert best_active_blocks(static) < best_active_blocks(dw)
    assert cost(static, 12_960) < cost(dw, 12_960)


def test_more_than_one_close_has_room_for_are_never_closed_together() -> None:
    assert all_there(draft(n_clients=229, loss_millionths=0), 12_960) == 1
    many = draft(n_clients=230, loss_millionths=0)
    assert all_there(many, 12_960) == 0
    life = many.terms.expiry_height - many.terms.build_height
    assert locked_blocks(many, 12_960) == life


@given(
    loss_millionths=losses,
    active_blocks=st.integers(2_016, 51_000),
    feerate_sat_per_kw=st.integers(25, 250_000),
)
def test_the_feerate_from_which_a_factory_is_less_is_where_both_cost_the_same(
    loss_millionths: int, active_blocks: int, feerate_sat_per_kw: int
) -> None:
    of = draft(loss_millionths=loss_millionths, feerate_sat_per_kw=feerate_sat_per_kw)
    factory, channel = in_factory(of, active_blocks), in_channel(of, active_blocks)
    feerate = feerate_from_which_less(factory, channel)
    assert feerate is not None  # One funding for eight is less to publish than eight of them.
    both = [one.capital_sat + feerate * one.vsize for one in (factory, channel)]
    assert both[0] == pytest.approx(both[1])
    is_less = factory.cost_sat < channel.cost_sat
    if abs(feerate_sat_per_kw / 250 - feerate) > 0.01:
        assert is_less == (feerate_sat_per_kw / 250 > feerate)


def test_where_nothing_is_saved_no_feerate_makes_a_factory_less() -> None:
    of = draft(n_clients=2, loss_millionths=10_000)
    assert feerate_from_which_less(in_factory(of, 12_960), in_lasting_channel(of)) is None


@pytest.mark.parametrize("loss_millionths", [0, 100_000, 500_000])
def test_a_channel_that_is_kept_is_what_one_comes_to_the_longer_it_lives(
    loss_millionths: int,
) -> None:
    of = draft(loss_millionths=loss_millionths)
    long, kept = in_channel(of, 10_000 * YEAR_BLOCKS), in_lasting_channel(of)
    assert kept.vsize == pytest.approx(long.vsize, abs=0.01)
    assert kept.cost_sat == pytest.approx(long.cost_sat, abs=0.01)


def test_capital_that_costs_nothing_leaves_the_fees() -> None:
    month = in_factory(draft(capital_millionths=0), 12_960)
    assert month.capital_sat == 0
    assert month.cost_sat == month.fee_sat > 0


def test_the_plot_goes_from_the_shortest_life_to_the_longest() -> None:
    plan = plan_factory(Idea())
    points, times = plan["lifetimes"], plan["times"]
    lives = [point["active_blocks"] for point in points]
    assert len(points) == N_POINTS
    assert (lives[0], lives[-1]) == (times["active_min_blocks"], times["active_max_blocks"])
    assert lives == sorted(set(lives))
    of = draft()
    for point in points:
        for field, month in (
            ("cost_msat", in_factory(of, point["active_blocks"])),
            ("channel_cost_msat", in_channel(of, point["active_blocks"])),
        ):
            assert point[field] == pytest.approx(1000 * month.cost_sat, abs=1)  # type: ignore[literal-required]  # the two above


def test_every_choice_of_shape_is_planned_as_if_it_were_asked_for() -> None:
    choices = plan_factory(Idea(n_clients=16, loss_millionths=200_000))["choices"]
    assert [choice["choice"] for choice in choices] == ["default", "dw", "static"]
    assert [choice["is_chosen"] for choice in choices] == [True, False, False]
    for choice, kind in zip(choices, (None, VertexKind.DW, VertexKind.STATIC), strict=True):
        plan = plan_factory(Idea(n_clients=16, loss_millionths=200_000, inner_kind=kind))
        assert choice["cost_msat"] == plan["factory"]["cost_msat"]
        assert choice["best_active_blocks"] == plan["best"]["active_blocks"]
        assert choice["best_cost_msat"] == plan["best"]["cost_msat"]
        assert choice["exit_blocks"] == plan["times"]["exit_blocks"]
        assert choice["lock_blocks"] == plan["times"]["lock_blocks"]
        assert choice["tree_vsize"] == plan["sizes"]["tree_vsize"]
        assert choice["branch_vsize"] == plan["sizes"]["branch_vsize"]
