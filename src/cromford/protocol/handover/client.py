"""The client's side of a key handover: when it gives its keys away, and how often it says so.

First it remembers that it moved out. From then on it signs and publishes nothing of that factory:
it proves no move by the old key, publishes no state in a race, offers and takes no HTLC, and leaves
by no exit. Nothing takes that back, no reorganisation either: what it had there it was paid
elsewhere before.
"""

from typing import Final

from cromford import effects as fx
from cromford.protocol.channels.depth import depth_asked
from cromford.protocol.channels.moved import has_moved_out
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.signing.keychain import FactoryKey
from cromford.watch.exit import swept_by
from cromford.wire import messages as m

FORGOTTEN: Final = "the LSP speaks as if it had no keys of ours"


def on_block(turn: Turn[ClientState]) -> None:
    """Retire from what we moved out of, and send again what nobody acknowledged."""
    for attempt in turn.state.attempts.values():
        if attempt.is_retired:
            _send_if_owed(turn, attempt)
        elif turn.facts.is_fresh:
            _retire_if_moved(turn, attempt)


def on_connection(turn: Turn[ClientState]) -> None:
    """Send again what nobody acknowledged: a crash may have come before the message."""
    for attempt in turn.state.attempts.values():
        _send_if_owed(turn, attempt)


def on_ready_again(turn: Turn[ClientState], message: m.ChannelReady) -> None:
    """Send the keys once more to an LSP that forgot: of a seat whose keys it has it would not ask.

    So speaks one whose store was put back from a backup. The seat would need us for ever.
    """
    attempt = turn.state.attempt_with(turn.state.lsp_node_id, message.attempt_id)
    if attempt is None or not (attempt.is_retired and attempt.keys_taken):
        return
    if attempt.refused_height != turn.height:
        turn.remember(hr.HandoverAnswered(attempt_id=attempt.attempt_id, refusal=FORGOTTEN))
        _send_if_owed(turn, turn.state.attempts[attempt.attempt_id])


def on_key_taken(turn: Turn[ClientState], message: m.KeyTaken) -> None:
    """Take the LSP's word that it keeps our keys, or does not; what was not asked means nothing.

    Of refusals one a block is remembered: an LSP that changes its mind must not fill our journal.
    """
    attempt = turn.state.attempt_with(turn.state.lsp_node_id, message.attempt_id)
    if attempt is None or not attempt.is_retired:
        return
    was_taken, refusal = attempt.keys_taken, message.refusal
    if was_taken == (not refusal) and attempt.keys_refused == refusal:
        return
    if refusal and attempt.refused_height == turn.height:
        return
    turn.remember(hr.HandoverAnswered(attempt_id=attempt.attempt_id, refusal=refusal))
    if was_taken:
        _send_if_owed(turn, turn.state.attempts[attempt.attempt_id])


def moved_to(state: ClientState, attempt: ClientAttempt) -> ClientAttempt | None:
    """Return the factory that a client moved to out of another; None if it did not.

    The old one is in its dying period, and open, so that both sides know where its channel stands.
    The new one is the LSP's, later, and lasts. Who has no such channel has not moved out, though
    all was spent: its old channel may still be paid into.
    """
    old = _link_of(state, attempt)
    if old is None or not _is_dying(state, attempt) or not _may_retire(state, attempt, old):
        return None
    for other in reversed(list(state.attempts.values())):
        new = _link_of(state, other)
        if (
            other.lsp_node_id == attempt.lsp_node_id
            and other.key_attempt > attempt.key_attempt
            and not (other.is_retired or other.is_exiting)
            and new is not None
            and not _is_dying(state, other)
            and has_moved_out(old, new, state.chain, min_depth=depth_asked(other, new))
        ):
            return other
    return None


def _may_retire(state: ClientState, attempt: ClientAttempt, old: Link) -> bool:
    """Say whether an old channel is alive and nothing of it is being decided, here or on chain.

    Where an advance of its leaf is under way, our neighbours may need us still.
    """
    return (
        not attempt.is_exiting
        and attempt.attempt_id not in state.advances
        and old.is_open
        and not old.quiet_for
        and old.funding_on(state.chain).outpoint not in state.chain.spends
        and swept_by(attempt.branch_on(state.chain).nodes, state.chain.spends) is None
        and state.chain.height < attempt.terms.expiry_height
    )


def _is_dying(state: ClientState, attempt: ClientAttempt) -> bool:
    dying_height = attempt.branch.exit_deadline_height - attempt.terms.dying_blocks
    return dying_height <= state.chain.height


def _link_of(state: ClientState, attempt: ClientAttempt) -> Link | None:
    if not isinstance(attempt.stage, Complete) or not attempt.is_ready_on_both_sides:
        return None
    return state.book.links.get(attempt.setting.channel_id)


def _retire_if_moved(turn: Turn[ClientState], attempt: ClientAttempt) -> None:
    to = moved_to(turn.state, attempt)
    if to is None:
        return
    turn.remember(
        hr.KeyRetired(
            attempt_id=attempt.attempt_id, to_attempt_id=to.attempt_id, height=turn.height
        )
    )
    _send_if_owed(turn, turn.state.attempts[attempt.attempt_id])


def _send_if_owed(turn: Turn[ClientState], attempt: ClientAttempt) -> None:
    """Hand the keys over to the LSP that is here, unless it has them; past the expiry never."""
    state = turn.state
    is_here = state.is_connected and attempt.lsp_node_id == state.lsp_node_id
    if not attempt.is_retired or attempt.keys_taken or not is_here:
        return
    if turn.height < attempt.terms.expiry_height:
        turn.ask(
            fx.HandOverKeys(
                node_id=attempt.lsp_node_id,
                attempt_id=attempt.attempt_id,
                factory=FactoryKey(attempt=attempt.key_attempt),
                channel=turn.link(attempt.setting.channel_id).key,
            )
        )
