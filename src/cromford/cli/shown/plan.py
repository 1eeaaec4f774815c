"""A plan as tables and a plot: what a factory costs, before it exists."""

from typing import Final

from rich.console import Console

from cromford.channel.terms import MSAT_PER_SAT
from cromford.cli.shown import plot
from cromford.cli.shown.output import BLOCKS_PER_DAY, blocks, cell, days, facts, sat, table
from cromford.planning.plan import (
    ChannelDocument,
    ChoiceDocument,
    MonthDocument,
    PlanDocument,
    WayOutDocument,
)
from cromford.told import counted

SHARE_SHOWN: Final = 0.01  # Of a block; less is told as less.


def plan(console: Console, document: PlanDocument) -> None:
    """Print a plan."""
    facts(console, [*_factory_rows(document), *_leaving_rows(document)])
    console.print()
    _print_months(console, document)
    for line in _verdicts(document):
        console.print(cell(line), soft_wrap=True)
    console.print()
    _print_plot(console, document)
    console.print()
    _print_choices(console, document["choices"])


def _factory_rows(document: PlanDocument) -> list[tuple[str, object]]:
    asked, shape, times = document["asked"], document["shape"], document["times"]
    capital, life = document["capital"], document["factory"]
    levels = _levels(shape["inner_kinds"], shape["inner_arities"])
    tree = (
        f"{counted(shape['n_leaves'], 'leaf', 'leaves')} under {levels}" if levels else "one leaf"
    )
    burnt_sat = capital["tree_fees_sat"] + capital["anchors_sat"]
    active, whole = blocks(life["active_blocks"]), times["life_blocks"]
    expiry = f"expiry after {blocks(whole)} ({days(whole)})"
    all_there = f"that all are there to close it: {life['all_there_percent']:g} %"
    return [
        ("factory", f"{counted(asked['n_clients'], 'client')}: {tree}"),
        ("on chain", f"{counted(shape['n_transactions'], 'transaction')} wait, none is published"),
        ("life", f"{active} active, {expiry}"),
        ("capital", f"{sat(capital['funding_amount_sat'])}, of it {sat(burnt_sat)} for leaving"),
        ("locked", f"{blocks(life['locked_blocks'])} as expected; {all_there}"),
        ("a payment locks", f"{blocks(times['lock_blocks'])} at the most"),
    ]


def _leaving_rows(document: PlanDocument) -> list[tuple[str, object]]:
    times, one = document["times"], document["one_leaves"]
    wait = f"{blocks(times['exit_blocks'])} ({days(times['exit_blocks'])})"
    coin = f", a coin of {sat(one['coin_sat'])}" if one["coin_sat"] else ""
    return [
        ("leaving takes", f"{wait}, of them {times['exit_delay_blocks']:,} of delays"),
        ("one leaves", f"{_way_out(one)}{coin}"),
        ("all leave", f"{_way_out(document['all_leave'])}; {_share(document['all_leave'])}"),
    ]


def _way_out(way: WayOutDocument) -> str:
    children = f" and {counted(way['n_children'], 'child', 'children')}"
    told = counted(way["n_transactions"], "transaction")
    return (
        f"{told}{children if way['n_children'] else ''}, {way['total_vsize']:,} vB, "
        f"{sat(way['total_fee_sat'])}"
    )


def _share(way: WayOutDocument) -> str:
    if way["n_blocks"] < SHARE_SHOWN:
        return f"less than {100 * SHARE_SHOWN:g} % of a block"
    if way["n_blocks"] < 1:
        return f"{100 * way['n_blocks']:.0f} % of a block"
    return f"{way['n_blocks']:.1f} blocks"


def _print_months(console: Console, document: PlanDocument) -> None:
    asked = document["asked"]
    told = (
        f"sat per client and month, at {asked['feerate_sat_per_vb']:g} sat/vB, "
        f"{asked['capital_percent_per_year']:.2f} % a year for capital, "
        f"{asked['loss_percent_per_year']:g} % of clients lost a year"
    )
    console.print(cell(told), soft_wrap=True)
    rows = table("", "days", "vB", "fees", "capital", "in all")
    lives: list[tuple[str, int | None, MonthDocument]] = [
        ("factory", asked["active_blocks"], document["factory"]),
        ("factory at best", document["best"]["active_blocks"], document["best"]),
        ("channel as long", asked["active_blocks"], document["channel_as_long"]),
        ("channel kept", None, document["channel_kept"]),
    ]
    for name, kept_blocks, month in lives:
        rows.add_row(
            cell(name),
            cell("-" if kept_blocks is None else f"{kept_blocks / BLOCKS_PER_DAY:.0f}"),
            cell(f"{month['vsize']:,.1f}"),
            *(cell(_sat_of(month[field])) for field in ("fee_msat", "capital_msat", "cost_msat")),
        )
    console.print(rows)


def _sat_of(amount_msat: int) -> str:
    return f"{amount_msat / MSAT_PER_SAT:,.1f}"


def _verdicts(document: PlanDocument) -> list[str]:
    best = document["best"]
    least = f"best life: {blocks(best['active_blocks'])} active ({days(best['active_blocks'])})"
    if best["is_longest"]:
        least += ", the longest that clients sign"
    elif best["is_shortest"]:
        least += ", the shortest that clients sign"
    as_long, kept = _from_where(document["channel_as_long"]), _from_where(document["channel_kept"])
    return [
        least,
        f"beside a plain channel for as long: {as_long}",
        f"beside one that is kept until the client is lost: {kept}",
    ]


def _from_where(channel: ChannelDocument) -> str:
    feerate = channel["factory_is_less_from_sat_per_vb"]
    if feerate is None:
        return "never less"
    return "less at any feerate" if feerate == 0 else f"less from {feerate:,g} sat/vB on"


def _print_plot(console: Console, document: PlanDocument) -> None:
    points, best = document["lifetimes"], document["best"]
    marked = min(
        range(len(points)),
        key=lambda place: abs(points[place]["active_blocks"] - best["active_blocks"]),
    )
    first, last = (_in_days(points[place]["active_blocks"]) for place in (0, -1))
    plot.columns(
        console,
        [point["cost_msat"] / MSAT_PER_SAT for point in points],
        marked=marked,
        ends=(first, last),
        under_mark=f"best: {_in_days(best['active_blocks'])}",
        caption="sat per client and month, by days of active life",
    )


def _in_days(active_blocks: int) -> str:
    return f"{active_blocks / BLOCKS_PER_DAY:.0f} days"


def _levels(kinds: list[str], arities: list[int]) -> str:
    """Return the levels above the leaves in short: `static 6, 6` where all are of one kind."""
    if len(set(kinds)) == 1:
        return f"{kinds[0]} {', '.join(map(str, arities))}"
    return ", ".join(f"{kind} {arity}" for kind, arity in zip(kinds, arities, strict=True))


def _print_choices(console: Console, choices: list[ChoiceDocument]) -> None:
    rows = table("shape", "levels", "leaving", "branch", "tree", "a month", "best life")
    for choice in choices:
        name = f"{choice['choice']} *" if choice["is_chosen"] else choice["choice"]
        if choice["refusal"] is not None:
            rows.add_row(cell(name), cell(choice["refusal"]), *[cell("")] * 5)
        else:
            rows.add_row(cell(name), *map(cell, _cells(choice)))
    console.print(rows)
    told = "leaving: in how many blocks; a month: what a client costs; * chosen"
    console.print(cell(told, "dim"), soft_wrap=True)


def _cells(choice: ChoiceDocument) -> list[str]:
    cost_msat, best_blocks = choice["cost_msat"], choice["best_active_blocks"]
    kinds, arities = choice["inner_kinds"], choice["inner_arities"]
    if cost_msat is None or best_blocks is None or kinds is None or arities is None:
        raise AssertionError("all of a shape that is not refused is known")
    return [
        _levels(kinds, arities) if kinds else "none",
        f"{choice['exit_blocks']:,}",
        f"{choice['branch_vsize']:,} vB",
        f"{choice['tree_vsize']:,} vB",
        f"{cost_msat / MSAT_PER_SAT:,.0f} sat",
        _in_days(best_blocks),
    ]
