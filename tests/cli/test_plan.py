"""`cromford plan`: no daemon, no data directory, no node; in tables, a plot, one document."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

import pytest
from rich.console import Console
from tests.cli.conftest import CommandLine
from tests.cli.test_narrow import amounts

from cromford.cli.shown import output, plan, plot
from cromford.factory.kinds import VertexKind
from cromford.planning.idea import Idea
from cromford.planning.plan import PlanDocument, plan_factory

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTHS = (40, 60, 80, 120)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A home without anything in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(None)


def shown(document: PlanDocument, width: int, *, is_coloured: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        color_system="truecolor" if is_coloured else None,
        force_terminal=is_coloured,
    )
    plan.plan(console, document)
    return stream.getvalue()


def test_it_asks_nobody_and_leaves_nothing(line: CommandLine, tmp_path: Path) -> None:
    assert line.document("plan") == json.loads(json.dumps(plan_factory(Idea())))
    assert list(tmp_path.iterdir()) == []


def test_every_option_reaches_the_plan(line: CommandLine) -> None:
    words = (
        "--clients 20 --leaf-arity 3 --inner dw --max-exit-delay-blocks 2000 --step-blocks 100 "
        "--states 5 --active-blocks 20000 --dying-blocks 500 --capacity-sat 0.002btc "
        "--tree-feerate 3 --feerate 7.5 --capital-rate 6 --loss-rate 0.5"
    )
    expected = Idea(
        n_clients=20,
        leaf_arity=3,
        inner_kind=VertexKind.DW,
        max_exit_delay_blocks=2_000,
        step_blocks=100,
        states_per_layer=5,
        active_blocks=20_000,
        dying_blocks=500,
        capacity_sat=200_000,
        tree_feerate_sat_per_kw=750,
        feerate_sat_per_kw=1_875,
        capital_millionths=60_000,
        loss_millionths=5_000,
    )
    assert line.document("plan", *words.split()) == plan_factory(expected)


def test_levels_of_ones_own_are_given_by_two_lists(line: CommandLine) -> None:
    document = line.document("plan", "--inner-arities", "2,2", "--inner-kinds", "static,dw")
    assert document["shape"]["inner_arities"] == [2, 2]
    assert document["shape"]["inner_kinds"] == ["static", "dw"]
    assert document["choices"][-1]["choice"] == "own"


REFUSED = [
    ("--clients 0", "usage", "expected a whole number in 1..1024, received 0"),
    ("--inner static,dw", "usage", "expected one of dw, static"),
    (
        "--clients 2 --inner static",
        "plan_invalid",
        "inner: expected none for 2 clients in one leaf, received static",
    ),
    ("--inner-arities 2", "usage", "expected both or neither, received only the arities"),
    ("--inner-kinds dw", "usage", "expected both or neither, received only the kinds"),
    ("--capacity-sat much", "usage", "expected a whole number in 1..2100000000000000"),
    ("--feerate 0", "usage", "expected a number in 0.1..1000, received 0"),
    ("--loss-rate 100", "usage", "expected a number in 0..99.9999, received 100"),
    ("--active-blocks 2000", "plan_invalid", "active_blocks: expected at least ready_min_blocks"),
    (
        "--tree-feerate 21",
        "plan_invalid",
        "tree_feerate: expected 1 sat/vB..20 sat/vB, received 21 sat/vB",
    ),
    (
        "--inner dw --inner-arities 4 --inner-kinds dw",
        "plan_invalid",
        "inner: expected none where inner_levels say it all, received dw",
    ),
    ("--network signet", "usage", "No such option"),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED)
def test_what_cannot_be_planned_is_refused_by_name(
    line: CommandLine, words: str, code: str, message: str
) -> None:
    result = line.run("plan", *words.split(), "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    error = json.loads(result.stderr)
    assert error["code"] == code
    assert message in error["message"]
    assert error["retryable"] is False


def test_a_refusal_names_the_option_to_change(line: CommandLine) -> None:
    for words, remedy in (
        ("--tree-feerate 21", "Change --tree-feerate."),
        ("--step-blocks 60", "Change --step-blocks."),
        ("--inner dw --inner-arities 4 --inner-kinds dw", "Change --inner."),
        ("--clients 2 --inner-arities 2 --inner-kinds dw", "Change --inner-arities."),
        ("--states 60000", "See: cromford plan --help"),
    ):
        assert remedy in line.run("plan", *words.split()).stderr


def test_a_data_directory_before_it_is_refused(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("plan")
    assert result.exit_code == 2
    assert "--datadir: this command has no use for it" in result.stderr


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "idea",
    [Idea(), Idea(n_clients=1_024, feerate_sat_per_kw=12_500), Idea(n_clients=1)],
    ids=["8", "1024", "1"],
)
def test_it_shows_every_amount_however_narrow_the_terminal(idea: Idea, width: int) -> None:
    document = plan_factory(idea)
    told = shown(document, width)
    assert "…" not in told
    assert amounts(told) == amounts(shown(document, output.WIDTH_WITHOUT_TERMINAL))


def test_tables_and_plot_fit_into_sixty_columns_but_the_one_of_shapes() -> None:
    lines = shown(plan_factory(Idea(n_clients=64)), 60).splitlines()
    month = lines.index(next(one for one in lines if one.split()[:2] == ["days", "vB"]))
    assert [one.split()[0] for one in lines[month + 1 : month + 5]] == ["factory"] * 2 + [
        "channel"
    ] * 2
    plotted = [one for one in lines if re.search("[▁▂▃▄▅▆▇█▲]", one)]
    assert len(plotted) == plot.ROWS + 1
    assert max(map(len, plotted)) <= 60


def test_it_says_every_number_that_somebody_plans_by() -> None:
    document = plan_factory(Idea(n_clients=64, feerate_sat_per_kw=7_500))
    told = " ".join(shown(document, 240).split())
    times, capital, best = document["times"], document["capital"], document["best"]
    months = (
        document["factory"],
        best,
        document["channel_as_long"],
        document["channel_kept"],
    )
    for number in (
        f"{times['exit_blocks']:,} blocks",
        f"{times['lock_blocks']:,} blocks",
        f"{times['life_blocks']:,} blocks",
        f"{capital['funding_amount_sat']:,} sat",
        f"{document['one_leaves']['total_vsize']:,} vB",
        f"{document['one_leaves']['total_fee_sat']:,} sat",
        f"a coin of {document['one_leaves']['coin_sat']:,} sat",
        f"{document['all_leave']['total_vsize']:,} vB",
        f"{document['all_leave']['total_fee_sat']:,} sat; 5 % of a block",
        f"best life: {best['active_blocks']:,} blocks active",
        *(f"{month['cost_msat'] / 1000:,.1f}" for month in months),
        f"less from {document['channel_as_long']['factory_is_less_from_sat_per_vb']:g} sat/vB on",
    ):
        assert number in told, number


def test_what_is_never_or_always_less_is_told_in_words() -> None:
    told = shown(plan_factory(Idea(n_clients=2)), 120)
    assert "kept until the client is lost: never less" in told
    free = shown(plan_factory(Idea(capital_millionths=0)), 120)
    assert "for as long: less at any feerate" in free


@pytest.mark.parametrize(
    ("idea", "words"),
    [
        (Idea(loss_millionths=0), ", the longest that clients sign"),
        (
            Idea(loss_millionths=999_999, step_blocks=72, states_per_layer=2, dying_blocks=144),
            ", the shortest that clients sign",
        ),
    ],
)
def test_a_best_life_at_a_limit_says_so(idea: Idea, words: str) -> None:
    assert words in shown(plan_factory(idea), 120)


def test_a_mass_exit_beyond_a_block_is_told_in_blocks() -> None:
    document = plan_factory(Idea(n_clients=1_024, inner_kind=VertexKind.STATIC))
    document["all_leave"]["n_blocks"] = 1.26
    assert "sat; 1.3 blocks" in shown(document, 240)


def drawn(heights: Sequence[float], *, marked: int, width: int = 60) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    plot.columns(
        console, heights, marked=marked, ends=("1 d", "9 d"), under_mark="here", caption="cost"
    )
    return stream.getvalue().splitlines()


def heights_of(lines: Sequence[str], *, margin: int) -> list[int]:
    """Return the height of each column in eighths of a row, and that nothing is above a gap."""
    rows = [row[margin:] for row in lines[1 : 1 + plot.ROWS]]
    n_columns = max(map(len, rows))
    found = []
    for place in range(n_columns):
        column = [BLOCKS.index(row.ljust(n_columns)[place]) for row in reversed(rows)]
        assert column == sorted(column, reverse=True)
        assert sum(0 < part < 8 for part in column) <= 1
        found.append(sum(column))
    return found


def test_columns_are_as_high_as_their_numbers() -> None:
    numbers = [300, 200, 150, 120, 100, 110, 130]
    lines = drawn(numbers, marked=4)
    found = heights_of(lines, margin=5)
    most = 8 * plot.ROWS
    bottom = 100 - 200 / (plot.ROWS - 1)
    assert found == [round((number - bottom) / (300 - bottom) * most) for number in numbers]
    assert lines[1].startswith("300  ")
    assert lines[plot.ROWS].startswith(f"{bottom:3,.0f}  ")


def test_the_mark_stands_under_its_column_without_any_colour() -> None:
    lines = drawn([5, 4, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9], marked=4)
    assert lines[plot.ROWS + 1] == " " * (3 + 4) + "▲"
    assert lines[plot.ROWS + 2].split() == ["1", "d", "here", "9", "d"]


def test_more_numbers_than_columns_keep_the_marked_one() -> None:
    numbers = [1_000.0 - place for place in range(500)]
    numbers[333] = 1.0
    lines = drawn(numbers, marked=333, width=40)
    assert max(map(len, lines)) <= 40
    found = heights_of(lines, margin=7)
    assert found.index(min(found)) == lines[plot.ROWS + 1].index("▲") - 7


def test_numbers_that_are_all_alike_are_a_flat_line() -> None:
    assert len(set(heights_of(drawn([7.0] * 5, marked=0), margin=3))) == 1


def test_a_mark_without_room_for_its_words_has_none() -> None:
    lines = drawn([3, 2, 1, 2, 3, 4, 5, 6], marked=2)
    assert lines[plot.ROWS + 2].split() == ["1", "d", "9", "d"]


def test_colour_only_adds_to_what_is_there_without_it() -> None:
    document = plan_factory(Idea())
    coloured = shown(document, 80, is_coloured=True)
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain == shown(document, 80)


def test_the_document_has_all_that_its_type_says_and_units_in_its_names() -> None:
    document = plan_factory(Idea())
    assert set(document) == set(get_type_hints(PlanDocument))
    units = re.compile(
        r"^(n_\w+|\w+_(sat|msat|blocks|vsize|percent|percent_per_year|sat_per_vb|sat_per_client)"
        r"|is_\w+|inner_\w+|choice|refusal|leaf_arity|states_per_layer|vsize)$"
    )
    parts = [part for part in document.values() if isinstance(part, dict)]
    parts += [*document["lifetimes"], *document["choices"]]  # type: ignore[list-item]  # typed, each its own
    for part in parts:
        for field in part:
            assert units.match(field) or field == "per_client_sat", field
