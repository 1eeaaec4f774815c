"""Cooperative closes for people: who is paid what, who holds out, what was finished."""

from typing import Any, Final

from rich.console import Console

from cromford.cli.shown.output import cell, facts, msat, sat, short, table

Document = dict[str, Any]
# By whose stores were put back from a backup: who says what is owed.
_RESTORED: Final = {
    ("client",): "marked: its store was restored, and it signs for what it knows of, or more",
    ("lsp",): "or less: our store is marked as restored, and it says how much",
    ("lsp", "client"): "marked: both stores were restored, and say this",
}


def close(console: Console, answer: Document) -> None:
    """Print a close that was begun, or would be: payouts and options."""
    console.print(cell(_how_far(answer)), soft_wrap=True)
    facts(
        console,
        [
            ("factory", answer["factory_id"]),
            ("spends", f"{answer['outpoint']} ({answer['name']}), {sat(answer['amount_sat'])}"),
        ],
    )
    paid = table("client", "is owed", "is paid", "node id")
    for client in answer["clients"]:
        paid.add_row(
            cell(client["client"]),
            cell(msat(client["due_msat"])),
            cell(_paid_text(client)),
            cell(short(client["node_id"])),
        )
    console.print(paid)
    options = table("feerate", "fee", "the LSP gets", "size", "transaction")
    for option in answer["options"]:
        options.add_row(
            cell(f"{option['feerate_sat_per_vb']:g} sat/vB"),
            cell(sat(option["fee_sat"])),
            cell(sat(option["lsp_sat"])),
            cell(f"{option['vsize']:,} vB"),
            cell(option["txid"]),
        )
    console.print(options)


def _paid_text(client: Document) -> str:
    if client["moved_out"]:
        return "nothing: it moved out, and need not be there"
    if client["restored"]:
        return f"{_sat_text(client)}, {_RESTORED[tuple(client['restored'])]}"
    return _sat_text(client)


def _sat_text(client: Document) -> str:
    if client["paid_sat"] or not client["due_msat"]:
        return sat(client["paid_sat"])
    return "nothing: below 330 sat"


def _how_far(answer: Document) -> str:
    if not answer["started"]:
        return "dry run: nobody was asked"
    if answer["finished"] is not None:
        return "closed: everybody signed"
    return f"everybody is asked to agree; close {answer['close_id']}"


def closing_text(closing: Document) -> str:
    """Return a close under way in one line: how far it is, and what an LSP or a client knows of it.

    An LSP knows whom it waits for, a client what it is owed.
    """
    if "balance_msat" in closing:
        owed = closing["balance_msat"]
        told = "what your store says or more" if owed is None else msat(owed)
        return f"closing together: {closing['phase']}, you are owed {told}"
    waits = ", ".join(f"client {client}" for client in closing["holdouts"]) or "nobody"
    so_far = f"{len(closing['done'])} of {len(closing['clients'])}"
    return f"closing {closing['name']}: {closing['phase']}, {so_far}; waits for {waits}"


def closed_text(closed: Document) -> str:
    """Return a finished close in one line, with what of it is in a block, or may come there."""
    return _closed_text(closed, [closed["txid"]] if closed["confirmations"] else closed["txids"])


def closed_in_short(closed: Document, own: Document | None = None) -> str:
    """Return a finished close for a table.

    Args:
        closed: The close.
        own: What a client knows of its own close; None for an LSP.
    """
    txids = [closed["txid"]] if closed["confirmations"] else closed["txids"]
    told = _closed_text(closed, [short(txid) for txid in txids])
    if own is None or own["close_id"] != closed["close_id"]:
        return told
    return f"{told}; pays you {sat(own['payout_sat'])}"


def _closed_text(closed: Document, txids: list[str]) -> str:
    n_deep = closed["confirmations"]
    where = f"{n_deep:,} deep" if n_deep else "in no block yet"
    return f"closed together, {where}: {' or '.join(txids)}"


def close_ledger(console: Console, closed: Document) -> None:
    """Print what a close brings back to the LSP, and what it costs: together, what it is paid."""
    is_paid = "brought back" if closed["confirmations"] else "brings back once a block has it"
    rows = table(f"close {closed['name']}", is_paid)
    for entry in closed["items"]:
        if entry["amount_sat"]:
            name = entry["item"].replace("_", " ")
            rows.add_row(cell(name), cell(sat(entry["amount_sat"])))
    rows.add_row(cell("to the LSP", "bold"), cell(sat(closed["lsp_sat"]), "bold"))
    console.print(rows)
