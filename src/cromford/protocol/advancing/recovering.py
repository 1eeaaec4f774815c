"""What a client's restored store gets back of its leaf: newer states, and poisons.

Each state is computed here, and believed by everybody's signature: ours is in it, so it is one that
we signed. An LSP can withhold, and invent nothing. Until it told, or a minute after a start, no
state is published that may have been replaced.
"""

from typing import Final

from cromford import effects as fx
from cromford.channel.errors import PeerViolation
from cromford.factory.allocation import AdvanceRefused
from cromford.factory.leaf import Leaf
from cromford.protocol.advancing.finishing import check_both, check_poisons, check_signed
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.leaf_states import allocation_told, leaf_with, states_after
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

ASKING_SECONDS: Final = 60


def on_start(turn: Turn[ClientState]) -> None:
    """Wait for the LSP's word of each leaf of which our store may lack states, and not for ever."""
    for attempt_id, attempt in turn.state.attempts.items():
        if attempt.awaits_states:
            deadline = fx.LeafDeadline(attempt_id=attempt_id)
            turn.ask(fx.SetDeadline(deadline=deadline, seconds=ASKING_SECONDS))


def on_deadline(turn: Turn[ClientState], deadline: fx.LeafDeadline) -> None:
    """Go on with the states that we know."""
    attempt = turn.state.attempts.get(deadline.attempt_id)
    if attempt is not None and attempt.awaits_states:
        turn.remember(ar.LeafStatesTold(attempt_id=deadline.attempt_id, message=b""))


def on_told(turn: Turn[ClientState], message: m.LeafStates) -> None:
    """Hold what our store lacks of what the LSP tells, once all of it is verified.

    A store that is known to be our newest is told nothing.
    """
    attempt = turn.state.attempt_with(turn.state.lsp_node_id, message.attempt_id)
    if attempt is None or not isinstance(attempt.stage, Complete) or attempt.is_retired:
        return
    link = turn.book.links.get(attempt.setting.channel_id)
    if link is None or not link.may_lack_state:
        return
    try:
        _check(attempt, message)
    except PeerViolation as violation:
        end_updates(turn, link, str(violation))
        return
    after = states_after(attempt.leaf_states, message, client=attempt.client, leaf=attempt.leaf)
    if attempt.awaits_states or after != attempt.leaf_states:
        turn.remember(
            ar.LeafStatesTold(attempt_id=attempt.attempt_id, message=encode_message(message))
        )
        deadline = fx.LeafDeadline(attempt_id=attempt.attempt_id)
        turn.ask(fx.ClearDeadline(deadline=deadline))


def _check(attempt: ClientAttempt, message: m.LeafStates) -> None:
    """Check every state and poison that an LSP tells of against our own bytes.

    Raises:
        PeerViolation: If one does not follow from the one before, or is not signed by all.
    """
    leaf = leaf_with(
        (),
        attempt.candidate.branch.vertices[-1],
        terms=attempt.terms,
        factory_pubkeys=attempt.leaf_pubkeys,
    )
    for told in message.states:
        try:
            leaf = leaf.advanced(allocation_told(told))
        except AdvanceRefused as error:
            raise PeerViolation(
                error.field, expected=error.expected, received=error.received
            ) from error
        _check_is_known(attempt, len(leaf.states) - 1, leaf)
        check_signed(leaf.state, told.signature)
        check_both(told)
        if told.stock_poison:
            check_poisons(leaf, len(leaf.states) - 1, told)


def _check_is_known(attempt: ClientAttempt, state_index: int, leaf: Leaf) -> None:
    known = attempt.leaf.states[state_index : state_index + 1]
    if known not in ((), (leaf.state,)):
        raise PeerViolation(leaf.state.name, expected=known[0].tx.txid, received=leaf.state.tx.txid)
