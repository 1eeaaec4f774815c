"""Exit packages, and the agent that holds them, as people read them."""

from typing import Any, Final

from rich.console import Console

from cromford.answers.packages import (
    AddedPackage,
    AgentStatus,
    BroadcastPackage,
    KeptPackage,
    KeptPackages,
    WithdrawnPackage,
)
from cromford.cli.shown.exits import exit_steps
from cromford.cli.shown.output import cell, facts, sat, short, table

_KINDS: Final = {
    "coinless": "without coins: it helps while what a package pays is enough for the node's mempool"
}


def added(console: Console, answer: AddedPackage) -> None:
    """Print what became of a package that was handed over."""
    console.print("taken" if answer["added"] else "held already")
    facts(console, _rows(answer))


def held(console: Console, answer: KeptPackages) -> None:
    """Print every package with its deadline and what is next."""
    console.print(cell(_KINDS.get(answer["kind"], answer["kind"])), soft_wrap=True)
    if not answer["packages"]:
        console.print("no packages")
        return
    rows = table("package", "channel", "exit deadline", "expiry", "feerate", "status", "next")
    for package in answer["packages"]:
        rows.add_row(
            cell(short(package["package_id"])),
            cell(sat(package["channel_sat"])),
            cell(_height(package["exit_deadline_height"])),
            cell(_height(package["expiry_height"])),
            _feerate(package),
            cell(package["status"].replace("_", " ")),
            cell(package["next"], "bold red" if package["refused"] else ""),
        )
    console.print(rows)


def withdrawn(console: Console, answer: WithdrawnPackage) -> None:
    """Print that a package was given back, and what that does not undo."""
    console.print(cell(f"withdrawn: {answer['package_id']}"), soft_wrap=True)
    if answer["begun_height"] is not None:
        began = f"its exit began at height {answer['begun_height']:,}"
        console.print(cell(f"{began}: what is published stays published"), soft_wrap=True)


def agent_status(console: Console, status: AgentStatus) -> None:
    """Print an agent's status."""
    chain = status["chain"]
    freshness = "fresh" if chain["fresh"] else f"STALE: {chain['stale_reason']}"
    minimum = status["mempool_min_sat_per_vb"]
    rows: list[tuple[str, object]] = [
        ("kind", _KINDS.get(status["kind"], status["kind"])),
        ("network", status["network"]),
        ("height", "unknown" if status["height"] < 0 else f"{status['height']:,}"),
        ("chain", status["chain_url"]),
        ("chain is", freshness),
        ("mempool's minimum", "unknown" if minimum is None else f"{minimum:g} sat/vB"),
        ("data directory", status["datadir"]),
        ("packages", f"{status['n_packages']:,} of at most {status['packages_max']:,}"),
        ("being published", f"{status['n_publishing']:,}, refused {status['n_refused']:,}"),
        ("next deadline", _height(status["next_deadline_height"])),
    ]
    if status["n_unreadable"]:
        kept = f"{status['n_unreadable']:,} packages"
        kept += ": the log names them, `agent withdraw` ends them"
        rows.append(("UNREADABLE", kept))
    facts(console, rows)


def broadcast(console: Console, document: BroadcastPackage) -> None:
    """Print what was published of a package, and what is next."""
    exit_steps(console, document["steps"])
    facts(console, [*_rows(document), ("at height", f"{document['height']:,}")])


def progress(console: Console, document: BroadcastPackage) -> None:
    """Print in one line what a block changed."""
    console.print(cell(f"height {document['height']:,}: {document['next']}"), soft_wrap=True)


def _rows(document: KeptPackage | BroadcastPackage) -> list[tuple[str, object]]:
    expiry = _height(document["expiry_height"])
    if not document.get("is_expiry_checked", True):
        expiry += ", by the package alone: the funding is spent"
    return [
        ("package", document["package_id"]),
        ("channel", f"{sat(document['channel_sat'])} at {document['channel_outpoint']}"),
        ("expiry", expiry),
        ("exit deadline", _height(document["exit_deadline_height"])),
        ("feerate", f"{document['lowest_feerate_sat_per_vb']:g} sat/vB at least"),
        ("with its anchors", f"{document['with_anchors_sat_per_vb']:.2f} sat/vB"),
        ("next", document["next"]),
    ]


def _feerate(package: KeptPackage) -> Any:  # noqa: ANN401 - a cell of the table
    text = f"{package['lowest_feerate_sat_per_vb']:g} sat/vB"
    if package["passes_now"] is False:
        return cell(f"{text}, TOO LITTLE TODAY", "bold red")
    return cell(text)


def _height(height: int | None) -> str:
    return "-" if height is None else f"{height:,}"
