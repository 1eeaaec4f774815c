"""Payments, invoices and balances as people read them."""

from typing import Any, Final

from rich.console import Console

from cromford.cli.shown import market
from cromford.cli.shown.output import (
    blocks,
    cell,
    facts,
    local_time,
    moment,
    msat,
    sat,
    short,
    table,
)
from cromford.told import counted

_LEFT: Final = frozenset({"moved_out", "dead", "displaced"})  # Nothing is to be left any more.
Document = dict[str, Any]
_DIRECTIONS: Final = {"out": "paid out", "in": "invoice", "move": "moved"}


def _hold(answer: Document) -> list[tuple[str, str]]:
    asked, agreed = answer["hold_seconds"], answer["agreed_hold_seconds"]
    if not asked:
        return []
    if agreed is None:
        return [("if you are away", "the LSP did not say yet whether it holds the payment")]
    if agreed == 0:
        return [("if you are away", "the LSP does not hold the payment")]
    return [("if you are away", f"the LSP holds the payment for {counted(agreed, 'second')}")]


def called(answer: Document) -> list[tuple[str, object]]:
    """Return what the operator calls a payment or an invoice, where it has a name."""
    names = (("label", "label"), ("external id", "external_id"))
    return [(told, answer[field]) for told, field in names if answer.get(field)]


def invoice(console: Console, answer: Document) -> None:
    """Print an invoice: alone where it goes into a pipe, with a QR code in a terminal."""
    if not console.is_terminal:
        console.print(cell(answer["invoice"]), soft_wrap=True)
        return
    from cromford.invoice.qr import terminal_qr  # noqa: PLC0415 - no other command needs it

    code = terminal_qr(answer["invoice"])
    facts(
        console,
        [
            ("amount", msat(answer["amount_msat"])),
            ("description", answer["description"] or "none"),
            *called(answer),
            ("payment hash", answer["payment_hash"]),
            ("expires", moment(answer["expires_at"])),
            *_hold(answer),
        ],
    )
    if console.width > code.count("\n"):
        # Written as it is: its colours are what a camera needs.
        console.file.write(f"{code}\n")
    console.print(cell(answer["invoice"]), soft_wrap=True)


def decoded(console: Console, invoice: Document) -> None:
    """Print what an invoice asks for, of whom, and how its payee is reached."""
    hint = invoice["lsp"]
    price = "not said: its payee is reached directly"
    if hint is not None:
        rate = f"{hint['fee_proportional_millionths']:,} ppm"
        price = f"{hint['node_id']}, for {msat(hint['fee_base_msat'])} and {rate}"
    expires = moment(invoice["expires_at"])
    facts(
        console,
        [
            ("amount", msat(invoice["amount_msat"])),
            ("for", invoice["description"] or "no description"),
            ("to", invoice["payee"]),
            ("through", price),
            ("payment hash", invoice["payment_hash"]),
            ("made", moment(invoice["created_at"])),
            ("expires", f"EXPIRED at {expires}" if invoice["expired"] else expires),
            ("network", invoice["network"]),
        ],
    )


def paid_invoice(console: Console, invoice: Document) -> None:
    """Print that an invoice of ours was paid."""
    told = (
        f"paid: {msat(invoice['received_msat'])} for {invoice['description'] or 'no description'}"
    )
    console.print(cell(told), soft_wrap=True)


def payment(console: Console, answer: Document) -> None:
    """Print what became of a payment, or what it would take."""
    rows: list[tuple[str, object]] = [
        ("status", _status_of(answer)),
        ("amount", msat(answer["amount_msat"])),
        ("fee", msat(answer["fee_msat"])),
        ("in all", msat(answer["total_msat"])),
        ("to", answer["payee"]),
        ("for", answer["description"] or "no description"),
        *called(answer),
        ("payment hash", answer["payment_hash"]),
        ("from factory", short(answer["factory_id"])),
    ]
    if answer["status"] != "planned":
        rows.append(("begun", local_time(answer["created_at"])))
    if answer.get("settled_at"):
        rows.append((answer["status"], local_time(answer["settled_at"])))
    if answer["status"] == "planned":
        rows += [
            ("invoice expires", moment(answer["expires_at"])),
            ("back at height", f"{answer['htlc_expiry_height']:,} at the latest, if it fails"),
            ("payee's limit", f"height {answer['payee_expiry_height']:,}"),
        ]
    elif answer["preimage"]:
        rows.append(("proof (preimage)", answer["preimage"]))
    if answer.get("failure"):
        rows.append(("failure", answer["failure"]))
    if answer.get("obstacle"):
        rows.append(("waits", answer["obstacle"]))
    facts(console, rows)


def _status_of(answer: Document) -> str:
    """Return a payment's status in words; one that may be lost is neither paid nor failed."""
    if answer.get("may_lose_msat") and answer.get("expiry_height") is None:
        return f"unknown: {msat(answer['may_lose_msat'])} may be lost: {answer['obstacle']}"
    if answer.get("may_lose_msat"):
        return (
            f"unknown: up to {msat(answer['may_lose_msat'])} may be lost, until the chain says "
            f"otherwise after height {answer['expiry_height']:,}"
        )
    return _STATUSES[answer["status"]]


_STATUSES: Final = {
    "planned": "dry run: nothing was paid",
    "pending": "on its way",
    "paid": "paid",
    "failed": "failed",
}


def payments(console: Console, answer: Document) -> None:
    """Print what was paid and asked for, the newest first."""
    _own_payments(console, answer["payments"])
    following(console, answer)


def following(console: Console, answer: Document) -> None:
    """Print how to go on, where more follows."""
    if answer.get("next"):
        console.print(cell(f"more follow: --after {answer['next']}"), soft_wrap=True)


def found_payments(console: Console, answer: Document) -> None:
    """Print all that there is of one payment hash."""
    for one in answer["payments"]:
        if one["direction"] == "in":
            own_invoice(console, one)
        else:
            payment(console, one)


def own_invoice(console: Console, one: Document) -> None:
    """Print an invoice of ours, and what became of it."""
    rows: list[tuple[str, object]] = [
        ("status", one["status"]),
        ("amount", msat(one["amount_msat"])),
        ("received", msat(one["received_msat"])),
        ("for", one["description"] or "no description"),
        *called(one),
        ("payment hash", one["payment_hash"]),
        ("made", local_time(one["created_at"])),
        ("expires", local_time(one["expires_at"])),
    ]
    if one["settled_at"] is not None:
        rows.append((one["status"], local_time(one["settled_at"])))
    facts(console, [*rows, *_hold(one), ("invoice", one["invoice"])])


def _own_payments(console: Console, listed: list[Document]) -> None:
    if not listed:
        console.print("no payments")
        return
    rows = table("", "begun", "status", "amount", "fee", "with", "for", "payment hash")
    for one in listed:
        status = one["status"]
        if one.get("failure"):
            status = f"failed: {one['failure']}"
        elif one.get("may_lose_msat"):
            status = "unknown, may be lost"
        rows.add_row(
            cell(_DIRECTIONS[one["direction"]]),
            cell(local_time(one["created_at"])),
            cell(status),
            cell(msat(one["amount_msat"])),
            cell(msat(one["fee_msat"]) if "fee_msat" in one else None),
            cell(short(one.get("payee"))),
            cell(_what_for(one)),
            cell(short(one["payment_hash"])),
        )
    console.print(rows)


def _what_for(one: Document) -> str | None:
    if one["direction"] != "move":
        return " / ".join(filter(None, (one["label"], one["description"]))) or None
    to = one["to_factory_id"]
    where = "" if to is None else f" to factory {short(to)}"
    return f"from factory {short(one['factory_id'])}{where}"


def lsp_payments(console: Console, answer: Document) -> None:
    """Print what the LSP paid, what went through it, and what that earned."""
    _own_payments(console, answer["payments"])
    following(console, answer)
    _forwarded(console, answer["forwards"])
    shown = len(answer["forwards"])
    facts(
        console,
        [
            ("forwarded in all", f"{answer['n_forwards']:,}, of which {shown:,} are listed"),
            ("earned", msat(answer["earned_msat"])),
        ],
    )


def forwards(console: Console, answer: Document) -> None:
    """Print what goes through an LSP, and what went through it."""
    _forwarded(console, [*answer["in_flight"], *answer["forwards"]])
    following(console, answer)


def found_forwards(console: Console, answer: Document) -> None:
    """Print what went through an LSP of one payment hash."""
    _forwarded(console, answer["forwards"])


def _forwarded(console: Console, listed: list[Document]) -> None:
    if not listed:
        console.print("nothing was forwarded")
        return
    rows = table("forwarded", "begun", "ended", "from", "to", "amount", "fee", "payment hash")
    for forward in listed:
        status = forward["status"]
        if forward["failure"]:
            status = f"{status}: {forward['failure']}"
        if forward["waits_for"]:
            status = f"held: {forward['waits_for']}"
        rows.add_row(
            cell(status),
            cell(local_time(forward["created_at"])),
            cell(local_time(forward["settled_at"])),
            cell(short(forward["from_node_id"])),
            cell(short(forward["to_node_id"])),
            cell(msat(forward["amount_msat"])),
            cell(msat(forward["fee_msat"])),
            cell(short(forward["payment_hash"])),
        )
    console.print(rows)


def balance(console: Console, answer: Document) -> None:
    """Print each channel's money, and the sum."""
    if not answer["channels"]:
        console.print("no channels")
        return
    rows = table(
        "factory",
        "status",
        "yours",
        "can send",
        "can receive",
        "on its way",
        "after an exit",
        "time",
    )
    for channel in answer["channels"]:
        rows.add_row(
            cell(short(channel["factory_id"])),
            cell(channel["status"]),
            cell(msat(channel["own_msat"])),
            cell(msat(channel["spendable_msat"])),
            cell(msat(channel["receivable_msat"])),
            cell(_on_its_way(channel)),
            cell(sat(channel["exit_sat"])),
            cell(_time_left(channel)),
        )
    total = answer["total"]
    rows.add_row(
        cell("in all"),
        cell(""),
        cell(msat(total["own_msat"])),
        cell(msat(total["spendable_msat"])),
        cell(msat(total["receivable_msat"])),
        cell(_on_its_way(total)),
        cell(sat(total["exit_sat"])),
        cell(""),
    )
    console.print(rows)
    market.liquidity(console, answer["channels"])
    _limits(console, answer["channels"], "factory_id", whose="be yours")
    _failures(console, answer["channels"], "factory_id")


def balances(console: Console, answer: Document) -> None:
    """Print the money in the channel with each client, and the sum."""
    if not answer["channels"]:
        console.print("no channels")
        return
    rows = table(
        "client", "factory", "status", "yours", "client's", "can send", "can receive", "on its way"
    )
    for channel in [*answer["channels"], answer["total"] | {"status": ""}]:
        rows.add_row(
            cell(short(channel["node_id"]) if "node_id" in channel else "in all"),
            cell(short(channel["factory_id"]) if "factory_id" in channel else ""),
            cell(channel["status"]),
            cell(msat(channel["own_msat"])),
            cell(msat(channel["peer_msat"])),
            cell(msat(channel["spendable_msat"])),
            cell(msat(channel["receivable_msat"])),
            cell(_on_its_way(channel)),
        )
    console.print(rows)
    _limits(console, answer["channels"], "node_id", whose="be its client's")
    _failures(console, answer["channels"], "node_id")


def _limits(console: Console, channels: list[Document], named_by: str, *, whose: str) -> None:
    for channel in channels:
        limit_msat = channel["close_limit_msat"]
        if limit_msat is not None and channel["status"] != "closing":
            told = (
                f"in channel {short(channel[named_by])} no more than {msat(limit_msat)} can {whose}"
            )
            console.print(cell(f"{told}: a close was signed that pays no more"), soft_wrap=True)


def _failures(console: Console, channels: list[Document], named_by: str) -> None:
    for channel in channels:
        if channel["failed"] and channel["status"] not in {"exiting", "marked"}:
            told = f"channel {short(channel[named_by])} failed: {channel['failed']}"
            console.print(cell(told, "bold red"), soft_wrap=True)
        if channel["marked"]:
            told = f"channel {short(channel[named_by])} is marked: {channel['marked']}"
            console.print(cell(told, "bold red"), soft_wrap=True)


def _on_its_way(amounts: Document) -> str:
    parts = [
        f"{msat(amounts[field])} {word}"
        for field, word in (("sending_msat", "out"), ("receiving_msat", "in"))
        if amounts[field]
    ]
    return ", ".join(parts) or "-"


def _time_left(channel: Document) -> str:
    if channel["status"] in _LEFT:
        return "-"
    left = channel["blocks_to_exit_deadline"]
    if left is None:
        return "does not expire"
    if left <= 0:
        return f"EXIT DEADLINE PASSED{'' if channel['is_worth_an_exit'] else ', not worth leaving'}"
    return f"exit within {blocks(left)}"
