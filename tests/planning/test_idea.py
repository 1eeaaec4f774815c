"""A plan that cannot be is refused by name, with what was expected and what was received."""

from dataclasses import replace
from typing import Any

import pytest
from tests.factory.specimen import DW, STATIC

from cromford.factory.kinds import InnerLevels
from cromford.planning.idea import CAPITAL_MILLIONTHS, Idea, InvalidPlan
from cromford.planning.plan import plan_factory
from cromford.protocol.policy import LspPolicy, SalePrice

DEEP = InnerLevels(arities=(2,) * 8, kinds=(STATIC,) * 8)
NARROW = InnerLevels(arities=(1,), kinds=(STATIC,))
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("n_clients", {"n_clients": 0}, "1..1024"),
    ("n_clients", {"n_clients": 1025}, "1..1024"),
    ("leaf_arity", {"leaf_arity": 0}, "1..1024"),
    ("capacity_sat", {"capacity_sat": 0}, "1..2100000000000000"),
    ("capacity_sat", {"capacity_sat": 19_999}, "at least 20000"),
    ("capacity_sat", {"tree_feerate_sat_per_kw": 5_000, "capacity_sat": 80_000}, "at least 88140"),
    ("capacity_sat", {"n_clients": 3, "capacity_sat": 10**15}, "2100000000000000 sat in all"),
    ("tree_feerate_sat_per_kw", {"tree_feerate_sat_per_kw": 0}, "0.1 sat/vB..1,000 sat/vB"),
    ("tree_feerate_sat_per_kw", {"tree_feerate_sat_per_kw": 5_001}, "1 sat/vB..20 sat/vB"),
    ("feerate_sat_per_kw", {"feerate_sat_per_kw": 24}, "0.1 sat/vB..1,000 sat/vB"),
    ("capital_millionths", {"capital_millionths": 1_000_001}, "0 %..100 %"),
    ("loss_millionths", {"loss_millionths": 1_000_000}, "0 %..99.9999 %"),
    ("loss_millionths", {"loss_millionths": -1}, "0 %..99.9999 %"),
    ("step_blocks", {"step_blocks": 71}, "72..1008"),
    ("step_blocks", {"step_blocks": 0}, "1..65535"),
    ("states_per_layer", {"states_per_layer": 1}, "2..65535"),
    ("states_per_layer, step_blocks", {"states_per_layer": 65_000}, "65535"),
    ("max_exit_delay_blocks", {"states_per_layer": 11}, "1440 (static, dw)"),
    ("max_exit_delay_blocks", {"max_exit_delay_blocks": 0}, "1..525600"),
    ("active_blocks", {"active_blocks": 2_015}, "at least ready_min_blocks (2016)"),
    ("active_blocks", {"active_blocks": 51_529}, "2016..51528"),
    ("dying_blocks", {"dying_blocks": 143}, "144..4320"),
    ("inner_kind", {"inner_kind": DW, "inner_levels": DEEP}, "none where inner_levels"),
    ("inner_arities", {"inner_levels": NARROW}, "2..1024"),
    ("inner_levels", {"n_clients": 4, "inner_levels": DEEP}, "1 level for 4 clients"),
    ("inner_levels", {"n_clients": 2, "inner_levels": DEEP}, "0 levels for 2 clients"),
    ("layers", {"n_clients": 512, "inner_levels": DEEP}, "1..8"),
    ("state_root", {"n_clients": 231, "leaf_arity": 231}, "at most 10000 vB"),
]


@pytest.mark.parametrize(
    ("field", "changes", "expected"), REFUSED, ids=[field for field, *_ in REFUSED]
)
def test_what_no_factory_can_be_is_refused_by_name(
    field: str, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InvalidPlan) as refused:
        plan_factory(replace(Idea(), **changes))
    assert refused.value.field == field
    assert expected in str(refused.value)
    assert str(refused.value).startswith(f"{field}: expected ")


def test_the_defaults_are_those_of_an_lsp() -> None:
    idea, policy = Idea(), LspPolicy()
    assert idea.policy == policy
    assert SalePrice().per_month / 1e6 / 30 * 365 * 1e6 == pytest.approx(CAPITAL_MILLIONTHS, abs=1)


def test_what_was_asked_for_is_told_again() -> None:
    told = plan_factory(
        Idea(
            n_clients=12,
            leaf_arity=3,
            step_blocks=100,
            states_per_layer=3,
            active_blocks=20_000,
            dying_blocks=500,
            capacity_sat=123_456,
            tree_feerate_sat_per_kw=750,
            feerate_sat_per_kw=1_000,
            capital_millionths=50_000,
            loss_millionths=2_500,
        )
    )["asked"]
    assert told == {
        "n_clients": 12,
        "leaf_arity": 3,
        "step_blocks": 100,
        "states_per_layer": 3,
        "active_blocks": 20_000,
        "dying_blocks": 500,
        "capacity_sat": 123_456,
        "tree_feerate_sat_per_vb": 3.0,
        "feerate_sat_per_vb": 4.0,
        "capital_percent_per_year": 5.0,
        "loss_percent_per_year": 0.25,
    }


def test_a_shape_that_cannot_be_stands_among_the_choices_with_its_reason() -> None:
    plan = plan_factory(Idea(n_clients=64, step_blocks=400))
    refusals = {choice["choice"]: choice["refusal"] for choice in plan["choices"]}
    assert refusals["default"] is refusals["static"] is None
    assert refusals["dw"] is not None
    assert refusals["dw"].startswith("max_exit_delay_blocks: expected at least 2400")
    (dw,) = [choice for choice in plan["choices"] if choice["choice"] == "dw"]
    empty = {field for field, value in dw.items() if value is None}
    assert empty == set(dw) - {"choice", "is_chosen", "refusal"}


def test_a_longer_way_out_is_planned_where_it_is_allowed() -> None:
    plan = plan_factory(Idea(states_per_layer=11, max_exit_delay_blocks=1_440))
    assert plan["times"]["exit_delay_blocks"] == 1_440


def test_own_levels_are_a_choice_beside_the_others() -> None:
    own = InnerLevels(arities=(2, 2), kinds=(STATIC, DW))
    choices = plan_factory(Idea(inner_levels=own))["choices"]
    assert [(choice["choice"], choice["is_chosen"]) for choice in choices] == [
        ("default", False),
        ("dw", False),
        ("static", False),
        ("own", True),
    ]
    assert choices[-1]["inner_kinds"] == ["static", "dw"]
