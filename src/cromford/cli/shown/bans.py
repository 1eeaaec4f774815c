"""Bans as people read them."""

from rich.console import Console

from cromford.answers.bans import BannedNode, BannedNodes
from cromford.cli.shown.output import blocks, cell, table


def bans(console: Console, answer: BannedNodes) -> None:
    """Print to whom the lobby is closed."""
    if not answer["bans"]:
        console.print("nobody is banned")
        return
    rows = table("node", "since height", "until height", "left", "faults", "connected", "why")
    for ban in answer["bans"]:
        rows.add_row(
            cell(ban["node_id"]),
            cell(f"{ban['since_height']:,}"),
            cell(f"{ban['until_height']:,}"),
            cell(blocks(ban["blocks_left"])),
            cell(ban["n_faults"]),
            cell("yes" if ban["is_connected"] else "no"),
            cell(ban["why"]),
        )
    console.print(rows)


def banned(console: Console, ban: BannedNode) -> None:
    """Print until when a node is banned."""
    until = f"until height {ban['until_height']:,}, for {blocks(ban['blocks_left'])}"
    console.print(cell(f"{ban['node_id']}: {ban['why']}, {until}"), soft_wrap=True)


def unbanned(console: Console, ban: BannedNode) -> None:
    """Print that a node may join again."""
    console.print(cell(f"{ban['node_id']} may join again; it was: {ban['why']}"), soft_wrap=True)
