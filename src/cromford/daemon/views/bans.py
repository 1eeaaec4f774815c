"""To whom the lobby is closed, as an LSP's operator reads it."""

from collections.abc import Iterator

from cromford.answers.bans import BannedNode
from cromford.protocol.journal.house import House
from cromford.protocol.journal.pause import Pause


def paused(house: House) -> Iterator[tuple[bytes, Pause]]:
    """Yield everybody who may not join, and why."""
    for node_id in sorted({*house.faults, *house.aborts, *house.joins, *house.bans}):
        pause = house.pause_of(node_id)
        if pause is not None:
            yield node_id, pause


def show_bans(house: House) -> list[BannedNode]:
    """Return everybody who may not join, those for longest first."""
    bans = [show_ban(house, node_id, pause) for node_id, pause in paused(house)]
    return sorted(bans, key=lambda ban: (-ban["until_height"], ban["node_id"]))


def show_ban(house: House, node_id: bytes, pause: Pause) -> BannedNode:
    """Return one of them.

    `by` is `operator`, or `rules` where the node closed the lobby to itself; `n_faults` are those
    that were proven against it and still count.
    """
    return {
        "node_id": node_id.hex(),
        "by": "operator" if pause.is_operators else "rules",
        "why": pause.why,
        "since_height": pause.since_height,
        "until_height": pause.until_height,
        "blocks_left": pause.until_height - house.chain.height,
        "n_faults": len(house.faults.get(node_id, ())),
        "is_connected": node_id in house.connected,
    }
