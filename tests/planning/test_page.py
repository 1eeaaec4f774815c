"""Every number that docs/economics.md says of a month and of a mass exit, from the plan itself."""

import re
from pathlib import Path
from typing import Final

import pytest

from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.planning.draft import draft_of
from cromford.planning.idea import DAY_BLOCKS, YEAR_BLOCKS, Idea
from cromford.planning.monthly import all_there, hazard, served_blocks
from cromford.planning.plan import PlanDocument, plan_factory
from cromford.protocol.advancing.pricing import MONTH_BLOCKS

BUSY: Final = 30
TIMES: Final = "\N{MULTIPLICATION SIGN}"


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/economics.md").read_text(encoding="utf-8")


def sat_of(amount_msat: int) -> str:
    return f"{amount_msat / 1000:,.1f} sat"


def month_row(n_clients: int, plan: PlanDocument) -> str:
    month, as_long = plan["factory"], plan["channel_as_long"]
    best_days = plan["best"]["active_blocks"] / DAY_BLOCKS
    return (
        f"| {n_clients:,} | {month['vsize']:.1f} | {sat_of(month['fee_msat'])} "
        f"| {sat_of(month['capital_msat'])} | {sat_of(month['cost_msat'])} | {best_days:.0f} days "
        f"| from {as_long['factory_is_less_from_sat_per_vb']:.2f} sat/vB |"
    )


@pytest.mark.parametrize("n_clients", [2, 8, 32, 127, 1_024])
def test_what_a_client_costs_in_a_month(page: str, n_clients: int) -> None:
    assert month_row(n_clients, plan_factory(Idea(n_clients=n_clients))) in page


@pytest.mark.parametrize("n_clients", [8, 64, 127, 1_024])
def test_what_a_mass_exit_takes(page: str, n_clients: int) -> None:
    quiet = plan_factory(Idea(n_clients=n_clients))
    busy = plan_factory(
        Idea(n_clients=n_clients, feerate_sat_per_kw=BUSY * SAT_PER_KW_OF_SAT_PER_VB)
    )["all_leave"]
    ways = " | ".join(
        f"{way['total_vsize']:,} vB, {way['total_fee_sat']:,} sat"
        for way in (quiet["one_leaves"], quiet["all_leave"], busy)
    )
    assert f"| {n_clients:,} | {ways} | {100 * busy['n_blocks']:.1f} % |" in page


def test_the_letters_of_the_example(page: str) -> None:
    draft = draft_of(Idea())
    terms, idea = draft.terms, draft.idea
    for row in (
        f"| clients | {idea.n_clients} |",
        f"| active and dying period | {terms.active_blocks:,} and {terms.dying_blocks} |",
        f"the day that is left after it | {draft.exit_blocks} and 144 |",
        f"| blocks in a month and in a year | {MONTH_BLOCKS:,} and {YEAR_BLOCKS:,} |",
        f"| {draft.plan.input_sat:,} sat |",
        f"what a plain channel has to hold to be as good | {draft.channel_sat:,.0f} sat |",
        f"| what a block asks for | {idea.feerate_sat_per_kw / 250:g} sat/vB |",
        f"| {idea.capital_millionths / 10_000:.2f} % |",
        f"and never come back | {idea.loss_millionths / 10_000:g} % |",
    ):
        assert row in page
    assert draft.end_blocks == draft.exit_blocks + 144


def test_the_sizes_that_its_assumptions_name(page: str) -> None:
    sizes = plan_factory(Idea())["sizes"]
    for told in (
        f"output ({sizes['close_vsize']} vB)",
        f"sweeps the funding output ({sizes['sweep_vsize']} vB)",
        f"one input and a change ({sizes['funding_vsize']} vB)",
        f"closed together by two outputs ({sizes['coop_close_vsize']} vB)",
        f"a day later ({sizes['forced_close_vsize']} vB)",
        f"into its wallet ({sizes['sweep_vsize']} vB)",
    ):
        assert told in " ".join(page.split())
    draft = draft_of(Idea())
    waits = draft.terms.dying_blocks + draft.end_blocks
    assert f"waits {waits:,} blocks longer than anybody uses it" in page
    assert f"or {draft.terms.dying_blocks} where all are there" in page
    assert draft.is_closable
    assert draft_of(Idea(n_clients=229)).is_closable
    assert not draft_of(Idea(n_clients=230)).is_closable
    assert "(0 above 229 clients)" in page


def test_the_worked_example_by_its_own_words(page: str) -> None:
    """Recomputed from the formulas on the page with the numbers on the page."""
    draft, plan = draft_of(Idea()), plan_factory(Idea())
    together, served = all_there(draft, 12_960), served_blocks(draft.idea, 12_960)
    months = served / MONTH_BLOCKS
    published = 154 + together * 124 + (1 - together) * 130
    locked = 12_960 + 432 + (1 - together) * (456 + 144)
    example = " ".join(re.split(r"\*The worked example\*: ", page)[1].split("\n\n")[0].split())
    shared = f"(8 {TIMES} {months:.2f})"
    fees, capital = map(sat_of, (plan["factory"]["fee_msat"], plan["factory"]["capital_msat"]))
    rate, funding_sat = draft.idea.capital_millionths / 1e6, draft.plan.input_sat
    assert example == (
        f"all = exp(-h {TIMES} 13,392) ^ 8 = {together:.3f}, locked = {locked:,.0f} blocks, "
        f"published = {published:.0f} vB, served = {served:,.0f} blocks: {months:.2f} months. "
        f"Fees 2 {TIMES} {published:.0f} / {shared} = {fees}; capital {rate} {TIMES} "
        f"{funding_sat:,} {TIMES} {locked:,.0f} / 52,560 / {shared} = {capital}."
    )
    assert together == pytest.approx((1 - 0.1) ** (13_392 * 8 / 52_560))
    assert served == pytest.approx((1 - 0.9 ** (12_960 / 52_560)) / hazard(draft.idea))
    fee_sat = 2 * published / (8 * months)
    assert plan["factory"]["fee_msat"] == pytest.approx(1_000 * fee_sat, abs=1)
    capital_sat = 0.048667 * 12_005_338 * locked / 52_560 / (8 * months)
    assert plan["factory"]["capital_msat"] == pytest.approx(1_000 * capital_sat, abs=1)
