"""How an advance, or one try of it, comes to nothing at the LSP.

Before its first `AdvanceCommit` an advance is dropped. Afterwards only once each client has said,
in this connection, that it signed nothing: whoever may have signed goes on with it, or waits. For a
client whose store was restored nobody waits.
"""

from collections.abc import Collection

from cromford import effects as fx
from cromford.protocol.advancing.making import own_intents
from cromford.protocol.advancing.rules import links_of
from cromford.protocol.advancing.sessions import leaf_of
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def advance_named(state: Factory, advance_id: bytes) -> LspAdvance | None:
    """Return the advance under way of this name; None if there is none."""
    return next((one for one in state.advances.values() if one.advance_id == advance_id), None)


def advances_in_order(state: Factory, *, leaf: str | None = None) -> list[LspAdvance]:
    """Return the advances under way, in the order of their leaves' names; or that of one leaf."""
    if leaf is not None:
        return [state.advances[leaf]] if leaf in state.advances else []
    return [advance for _, advance in sorted(state.advances.items())]


def node_id_of(state: Factory, client: int) -> bytes:
    """Return a client's node id."""
    return state.attempt.seats[client - 1].node_id


def is_intended(state: Factory, advance: LspAdvance) -> bool:
    """Say whether we are about to sign the new state, or did."""
    if advance.is_signed:
        return True
    intent = own_intents(leaf_of(state, advance), advance.state_index)[0]
    return (intent.kind, intent.outpoint, intent.state_index) in state.intents


def may_drop(state: Factory, advance: LspAdvance) -> bool:
    """Say whether nobody can be bound by an advance: it may be dropped."""
    if not advance.is_committed:
        return True
    if is_intended(state, advance):
        return False
    return all(_is_unbound(link) for link in links_of(state, advance.clients))


def _is_unbound(link: Link) -> bool:
    """Say whether a client said that it signed nothing, or what it signed binds nobody.

    Of one whose store was restored nothing is updated any more, on neither funding.
    """
    if link.next is None or (link.peer_is_behind and not link.may_lack_state):
        return True
    return not link.next.is_dual and link.next.peer_stage == 0


def give_up(
    turn: Turn[Factory],
    advance: LspAdvance,
    reason: str,
    *,
    gone: Collection[bytes] = (),
    culprits: tuple[int, ...] = (),
    is_fault: bool = False,
    is_late: bool = False,
    told: str | None = None,
) -> None:
    """Drop an advance, or end this try of it where somebody may have signed.

    Args:
        turn: The decision so far.
        advance: The advance.
        reason: Why.
        gone: Who hears nothing of it, by node id: it is gone, or said so itself.
        culprits: The clients that caused it.
        is_fault: Whether it was proven against them.
        is_late: Whether they let a deadline pass.
        told: What its clients hear of it, where that is less than why.
    """
    said = reason if told is None else told
    if may_drop(turn.state, advance):
        _drop(turn, advance, reason, culprits, is_fault=is_fault, is_late=is_late)
        _abort(turn, advance, said, gone)
    else:
        _end_try(turn, advance, said, gone, culprits, is_late=is_late)


def give_up_for_fault(
    turn: Turn[Factory], advance: LspAdvance, client: int, what: str, *, is_late: bool = False
) -> None:
    """Give up an advance, or this try of it, for what is proven against a client."""
    reason = f"client {client}: {what}"
    give_up(turn, advance, reason, culprits=(client,), is_fault=True, is_late=is_late)


def _drop(
    turn: Turn[Factory],
    advance: LspAdvance,
    reason: str,
    culprits: tuple[int, ...],
    *,
    is_fault: bool,
    is_late: bool,
) -> None:
    turn.remember(
        ar.AdvanceDropped(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            reason=reason[: m.REASON_SIZE_MAX],
            culprits=tuple(node_id_of(turn.state, client) for client in culprits),
            is_fault=is_fault,
            holdouts=culprits if is_late else (),
            height=turn.height,
        )
    )
    _release(turn, advance)


def _end_try(
    turn: Turn[Factory],
    advance: LspAdvance,
    reason: str,
    gone: Collection[bytes],
    culprits: tuple[int, ...],
    *,
    is_late: bool,
) -> None:
    """End a try: whoever is quiet for it comes back, and says how far it is.

    `AdvanceAbort` would say that nothing comes of it; but there may be another try.
    """
    session = advance.session
    if session is None and not advance.is_asking:
        return
    waiting = [link.client for link in links_of(turn.state, advance.clients) if not _is_dual(link)]
    turn.remember(
        ar.AdvanceSessionEnded(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            holdouts=culprits if is_late else (),
            height=turn.height,
        )
    )
    _release(turn, advance)
    hung_up = set(culprits)
    if session is not None:
        hung_up |= set(waiting)
    for client in sorted(hung_up):
        node_id = node_id_of(turn.state, client)
        if node_id not in gone:
            turn.ask(
                fx.Disconnect(
                    node_id=node_id,
                    reason=reason[: m.REASON_SIZE_MAX],
                    is_ours=client not in culprits,  # It only has to begin anew.
                )
            )


def _is_dual(link: Link) -> bool:
    return link.next is None or link.next.is_dual


def _abort(
    turn: Turn[Factory],
    advance: LspAdvance,
    reason: str,
    gone: Collection[bytes],
) -> None:
    if advance.session is None:
        buyer = node_id_of(turn.state, advance.buyer)
        if advance.is_committed and buyer not in gone:
            # Nobody was asked in this try; of earlier ones a new connection says nothing any more.
            turn.ask(fx.Disconnect(node_id=buyer, reason=reason, is_ours=True))
        return
    abort = m.AdvanceAbort(
        attempt_id=turn.state.attempt.attempt_id,
        advance_id=advance.advance_id,
        reason=reason[: m.REASON_SIZE_MAX],
    )
    for client in advance.clients:
        node_id = node_id_of(turn.state, client)
        if node_id not in gone:
            turn.send(node_id, abort)


def _release(turn: Turn[Factory], advance: LspAdvance) -> None:
    turn.ask(fx.ClearDeadline(deadline=fx.AdvanceDeadline(advance_id=advance.advance_id)))
    drop_pools(turn, advance)


def drop_pools(turn: Turn[Factory], before: LspAdvance) -> None:
    """Forget the nonces of a try that is over, but for those that channels are using."""
    if before.session is None:
        return
    links = links_of(turn.state, before.clients)
    in_use = {pool_id for link in links for pool_id in link.pool_ids}
    unused = tuple(pool_id for pool_id in before.session.pool_ids if pool_id not in in_use)
    if unused:
        turn.ask(fx.DropPools(pool_ids=unused))


def set_deadline(turn: Turn[Factory], advance_id: bytes) -> None:
    """Wait no longer than a deadline for the present step of an advance."""
    turn.ask(
        fx.SetDeadline(
            deadline=fx.AdvanceDeadline(advance_id=advance_id),
            seconds=turn.state.config.policy.deadline_seconds,
        )
    )
