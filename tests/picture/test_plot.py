"""A plan's plot: the curve is the plan's, the best life is marked where the curve is lowest."""

import xml.etree.ElementTree as ET

import pytest
from tests.picture.drawn import SVG, check, numbers, numbers_of, parsed, texts

from cromford.picture.plot import cost_plot
from cromford.planning.idea import DAY_BLOCKS, Idea
from cromford.planning.plan import PlanDocument, plan_factory

IDEAS = {
    "usual": Idea(),
    "many and dear": Idea(n_clients=64, feerate_sat_per_kw=10_000),
    "nobody lost": Idea(loss_millionths=0),
    "many lost": Idea(
        loss_millionths=999_999, step_blocks=72, states_per_layer=2, dying_blocks=144
    ),
    "free capital": Idea(capital_millionths=0),
    "two": Idea(n_clients=2),
    "nothing costs": Idea(capital_millionths=0, loss_millionths=0, feerate_sat_per_kw=25),
}
EVERY = pytest.mark.parametrize("idea", IDEAS.values(), ids=IDEAS)


def plan_of(idea: Idea) -> tuple[PlanDocument, ET.Element]:
    plan = plan_factory(idea)
    return plan, check(cost_plot(plan))


def curve(root: ET.Element, style: str) -> list[tuple[float, float]]:
    (found,) = [line for line in root.iter(f"{SVG}polyline") if line.get("class") == style]
    pairs = [pair.split(",") for pair in (found.get("points") or "").split()]
    return [(float(x), float(y)) for x, y in pairs]


@EVERY
def test_the_curves_are_the_plans_points(idea: Idea) -> None:
    plan, root = plan_of(idea)
    for style, field in (("curve", "cost_msat"), ("line dashed", "channel_cost_msat")):
        places = curve(root, style)
        costs = [point[field] for point in plan["lifetimes"]]  # type: ignore[literal-required]  # the two above
        assert len(places) == len(costs)
        assert [x for x, _ in places] == sorted(x for x, _ in places)
        (_, first), (_, last) = places[0], places[-1]
        if costs[0] != costs[-1]:
            scale = (last - first) / (costs[0] - costs[-1])
            assert scale > 0  # What costs more stands higher.
            for (_, y), cost in zip(places, costs, strict=True):
                assert y == pytest.approx(first + scale * (costs[0] - cost), abs=0.05)


@EVERY
def test_the_best_life_is_marked_at_the_lowest_place(idea: Idea) -> None:
    plan, root = plan_of(idea)
    (point,) = [circle for circle in root.iter(f"{SVG}circle") if circle.get("class") == "point"]
    x, y = float(point.get("cx", "")), float(point.get("cy", ""))
    places = curve(root, "curve")
    assert y >= max(y for _, y in places) - 0.05
    assert places[0][0] - 0.05 <= x <= places[-1][0] + 0.05
    days = f"{plan['best']['active_blocks'] / DAY_BLOCKS:.0f} days"
    assert f"best: {days}" in texts(root)
    described = root.findtext(f"{SVG}desc") or ""
    assert f"least at {days}" in described


@EVERY
def test_every_number_of_the_plot_is_the_plans(idea: Idea) -> None:
    plan, root = plan_of(idea)
    allowed = {*numbers_of(plan)}
    lives = [point["active_blocks"] for point in plan["lifetimes"]]
    lives += [plan["best"]["active_blocks"], plan["asked"]["active_blocks"]]
    allowed |= {f"{life / DAY_BLOCKS:.0f}" for life in lives}
    costs = [point["cost_msat"] for point in plan["lifetimes"]] + [plan["best"]["cost_msat"]]
    costs += [point["channel_cost_msat"] for point in plan["lifetimes"]]
    allowed |= {f"{cost / 1000:.0f}" for cost in costs}
    asked = plan["asked"]
    for rate in (asked["capital_percent_per_year"], asked["loss_percent_per_year"]):
        allowed |= {f"{rate:.2f}", f"{rate:g}"}
    allowed |= {f"{asked['feerate_sat_per_vb']:g}"}
    feerate = plan["channel_as_long"]["factory_is_less_from_sat_per_vb"]
    allowed |= {f"{feerate:g}"} if feerate else set()
    assert numbers(texts(root)) <= allowed


def test_a_channel_that_costs_more_than_the_plot_is_high_is_cut_at_its_edge() -> None:
    _, root = plan_of(IDEAS["many and dear"])
    (group,) = [g for g in root.iter(f"{SVG}g") if g.get("clip-path")]
    assert group.get("clip-path") == "url(#cost-plot)"
    (clip,) = root.iter(f"{SVG}clipPath")
    (rect,) = clip
    top = float(rect.get("y", ""))
    assert curve(root, "line dashed")[0][1] < top
    assert curve(root, "curve")[0][1] >= top


def test_what_it_says_beside_a_channel() -> None:
    free, usual = (texts(plan_of(IDEAS[name])[1]) for name in ("free capital", "usual"))
    assert "at any feerate." in " ".join(free)
    assert "from 3.6 sat/vB on." in " ".join(usual)
    plan = plan_factory(Idea())
    plan["channel_as_long"]["factory_is_less_from_sat_per_vb"] = None
    assert "such a channel" not in " ".join(texts(parsed(cost_plot(plan))))


def test_the_names_in_it_begin_as_asked() -> None:
    plan = plan_factory(Idea())
    one, two = (
        {e.get("id") for e in parsed(cost_plot(plan, prefix=prefix)).iter()}
        for prefix in ("a", "b")
    )
    assert one & two == {None}


def test_the_same_plan_gives_the_same_plot() -> None:
    assert cost_plot(plan_factory(Idea())) == cost_plot(plan_factory(Idea()))
