"""Why the lobby is closed to somebody, and until when, counted in heights, the only clock.

Too many of something within a few blocks closes it by itself; an operator closes it with a ban.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cromford.protocol.journal.lobby_records import BanSet

# Six ceremonies spoiled in about an hour close the lobby to whoever spoiled them for as long; a
# client that had to join anew so often waits as long by itself.
ABORTS_TO_PAUSE: Final = 6
# More than any honest client needs; below it, leaving and joining again is its own business.
JOINS_TO_PAUSE: Final = 16
PAUSE_BLOCKS: Final = 6
FAULTS_TO_BAN: Final = 3
BAN_BLOCKS: Final = 144  # Three faults within this many blocks close the lobby for as many.
# A client that was there for a day knows how to stay; one that came today has shown nothing yet.
RELIABLE_UPTIME_BLOCKS: Final = 144
UPTIME_WINDOW_BLOCKS: Final = 2016
FORGET_EVERY_BLOCKS: Final = 144  # Whoever was away for the whole window is looked for so often.
NEVER: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """What an operator decided: the lobby is closed to a node until a height, and why."""

    since_height: int
    until_height: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The lobby is closed to a node from one height on until another."""

    since_height: int
    until_height: int
    why: str
    is_operators: bool = False


def longest_pause(
    node_id: bytes,
    *,
    faults: Mapping[bytes, tuple[int, ...]],
    aborts: Mapping[bytes, tuple[int, ...]],
    joins: Mapping[bytes, tuple[int, ...]],
    bans: Mapping[bytes, Ban],
) -> Pause | None:
    """Return what closes the lobby to a node for longest, over or not; None if nothing ever did.

    Proven faults close it for a day, spoiled ceremonies and restlessness for about an hour; its
    operator for as long as it says.
    """
    counted = (
        closed_by(of.get(node_id, ()), limit=limit, window_blocks=window_blocks, why=why)
        for of, limit, window_blocks, why in (
            (faults, FAULTS_TO_BAN, BAN_BLOCKS, "too many faults"),
            (aborts, ABORTS_TO_PAUSE, PAUSE_BLOCKS, "too many ceremonies ended"),
            (joins, JOINS_TO_PAUSE, PAUSE_BLOCKS, "too many joins"),
        )
    )
    pauses = [pause for pause in counted if pause is not None]
    ban = bans.get(node_id)
    if ban is not None:
        pauses.append(
            Pause(
                since_height=ban.since_height,
                until_height=ban.until_height,
                why=f"banned by the operator ({ban.reason})",
                is_operators=True,
            )
        )
    # Of two that end together the operator's is told: it is the one that was meant.
    return max(pauses, key=lambda one: (one.until_height, one.is_operators, one.why), default=None)


def with_ban(bans: Mapping[bytes, Ban], record: BanSet, height: int) -> Mapping[bytes, Ban]:
    """Return the bans with one that begins at a height."""
    ban = Ban(since_height=height, until_height=record.until_height, reason=record.reason)
    return {**bans, record.node_id: ban}


def with_aborts(
    aborts: Mapping[bytes, tuple[int, ...]], node_ids: Sequence[bytes], height: int
) -> dict[bytes, tuple[int, ...]]:
    """Return the heights of what nodes spoiled, with one more of each of these."""
    more = {one: (*aborts.get(one, ()), height)[-ABORTS_TO_PAUSE:] for one in node_ids}
    return {**aborts, **more}


def still_banned(bans: Mapping[bytes, Ban], height: int) -> Mapping[bytes, Ban]:
    """Return the bans that are not over at a height."""
    if all(height < ban.until_height for ban in bans.values()):
        return bans
    return {node_id: ban for node_id, ban in bans.items() if height < ban.until_height}


def seen_after(seen: int, n_blocks: int, *, is_here: bool) -> int:
    """Return of which of the newest blocks somebody was here for, some blocks later.

    Bit i says, here i blocks ago; meanwhile it was here all the time, or away.
    """
    if n_blocks >= UPTIME_WINDOW_BLOCKS:
        seen, n_blocks = 0, UPTIME_WINDOW_BLOCKS
    more = (1 << n_blocks) - 1 if is_here else 0
    return (seen << n_blocks | more) & (1 << UPTIME_WINDOW_BLOCKS) - 1


def still_counting(
    heights: Mapping[bytes, tuple[int, ...]], least_height: int
) -> Mapping[bytes, tuple[int, ...]]:
    """Return what still counts: names cost nothing, so what no longer closes anything goes."""
    return {node_id: of for node_id, of in heights.items() if of and of[-1] >= least_height}


def closed_by(heights: Sequence[int], *, limit: int, window_blocks: int, why: str) -> Pause | None:
    """Return the pause that `limit` events within a window make; None if there were fewer."""
    until = closed_until(heights, limit=limit, window_blocks=window_blocks)
    if until == NEVER:
        return None
    return Pause(since_height=heights[-1], until_height=until, why=why)


def closed_until(heights: Sequence[int], *, limit: int, window_blocks: int) -> int:
    """Return until which height `limit` events within a window close something, or `NEVER`."""
    recent = heights[-limit:]
    if len(recent) < limit or recent[-1] - recent[0] > window_blocks:
        return NEVER
    return recent[-1] + window_blocks
