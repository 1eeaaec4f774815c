"""What a demo shows at its end: the tree, who paid, everybody's money, and every way out."""

from typing import Any

from rich.console import Console

from cromford.cli.shown import tree
from cromford.cli.shown.output import blocks, cell, expiry_text, msat, sat, table
from cromford.told import counted

Document = dict[str, Any]


def result(console: Console, shown: Document) -> None:
    """Print what was built, what was paid in it, and how to go on."""
    exported, summary = shown["factory"], shown["summary"]
    console.print()
    _heading(console, f"factory {exported['factory_id']}")
    told = cell(f"{summary['status']}, {counted(summary['n_clients'], 'client')}; ")
    console.print(told.append_text(expiry_text(summary)))
    console.print()
    tree.print_tree(console, exported)
    console.print()
    _heading(console, "Who paid what")
    tree.print_ledger(console, exported["ledger"])
    console.print()
    _print_money(console, shown["payments"])
    console.print()
    if shown["sale"] is not None:
        _print_sale(console, shown["sale"])
        console.print()
    _heading(console, "Each client's way out, alone")
    for client in shown["clients"]:
        line = tree.exit_line(client["client"], client["exit_plan"])
        console.print(cell(line), soft_wrap=True)
    if shown["exit"] is not None:
        console.print()
        _print_exit(console, shown["exit"])
    console.print()
    _print_exploring(console, shown)


def _heading(console: Console, text: str) -> None:
    console.print(cell(text, "bold"), soft_wrap=True)


def _print_money(console: Console, payments: Document) -> None:
    """Print what every client got, paid and has; each row adds up to the millisatoshi."""
    _heading(console, "Everybody's money, in msat")
    rows = table(
        "client",
        "from the LSP",
        "received",
        "paid",
        "fees",
        "can pay",
        "can receive",
        "LSP's side",
    )
    for account in payments["accounts"]:
        rows.add_row(
            cell(f"{account['client']} ({account['name']})"),
            *(cell(f"{account[field]:,}") for field in _MONEY),
        )
    console.print(rows)
    told = f"the LSP earned {msat(payments['earned_msat'])}"
    if payments["n"]:
        told += (
            f" on {counted(payments['n'], 'payment')} of {msat(payments['amount_msat'])}, "
            f"{payments['per_second']:,} per second (--seed {payments['seed']})"
        )
    console.print(cell(told), soft_wrap=True)
    on_chain = payments["on_chain"]
    told = f"one on-chain transaction in all: {on_chain['funding_txid']}"
    console.print(cell(told), soft_wrap=True)


_MONEY = (
    "from_lsp_msat",
    "received_msat",
    "paid_msat",
    "fees_msat",
    "spendable_msat",
    "receivable_msat",
    "lsp_msat",
)


def _print_sale(console: Console, sale: Document) -> None:
    """Print what one client bought, and its money before and after."""
    _heading(console, f"Client {sale['client']} ({sale['name']}) bought inbound liquidity, in msat")
    rows = table("", "its own", "can pay", "can receive", "LSP's side", "channel holds")
    for when, capacity in (("before", "capacity_before_sat"), ("after", "capacity_sat")):
        account = sale[when]
        fields = ("own_msat", "spendable_msat", "receivable_msat", "lsp_msat")
        rows.add_row(
            cell(when),
            *(cell(f"{account[field]:,}") for field in fields),
            cell(sat(sale[capacity])),
        )
    console.print(rows)
    bought = f"{sat(sale['amount_sat'])} of the leaf's stock for {msat(sale['price_msat'])}"
    console.print(cell(f"{bought}, usable for {blocks(sale['usable_blocks'])}"), soft_wrap=True)
    told = f"still one on-chain transaction: {sale['on_chain']['funding_txid']}"
    console.print(cell(told), soft_wrap=True)


def _print_exit(console: Console, left: Document) -> None:
    _heading(console, f"Client {left['client']} left alone ({left['name']})")
    rows = table("transaction", "height", "delay", "txid")
    for tx in left["transactions"]:
        rows.add_row(
            cell(tx["name"]),
            cell(f"{tx['height']:,}"),
            cell(blocks(tx["delay_blocks"])),
            cell(tx["txid"]),
        )
    console.print(rows)
    for line in _exit_lines(left):
        console.print(cell(line), soft_wrap=True)


def _exit_lines(left: Document) -> list[str]:
    channel, coin = left["channel"], left["coin"]
    lines = [f"its channel output was {sat(channel['amount_sat'])} at {channel['outpoint']}"]
    if coin is None:
        told = f"of which {msat(left['balance_msat'])} were its own: not worth an output"
        return [*lines, f"{told}, so its exit ends at the commitment"]
    return [
        *lines,
        f"its balance was {sat(coin['balance_sat'])}, and its sweep paid {sat(coin['fee_sat'])}",
        f"its wallet has {sat(coin['amount_sat'])} at {coin['outpoint']}",
        f"under its own address {coin['address']}, as the node confirms",
    ]


def _print_exploring(console: Console, shown: Document) -> None:
    took = f"{shown['seconds']:.1f} s"
    if shown["kept"] is None:
        console.print(f"Done in {took}. All processes are stopped, and their data is removed.")
        console.print("To look around afterwards: cromford demo --keep DIR")
        return
    console.print(f"Done in {took}. All processes are stopped.")
    told = f"Kept in {shown['kept']}: data directories, logs/, export.json."
    console.print(cell(told), soft_wrap=True)
    console.print("To start them again, each in a terminal of its own, and to look around:")
    for entry in shown["explore"]:
        console.print(cell(f"  # {entry['what']}", "dim"), soft_wrap=True)
        console.print(cell(f"  {entry['command']}"), soft_wrap=True)
