"""A factory as a picture: the tree with names, amounts, delays and signers, and its ledger."""

from typing import Any, Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from cromford.cli.shown import ladder, market
from cromford.cli.shown.closes import close_ledger, closed_text, closing_text
from cromford.cli.shown.lists import refused_text
from cromford.cli.shown.output import blocks, cell, expiry_text, is_over, sat, table
from cromford.told import counted

Document = dict[str, Any]
LSP_INDEX: Final = 0


def factory(console: Console, document: Document) -> None:
    """Print one factory of the LSP: its summary, its tree, its ledger."""
    _print_summary(console, document)
    _print_ceremony(console, document)
    _print_channels(console, document)
    _print_sweeps(console, document)
    print_tree(console, document)
    print_ledger(console, document["ledger"])
    market.leaves(console, document)
    for closed in document["closed"]:
        close_ledger(console, closed)


def _print_ceremony(console: Console, document: Document) -> None:
    """Print what a factory that is not finished waits for."""
    if document["status"] == "building":
        waits = ", ".join(f"client {client}" for client in document["holdouts"]) or "nobody"
        told = f"{document['phase'].replace('_', ' ')}; waits for {waits}"
        left = document["seconds_left"]
        console.print(cell(told if left is None else f"{told}, {left:g} s left", "bold"))
    elif document["status"] == "funding":
        told = f"{document['confirmations']} of {counted(document['min_depth'], 'confirmation')}"
        console.print(cell(told, "bold"))
    _print_closes(console, document)
    if document["close_ended"] is not None:
        told = f"the last close came to nothing: {document['close_ended']}"
        console.print(cell(told), soft_wrap=True)
    bump = document["bump"]
    if bump is not None:
        told = f"bumped to {bump['feerate_sat_per_vb']} sat/vB: {bump['txid']}"
        console.print(cell(f"{told} pays {sat(bump['fee_sat'])}", "bold"), soft_wrap=True)
    if document["candidates"]:
        ladder.candidates(console, document["candidates"])


def _print_closes(console: Console, document: Document) -> None:
    """Print the close under way, and those that everybody signed."""
    if document["closing"] is not None:
        console.print(cell(closing_text(document["closing"]), "bold"), soft_wrap=True)
    for closed in document["closed"]:
        console.print(cell(closed_text(closed), "bold"), soft_wrap=True)


def _print_channels(console: Console, document: Document) -> None:
    """Print which channels failed and why, who leaves, and who moved out."""
    for client, reason in document["channels_failed"].items():
        told = f"the channel of client {client} failed: {reason}"
        console.print(cell(told, "bold red"), soft_wrap=True)
    for what, clients in (
        ("leaving or out", document["leaving"]),
        ("moved out", document["moved_out"]),
    ):
        if clients:
            told = f"{what}: {', '.join(f'client {client}' for client in clients)}"
            console.print(cell(told, "bold"), soft_wrap=True)


def _print_sweeps(console: Console, document: Document) -> None:
    """Print what of the tree is the LSP's by now, output by output."""
    left = {output["outpoint"] for output in document["not_worth_sweeping"]}
    for output in document["sweeping"]:
        waits = "; not worth its fee today" if output["outpoint"] in left else ""
        told = f"to be swept: {output['name']}, {sat(output['amount_sat'])}"
        console.print(
            cell(f"{told}, from height {output['height']:,} on{waits}", "bold"), soft_wrap=True
        )


def branch(console: Console, document: Document) -> None:
    """Print a client's own branch; the rest of the tree it neither has nor needs."""
    _print_summary(console, document)
    _print_closes(console, document)
    channel = document["channel_outpoint"] or "not yet known"
    console.print(cell(f"your channel: {sat(document['capacity_sat'])} at {channel}"))
    if document["candidates"]:
        ladder.candidates(console, document["candidates"])
    print_tree(console, document)


def _print_summary(console: Console, document: Document) -> None:
    console.print(cell(f"factory {document['factory_id']}"), soft_wrap=True)
    told = Text(f"{document['status']}, {counted(document['n_clients'], 'client')}")
    if not is_over(document):
        told.append("; ").append_text(expiry_text(document))
    console.print(told)
    if document["aborted"]:
        console.print(cell(f"aborted: {document['aborted']}", "bold red"), soft_wrap=True)
    for refused in document["refused"]:
        line = f"refused by the node: {refused_text(refused)}"
        console.print(cell(line, "bold red"), soft_wrap=True)


def print_tree(console: Console, document: Document) -> None:
    """Print the transactions under the funding output, in the order of an export."""
    funding = document["funding"]
    place = (
        "not yet broadcast" if funding["txid"] is None else f"{funding['txid']}:{funding['vout']}"
    )
    top = Tree(_line("funding output", f"{sat(funding['amount_sat'])}  {place}"), guide_style="dim")
    nodes: dict[str, Tree] = {}
    published = document.get("published", ())  # An export says what is signed, and no more.
    for tx in document["transactions"]:
        above = top if tx["parent"] is None else nodes.get(tx["parent"], top)
        told = _tx_facts(tx) + (", on chain" if tx["name"] in published else "")
        node = above.add(_line(tx["name"], told))
        nodes[tx["name"]] = node
        for output in tx["outputs"]:
            if output["kind"] not in {"child", "anchor"}:
                node.add(_line(_output_name(output), sat(output["amount_sat"]), style="green"))
    # A wrapped line of a tree is hard to read, and an amount that is cut is none.
    console.print(top, overflow="fold")


def _line(name: str, facts: str, *, style: str = "bold") -> Text:
    line = cell(name, style)
    line.append_text(cell(f"  {facts}"))
    return line


def _tx_facts(tx: Document) -> str:
    delay = "no delay"
    if tx["kind"] == "state":
        delay = f"delay {blocks(tx['nsequence'])} (state {tx['state_index']})"
    return (
        f"{sat(tx['input_amount_sat'])}, {delay}, fee {sat(tx['fee_sat'])}, "
        f"signers {signers_text(tx['signers'])}"
    )


def _output_name(output: Document) -> str:
    if output["kind"] == "channel":
        return f"channel of client {output['client']}"
    return "L-stock of the LSP"


def signers_text(signers: list[int]) -> str:
    """Return the signers in short: `LSP, 1-4`."""
    clients = sorted(index for index in signers if index != LSP_INDEX)
    runs: list[list[int]] = []
    for index in clients:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = ["LSP"] if LSP_INDEX in signers else []
    parts += [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(parts)


def print_ledger(console: Console, ledger: list[Document]) -> None:
    """Print who paid what, and how it comes back."""
    rows = table("paid by", "for", "amount", "comes back")
    for entry in ledger:
        payer = "LSP" if entry["payer"] == "lsp" else entry["payer"]
        rows.add_row(
            cell(payer),
            cell(entry["item"].replace("_", " ")),
            cell(sat(entry["amount_sat"])),
            cell(entry["recovered"]),
        )
    console.print(rows)


def exit_line(client: int, plan: Document) -> str:
    """Return one client's way out in one line."""
    fees = f"fees {sat(plan['total_fee_sat'])}, paid in advance"
    if plan["needs_coin"]:
        fees = "fees from a coin of its own"
    return (
        f"client {client}: {counted(plan['n_transactions'], 'transaction')}, "
        f"{plan['total_vsize']:,} vB, {fees}, {blocks(plan['total_delay_blocks'])} of delay; "
        f"{_channel_line(plan)}"
    )


def _channel_line(plan: Document) -> str:
    """Return what follows once the channel's output is on chain, if it can be said."""
    channel = plan["channel"]
    if channel is None:
        return f"then {sat(plan['channel_sat'])}, its own and the LSP's, in its channel output"
    if not channel["exit_sat"]:
        return "then its commitment, without anything for its wallet"
    n_blocks = max(step["delay_blocks"] for step in channel["steps"])
    return f"then {sat(channel['exit_sat'])} in its wallet, {blocks(n_blocks)} after the channel"
