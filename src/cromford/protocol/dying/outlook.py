"""How far a client has moved out of a factory that dies, and what it waits for, in words."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cromford import told
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.coverage import room_msat
from cromford.protocol.channels.depth import depth_asked
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT, has_moved_out
from cromford.protocol.dying.client import (
    can_move_out,
    is_to_move,
    lacks_room,
    link_of,
    moving_of,
    target_of,
)
from cromford.protocol.dying.moved import movable_msat
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.moving import RETRY_BLOCKS, Moving
from cromford.protocol.lobby.client import objection

MoveStatus: TypeAlias = Literal["moved", "paying", "waiting", "staying", "over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOutlook:
    """Where a client stands that moves out of a factory, or does not.

    Attributes:
        status: `moved`, `paying`, `waiting` (for the next factory, or a channel in it), `staying`
            (by policy or the operator's word), or `over` (no payment leaves the channel any more).
        why: What it waits for, or why it stays; empty where nothing is to be said.
        to_attempt_id: The factory it moves to; None without one.
        moved_msat: What has arrived there.
        left_msat: What is still in the old channel.
    """

    status: MoveStatus
    why: str
    to_attempt_id: bytes | None
    moved_msat: int
    left_msat: int


def outlook_of(state: ClientState, attempt: ClientAttempt) -> MoveOutlook | None:
    """Return where a client stands that is in a factory that dies; None before it does."""
    link = link_of(state, attempt)
    if link is None or state.chain.height < attempt.lifetime.dying_height:
        return None
    moving, target = moving_of(state, attempt), target_of(state, attempt)
    left_msat = balance_of(link).own_msat
    status, why = _stand(state, attempt, moving, target)
    if status != "staying" and _is_out(state, link, target):
        status, why = "moved", _left_text(left_msat)
    return MoveOutlook(
        status=status,
        why=why,
        to_attempt_id=None if target is None else target.attempt_id,
        moved_msat=moving.moved_msat,
        left_msat=left_msat,
    )


def _is_out(state: ClientState, link: Link, target: ClientAttempt | None) -> bool:
    new = None if target is None else link_of(state, target)
    return (
        target is not None
        and new is not None
        and has_moved_out(link, new, state.chain, min_depth=depth_asked(target, new))
    )


def _left_text(left_msat: int) -> str:
    return "" if left_msat == 0 else f"{told.msat(left_msat)} stay behind: less than 330 sat"


def _stand(
    state: ClientState, attempt: ClientAttempt, moving: Moving, target: ClientAttempt | None
) -> tuple[MoveStatus, str]:
    link = link_of(state, attempt)
    is_last = target is not None and link is not None and bool(link.state.htlcs)
    if moving.is_under_way or (is_last and moving.moved_msat):
        return "paying", ""
    if attempt.lsp_node_id != state.config.lsp_node_id:
        return "over", "it is another LSP's, and this client was started for a new one"
    if not can_move_out(state, attempt):
        return "over", "its channel takes no payment any more"
    if not is_to_move(state, attempt):
        return "staying", "its operator says so" if moving.choice is False else "by its policy"
    if target is None or lacks_room(state, attempt, target):
        return "waiting", _wish_text(state, moving)
    if target.is_open:
        return "waiting", "the next factory is being built"
    return "waiting", _way_text(state, attempt, target, moving)


def _wish_text(state: ClientState, moving: Moving) -> str:
    """Return why there is no next factory for a client yet."""
    if state.lobby is None:
        return "the LSP is not connected"
    if state.wish is not None and state.joining is not None and state.joining.is_accepted:
        last = f"; we refused the last one: {moving.refusal}" if moving.is_own_refusal else ""
        return f"in the lobby, until the LSP builds the next factory{last}"
    if moving.refusal is not None:
        refused = "we refused the next factory" if moving.is_own_refusal else "the LSP refused"
        return f"{refused}: {moving.refusal}; asked again {RETRY_BLOCKS} blocks later"
    unfit = objection(state)
    if unfit is not None:
        return f"this client cannot join the LSP's lobby: {unfit}"
    if state.paused_until is not None:
        return f"too many joins came to nothing: joins again at height {state.paused_until:,}"
    return "about to join the lobby"


def _way_text(
    state: ClientState, attempt: ClientAttempt, target: ClientAttempt, moving: Moving
) -> str:
    """Return why a client that has its next channel does not pay itself yet."""
    old, new = link_of(state, attempt), link_of(state, target)
    if old is None or new is None or not new.is_open or not old.is_open:
        return "its channels are not both open yet"
    if moving.failed_height is not None:
        return (
            f"a payment to itself came back at height {moving.failed_height:,}; tried again "
            f"{RETRY_BLOCKS} blocks later"
        )
    if moving.hindrance is not None:
        return f"a channel cannot carry it now: {moving.hindrance}"
    if balance_of(old).own_msat < LEFT_BEHIND_MSAT:
        return "what is under way in its channels is not final yet"
    if not movable_msat(old, new, room_msat=room_msat(state, new)):
        least_sat = LEFT_BEHIND_MSAT // MSAT_PER_SAT
        return f"the new channel cannot receive {least_sat} sat or more of it"
    return "about to pay itself"
