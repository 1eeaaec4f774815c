"""Prints the candidates of a fee ladder, and what they take."""

from typing import Any

from rich.console import Console

from cromford.cli.shown.output import cell, facts, sat, table

Document = dict[str, Any]


def planned(console: Console, answer: Document) -> None:
    """Print what each candidate of a build pays, and what signing all of them takes."""
    rows = table("candidate", "feerate", "fee", "change")
    for one in answer["candidates"]:
        feerate = f"{one['feerate_sat_per_vb']} sat/vB"
        rows.add_row(
            cell(str(one["candidate"])),
            cell(feerate),
            cell(sat(one["fee_sat"])),
            cell(sat(one["change_sat"])),
        )
    console.print(rows)
    growth = answer["growth"]
    facts(
        console,
        [
            ("signing sessions", f"{growth['sessions']:,}"),
            ("channel keys", f"{growth['channel_keys']:,} of both sides"),
            ("nonces", _nonces(growth)),
            ("stored", f"at most {growth['bytes_per_client_max']:,} bytes for each client"),
        ],
    )


def _nonces(growth: dict[str, Any]) -> str:
    return f"{growth['nonces_of_lsp']:,} of the LSP, {growth['nonces_of_client']:,} of a client"


def candidates(console: Console, shown: list[Document]) -> None:
    """Print each candidate of a factory's funding."""
    rows = table("candidate", "transaction", "feerate", "status", "confirmations")
    for one in shown:
        status = f"{one['status']}, channels" if one["has_channels"] else one["status"]
        rows.add_row(
            cell(str(one["candidate"])),
            cell(one["funding_txid"]),
            cell(f"{one['feerate_sat_per_vb']} sat/vB" if "feerate_sat_per_vb" in one else ""),
            cell(status),
            cell(str(one["confirmations"])),
        )
    console.print(rows)


def replaced_factory(console: Console, answer: Document) -> None:
    """Print which candidate is published, or would be, and what it pays."""
    is_old = answer["candidate"] == answer["replaces"]
    if is_old:
        console.print("replaced before: nothing is paid a second time")
    else:
        console.print("replaced" if answer["replaced"] else "dry run: nothing was published")
    place = f"{answer['candidate']}, in the place of {answer['replaces']}"
    price = [
        ("it has to pay", f"at least {sat(answer['least_fee_sat'])}"),
        ("a child's that ends", sat(answer["child_fee_sat"])),
    ]
    facts(
        console,
        [
            ("factory", answer["factory_id"]),
            ("candidate", str(answer["candidate"]) if is_old else place),
            ("fee", f"{sat(answer['fee_sat'])} ({answer['feerate_sat_per_vb']} sat/vB)"),
            *([] if is_old else price),
            ("transaction", answer["funding_txid"]),
        ],
    )
