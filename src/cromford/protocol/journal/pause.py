"""Too many of something within a few blocks: a pause, counted in heights, the only clock."""

from collections.abc import Mapping, Sequence
from typing import Final

# Six ceremonies spoiled in about an hour close the lobby to whoever spoiled them for as long; a
# client that had to join anew so often waits as long by itself.
ABORTS_TO_PAUSE: Final = 6
# More than any honest client needs; below it, leaving and joining again is its own business.
JOINS_TO_PAUSE: Final = 16
PAUSE_BLOCKS: Final = 6
# A client that was there for a day knows how to stay; one that came today has shown nothing yet.
RELIABLE_UPTIME_BLOCKS: Final = 144
NEVER: Final = -1


def still_counting(
    heights: Mapping[bytes, tuple[int, ...]], least_height: int
) -> Mapping[bytes, tuple[int, ...]]:
    """Return what still counts: names cost nothing, so what no longer closes anything goes."""
    return {node_id: of for node_id, of in heights.items() if of and of[-1] >= least_height}


def closed_until(heights: Sequence[int], *, limit: int, window_blocks: int) -> int:
    """Return until which height `limit` events within a window close something, or `NEVER`."""
    recent = heights[-limit:]
    if len(recent) < limit or recent[-1] - recent[0] > window_blocks:
        return NEVER
    return recent[-1] + window_blocks
