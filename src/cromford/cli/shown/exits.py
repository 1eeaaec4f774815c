"""Ways out as people read them: what leaving takes, how far one is, what a replaced state pays."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from cromford.answers.exits import PlannedExitStep
from cromford.answers.packages import PackageStep
from cromford.cli.shown.output import blocks, cell, days, facts, sat, short, table
from cromford.told import counted

Document = dict[str, Any]


def exit_steps(console: Console, steps: Sequence[PlannedExitStep | PackageStep]) -> None:
    """Print the transactions of a way out, and where each stands."""
    rows = table("transaction", "size", "fee", "delay", "status", "txid")
    for step in steps:
        at = "" if step["height"] is None else f" (height {step['height']:,})"
        rows.add_row(
            cell(step["name"]),
            cell(f"{step['vsize']:,} vB"),
            cell(sat(step["fee_sat"])),
            cell(blocks(step["delay_blocks"])),
            cell(f"{step['status'].replace('_', ' ')}{at}"),
            cell(short(step["txid"])),
        )
    console.print(rows)


def exit_plan(console: Console, plan: Document) -> None:
    """Print what leaving takes, and what comes next."""
    exit_steps(console, plan["steps"])
    is_left = plan["exit_blocks"] > 0
    facts(
        console,
        [
            (
                "in all",
                f"{counted(plan['n_transactions'], 'transaction')}, {plan['total_vsize']:,} vB",
            ),
            ("fees", f"{sat(plan['total_fee_sat'])} agreed"),
            *(_cost_rows(plan) if is_left else ()),
            *_channel_rows(plan["channel"], is_left=is_left),
            *_poison_rows(plan["superseded"]),
            *([("needs a coin of yours", _coin_needed(plan))] if is_left else ()),
            ("next", plan["next"]),
        ],
    )


def _cost_rows(plan: Document) -> list[tuple[str, object]]:
    """Return what is still to be paid and waited for; what is in a block is paid already."""
    today, n_blocks = plan["fees_today"], plan["exit_blocks"]
    rows: list[tuple[str, object]] = []
    if today["fee_sat"]:
        rows = [
            *(
                (f"at {one['feerate_sat_per_vb']:g} sat/vB", _fees_at(one))
                for one in plan["fees_at"]
            ),
            (f"today, {today['feerate_sat_per_vb']:g} sat/vB", _fees_today(plan)),
            ("without a coin", f"up to {plan['without_coins_sat_per_vb']:.2f} sat/vB"),
        ]
    return [
        *rows,
        ("delays", f"{blocks(plan['total_delay_blocks'])}"),
        ("time to allow", f"{blocks(n_blocks)}, {days(n_blocks)}"),
        ("arrives in the channel", f"{sat(plan['channel_sat'])}, yours and the LSP's"),
    ]


def _coin_needed(plan: Document) -> str:
    return "yes, to pay the fees" if plan["needs_coin"] else "no"


def _fees_today(plan: Document) -> str:
    today = plan["fees_today"]
    short = f"; your wallet lacks {sat(today['short_sat'])} for them" if today["short_sat"] else ""
    return _fees_at(today) + short


def _fees_at(fee: Document) -> str:
    """Return what leaving costs at a feerate, and which coins of one's own that takes."""
    if not fee["n_coins"]:
        return f"{sat(fee['fee_sat'])}, as agreed"
    coins = "a coin" if fee["n_coins"] == 1 else f"{fee['n_coins']} coins, in all"
    return (
        f"{sat(fee['fee_sat'])}, of which children {sat(fee['children_sat'])}, "
        f"out of {coins} of {sat(fee['coin_sat'])}"
    )


def _channel_rows(channel: Document | None, *, is_left: bool) -> list[tuple[str, object]]:
    """Return what follows out of the channel, if it can be said."""
    if channel is None:
        return []
    rows: list[tuple[str, object]] = []
    for step in channel["steps"]:
        size, after = f"{step['vsize']:,} vB", f"{blocks(step['delay_blocks'])} after the channel"
        rows.append(("then", f"{step['name']}, {size}, {sat(step['fee_sat'])}, {after}"))
    rows += [
        ("not worth its fee", f"{left['name']}, {sat(left['amount_sat'])}")
        for left in channel["left_behind"]
    ]
    reaches = "reaches your wallet" if is_left else "reached your wallet"
    return [*rows, (reaches, sat(channel["exit_sat"]))]


def _poison_rows(superseded: Document | None) -> list[tuple[str, object]]:
    """Return what is gotten of a state that was replaced, if one is in a block."""
    if superseded is None:
        return []
    rows: list[tuple[str, object]] = [("replaced, and on chain", superseded["state"])]
    for one in superseded["poisons"]:
        at = "" if one["height"] is None else f" at height {one['height']:,}"
        told = f"{one['name']}, {one['status'].replace('_', ' ')}{at}"
        rows.append(("poison", f"{told}: pays you {sat(one['pays_sat'])}"))
    return [*rows, ("still on its way", sat(superseded["arriving_sat"]))]


def exit_started(console: Console, answer: Document) -> None:
    """Print that the exit began, and what comes next."""
    console.print(cell(f"leaving; next: {answer['next']}"), soft_wrap=True)


def exit_paused(console: Console, _answer: Document) -> None:
    """Print that an exit rests."""
    console.print("the exit rests; `cromford client exit start` goes on with it")


def exit_status(console: Console, status: Document) -> None:
    """Print how far an exit is."""
    rows = table("transaction", "status", "txid")
    poisons = [] if status["superseded"] is None else status["superseded"]["poisons"]
    for step in [*status["steps"], *status["due"], *poisons]:
        at = "" if step["height"] is None else f" (height {step['height']:,})"
        rows.add_row(
            cell(step["name"]),
            cell(f"{step['status'].replace('_', ' ')}{at}"),
            cell("" if step["txid"] is None else short(step["txid"])),
        )
    console.print(rows)
    state = "not begun"
    if status["exiting"]:
        state = "paused" if status["paused"] else "under way"
    if status["over"]:
        state = "over: nothing of this factory can be lost any more"
    end_height = status["end_height"]
    facts(
        console,
        [
            ("exit", state),
            *(("waits", _waiting(one)) for one in status["waiting"]),
            *(("refused", f"{one['name']}: {one['reason']}") for one in status["refused"]),
            ("at stake", sat(status["stake_sat"])),
            ("on chain by", "no hurry" if end_height is None else f"height {end_height:,}"),
            ("children cost", f"{sat(status['children_cost_sat'])} so far"),
            ("may still cost", sat(status["budget_left_sat"])),
            ("coins set aside", str(len(status["coins"]))),
            ("next", status["next"]),
        ],
    )


def _waiting(one: Document) -> str:
    wanted = f"{one['wanted_sat_per_vb']:.2f} sat/vB wanted"
    if not one["waits"]:
        return f"{one['name']}: not in the node's mempool, {wanted}"
    paid = f"{one['name']}: {one['package_sat_per_vb']:.2f} sat/vB, {wanted}"
    if one["child_txid"] is None:
        return paid
    whose = "our child" if one["child_is_ours"] else "somebody's child"
    return f"{paid}, by {whose} {short(one['child_txid'])} of {sat(one['child_fee_sat'])}"
