"""Inbound liquidity for people: prices, quotes, receipts, the ledger, and how a leaf stands."""

from typing import Any, Final

from rich.console import Console

from cromford.cli.shown.output import (
    blocks,
    cell,
    days,
    facts,
    local_time,
    msat,
    sat,
    short,
    table,
)

Document = dict[str, Any]
MILLION: Final = 1_000_000
_STEPS: Final = {
    "proposed": "your channel is to become quiet",
    "agreed": "the others in the leaf are to agree",
    "signed": "the LSP is to finish the leaf's next state",
    "held": "the LSP is to hand out what protects from the old state",
    "rebasing": "your channel moves to the new state",
}
_MAY_GROW: Final = frozenset({"open", "offline", "stale", "unmarkable", "pending"})
_LSP_STEPS: Final = {
    "agreeing": "is to be agreed on",
    "signing": "is to be signed",
    "waiting": "waits for its clients to come back",
    "protecting": "is signed, and its poisons are to be held",
    "rebasing": "is signed, and channels move to it",
}


def price(console: Console, answer: Document) -> None:
    """Print what an LSP asks, and an example."""
    facts(console, price_rows(answer))
    example = answer["example"]
    told = (
        f"{sat(example['amount_sat'])} for {blocks(example['usable_blocks'])} "
        f"({days(example['usable_blocks'])}) cost {msat(example['price_msat'])}"
    )
    console.print(cell(told), soft_wrap=True)


def price_rows(asked: Document) -> list[tuple[str, object]]:
    """Return what an LSP asks for inbound liquidity, for a listing."""
    if not asked["is_for_sale"]:
        return [("inbound liquidity", "not for sale; `set-price --on` sells it again")]
    told = (
        f"{msat(asked['base_msat'])}, {_percent(asked['per_million'])} of the amount, and "
        f"{_percent(asked['per_month'])} for each 30 days; at least {sat(asked['min_sat'])}"
    )
    return [("inbound liquidity", told)]


def _percent(millionths: int) -> str:
    return f"{100 * millionths / MILLION:g} %"


def ledger(console: Console, answer: Document) -> None:
    """Print what was sold, and what was earned."""
    if answer["sales"]:
        rows = table("height", "in force", "client", "factory", "sold", "for", "channel holds")
        for sale in answer["sales"]:
            rows.add_row(
                cell(f"{sale['height']:,}"),
                cell(local_time(sale["in_force_at"])),
                cell(f"{sale['client']} ({short(sale['node_id'])})"),
                cell(short(sale["factory_id"])),
                cell(sat(sale["amount_sat"])),
                cell(msat(sale["price_msat"])),
                cell(sat(sale["capacity_sat"])),
            )
        console.print(rows)
    else:
        console.print("nothing was sold")
    facts(
        console,
        [
            *sold_rows(answer),
            ("earned by forwarding", msat(answer["forwarding_msat"])),
            *price_rows(answer["price"]),
        ],
    )


def sold_rows(sums: Document) -> list[tuple[str, object]]:
    """Return the sums of all sales, for a listing."""
    n = sums["n_sold"]
    told = f"{sat(sums['sold_sat'])} for {msat(sums['sold_for_msat'])}"
    return [("liquidity sold", f"{told} in {n:,} sale{'' if n == 1 else 's'}")]


def capital_rows(capital: Document) -> list[tuple[str, object]]:
    """Return where an LSP's money is, for a listing."""
    n_locked = len(capital["locked"])
    where = "factory" if n_locked == 1 else "factories"
    lacking = f"{sat(capital['lacking_sat'])} IN COINS, for fees of what is on chain"
    return [
        ("capital free", sat(capital["free_sat"])),
        *([("capital lacking", lacking)] if capital["lacking_sat"] else []),
        ("capital reserved", sat(capital["reserved_sat"])),
        ("capital earned", msat(capital["earned_msat"])),
        ("capital locked", f"{sat(capital['locked_sat'])} in {n_locked} {where}"),
        *sold_rows(capital),
    ]


def purchase(console: Console, answer: Document) -> None:
    """Print a quote, and what became of the purchase by it."""
    quote, bought = answer["quote"], answer["purchase"]
    if bought is None:
        console.print("dry run: nothing was bought")
    elif bought["status"] == "bought":
        receipt = bought["receipt"]
        told = (
            f"bought: your channel holds {sat(receipt['capacity_sat'])} now, for "
            f"{msat(receipt['price_msat'])}"
        )
        console.print(cell(told, "bold"), soft_wrap=True)
    else:
        console.print(cell("ordered; `client balance` shows how far it is"), soft_wrap=True)
    facts(console, _quote_rows(quote))
    if not quote["sales_left"]:
        told = "it is the last sale of your leaf: after it, your LSP has a seat in its next factory"
        console.print(cell(told), soft_wrap=True)
    if not quote["is_covered"]:
        console.print(cell(_uncovered(quote), "bold yellow"), soft_wrap=True)


def _quote_rows(quote: Document) -> list[tuple[str, object]]:
    needed = ", ".join(_seat_text(one) for one in quote["needed"])
    growth = f"{sat(quote['capacity_before_sat'])} to {sat(quote['capacity_sat'])}"
    how = "out of your payment" if quote["payment_hash"] else "out of your balance"
    return [
        ("factory", quote["factory_id"]),
        ("amount", f"{sat(quote['amount_sat'])}; your channel grows from {growth}"),
        ("price", f"{msat(quote['price_msat'])}, {how}"),
        ("can be used for", f"{blocks(quote['usable_blocks'])} ({days(quote['usable_blocks'])})"),
        ("have to be online", f"clients {needed}"),
        ("covered by poisons", f"{sat(quote['covered_sat'])} of yours, afterwards"),
        ("sales left after it", quote["sales_left"]),
        ("quote", f"valid to height {quote['valid_until_height']:,}"),
    ]


def _seat_text(seat: Document) -> str:
    if seat["is_you"]:
        return f"{seat['client']} (you)"
    return str(seat["client"]) if seat["is_online"] else f"{seat['client']} (AWAY)"


def in_short(quote: Document) -> str:
    """Return a quote in one clause, for a question."""
    away = [str(one["client"]) for one in quote["needed"] if not one["is_online"]]
    told = f"usable for {blocks(quote['usable_blocks'])}"
    if away:
        told += f"; AWAY, so that it cannot be sold now: client {', '.join(away)}"
    return told if quote["is_covered"] else f"{told}; {_uncovered(quote)}"


def _uncovered(quote: Document) -> str:
    return (
        f"poisons would cover {sat(quote['covered_sat'])} of the {sat(quote['most_owned_sat'])} "
        "that your channel could hold for you, so that it is bought only with --beyond-coverage"
    )


def liquidity(console: Console, channels: list[Document]) -> None:
    """Print how each channel stands in its leaf: what is under way, covered, and for sale."""
    for channel in channels:
        for told in _liquidity_lines(channel):
            console.print(cell(told), soft_wrap=True)


def _liquidity_lines(channel: Document) -> list[str]:
    lines = []
    name, stands = short(channel["factory_id"]), channel["liquidity"]
    buying, advance = stands["buying"], stands["advance"]
    if buying is not None:
        told = f"{sat(buying['amount_sat'])} for {msat(buying['price_msat'])}"
        step = "" if advance is None else f": {_STEPS[advance['step']]}"
        lines.append(f"channel {name}: you are buying {told}{step}")
    elif advance is not None:
        lines.append(f"channel {name}: a neighbour buys; {_STEPS[advance['step']]}")
    if stands["covered_sat"] is not None:
        told = f"channel {name}: poisons cover {sat(stands['covered_sat'])} of yours"
        if stands["beyond_coverage_msat"]:
            told += f"; {msat(stands['beyond_coverage_msat'])} are BEYOND that"
        if stands["htlcs_msat"]:
            exposed = msat(stands["htlcs_beyond_coverage_msat"])
            told += (
                f"; of {msat(stands['htlcs_msat'])} in payments under way {exposed} are beyond it"
            )
        lines.append(told)
    if stands["sales_left"] and channel["status"] in _MAY_GROW:
        n = stands["sales_left"]
        left = f"{sat(stands['lstock_sat'])} in {n} sale{'' if n == 1 else 's'}"
        lines.append(f"channel {name}: inbound liquidity for sale: {left}")
    return lines


def leaves(console: Console, shown: Document) -> None:
    """Print what is left to be sold in each leaf, and what is under way."""
    if not shown["leaves"]:
        return
    rows = table("leaf", "clients", "state", "L-stock", "sales left")
    for leaf in shown["leaves"]:
        rows.add_row(
            cell(leaf["leaf"] or "root"),
            cell(", ".join(map(str, leaf["clients"]))),
            cell(f"{leaf['state_index']} of 0..{leaf['states'] - 1}"),
            cell(sat(leaf["lstock_sat"])),
            cell(leaf["sales_left"]),
        )
    console.print(rows)
    for advance in shown["advances"]:
        console.print(cell(advance_text(advance)), soft_wrap=True)


def advance_text(advance: Document) -> str:
    """Return what an LSP's advance waits for, in one sentence."""
    waits = ", ".join(map(str, advance["holdouts"]))
    told = (
        f"leaf {advance['leaf'] or 'root'}: {sat(advance['amount_sat'])} for client "
        f"{advance['buyer']}, state {advance['state_index']} {_LSP_STEPS[advance['step']]}"
    )
    return f"{told}; waits for client {waits}" if waits else told
