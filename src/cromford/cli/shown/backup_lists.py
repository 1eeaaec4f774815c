"""How backups are shown to people."""

from typing import Any

from rich.console import Console

from cromford.cli.shown.output import cell, facts, moment
from cromford.told import counted

Rows = list[tuple[str, object]]


def created(console: Console, made: dict[str, Any]) -> None:
    """Print a backup that was made."""
    rows: Rows = [
        ("backup", made["file"]),
        ("records", f"{made['records']:,} in {made['streams']:,} streams"),
        ("size", f"{made['size']:,} bytes"),
    ]
    facts(console, rows)


def verified(console: Console, found: dict[str, Any]) -> None:
    """Print what is in a backup, and how far it is behind."""
    facts(console, _contents(found))
    _warn(console, found["warnings"])


def restored(console: Console, found: dict[str, Any]) -> None:
    """Print what was put back, and what that means."""
    facts(console, [("restored to", found["home"]), *_contents(found)])
    for line in found["next"]:
        console.print(cell(line))
    _warn(console, found["warnings"])


def status(console: Console, answer: dict[str, Any]) -> None:
    """Print how safe a store is."""
    rows: Rows = [
        ("records", f"{answer['records']:,}"),
        ("replica", _replica(answer["replica"])),
        ("mark", _mark(answer["mark"])),
        ("restored", f"from {answer['source']}" if answer["is_restored"] else "no"),
    ]
    facts(console, rows)
    _warn(console, answer["warnings"])


def mark(console: Console, answer: dict[str, Any]) -> None:
    """Print a mark."""
    facts(console, [("mark", _mark(answer))])


def _contents(found: dict[str, Any]) -> Rows:
    rows: Rows = [
        ("backup", found["path"]),
        ("of", f"{found['role']} on {found['network']}, seed {found['seed']}"),
        ("made", f"{moment(found['created'])}, by version {found['version']}"),
        ("records", f"{found['records']:,} in {found['streams']:,} streams"),
        ("channels", f"{found['channels']:,}"),
    ]
    if found["bytes_left_out"]:
        rows.append(("left out", f"{found['bytes_left_out']:,} bytes that were not complete"))
    if found.get("behind_records") is not None:
        rows.append(("behind the store", counted(found["behind_records"], "record")))
    return rows


def _replica(replica: dict[str, Any] | None) -> str:
    if replica is None:
        return "none"
    if replica["behind_records"] is None:
        return f"{replica['place']}: see `backup verify`"
    if not replica["behind_records"]:
        return f"{replica['place']}: nothing is missing"
    behind = (
        f"{counted(replica['behind_records'], 'record')}, "
        f"{counted(replica['behind_seconds'], 'second')}"
    )
    return f"{replica['place']}: {behind} behind"


def _mark(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    if not found["is_reachable"]:
        return f"{found['place']}: NOT WRITTEN"
    return f"{found['place']}: record {found['marked_records']:,}"


def _warn(console: Console, warnings: list[str]) -> None:
    for warning in warnings:
        console.print(cell(f"WARNING: {warning}", "bold yellow"))
