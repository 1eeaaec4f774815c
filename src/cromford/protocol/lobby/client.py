"""The client's side of the lobby: a wish, fresh keys and pools, a join."""

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import Complete, pool_ids_of
from cromford.protocol.journal.client_state import ClientState, apply
from cromford.protocol.journal.first_commitments import offer_of
from cromford.protocol.journal.proposal import N_CANDIDATES
from cromford.protocol.lobby.move import move_digest
from cromford.protocol.turn import NOTHING, Decision
from cromford.wallet.account import RECEIVE
from cromford.wire import messages as m
from cromford.wire.messages import encode_message


def on_lobby(state: ClientState, lobby: m.Lobby) -> Decision:
    """Take the LSP's greeting, once in a connection; where there is a wish, join."""
    lsp = state.config.lsp_node_id
    if state.lobby is not None:
        return NOTHING
    if lobby.network != state.config.network.genesis_hash:
        return Decision(effects=(fx.Disconnect(node_id=lsp, reason="another network"),))
    if lobby.candidates != N_CANDIDATES:
        reason = f"{lobby.candidates} funding candidates, this version signs {N_CANDIDATES}"
        return Decision(effects=(fx.Disconnect(node_id=lsp, reason=reason),))
    least, most = state.config.policy.pool_size
    if not least <= lobby.pool_size <= most:
        reason = f"pools of {lobby.pool_size} nonces, expected {least}..{most}"
        return Decision(effects=(fx.Disconnect(node_id=lsp, reason=reason),))
    greeted = Decision(records=(r.LobbyGreeted(message=encode_message(lobby)),))
    return greeted + prepare_join(state, lobby)


def prepare_join(state: ClientState, lobby: m.Lobby | None) -> Decision:
    """Ask for fresh keys and pools, where there is a wish and nothing under way.

    After an abort this is the same wish in the same lobby. Whoever had to join too often waits
    for some blocks; the next one asks again.
    """
    if state.wish is None or lobby is None or state.joining or state.open_attempt:
        return NOTHING
    if not state.may_join:
        return NOTHING
    return Decision(
        effects=(
            fx.PrepareJoin(
                attempt=state.next_attempt,
                pool_size=lobby.pool_size,
                n_candidates=lobby.candidates,
                move=_move(state),
            ),
        )
    )


def on_join_answered(state: ClientState, pubkey: bytes, refusal: str | None) -> Decision:
    """Take the LSP's answer to the join that waits for one; any other is dropped."""
    joining = state.joining
    if joining is None or joining.is_accepted or joining.join.factory_pool.pubkey != pubkey:
        return NOTHING
    answered = Decision(records=(r.JoinAnswered(factory_pubkey=pubkey, refusal=refusal),))
    if refusal is None:
        return answered
    return answered + Decision(effects=(fx.DropPools(pool_ids=pool_ids_of(joining.join)),))


def _move(state: ClientState) -> tuple[int, bytes] | None:
    """Return the old key that proves a move: of a factory in its dying period."""
    for attempt in state.attempts.values():
        if not isinstance(attempt.stage, Complete) or not attempt.ready_sent:
            continue
        exit_deadline = attempt.branch.exit_deadline_height
        if exit_deadline - attempt.terms.dying_blocks <= state.chain.height:
            digest = move_digest(
                client_node_id=state.config.node_id,
                lsp_node_id=state.config.lsp_node_id,
                old_attempt_id=attempt.attempt_id,
            )
            return attempt.key_attempt, digest
    return None


def _moving_from(state: ClientState, signature: bytes | None) -> tuple[m.Move, ...]:
    move = _move(state)
    if signature is None or move is None:
        return ()
    old = next(a for a in state.attempts.values() if a.key_attempt == move[0])
    return (m.Move(attempt_id=old.attempt_id, signature=signature),)


def on_join_prepared(state: ClientState, event: ev.JoinPrepared) -> Decision:
    """Join with fresh keys and pools, unless the wish went away meanwhile."""
    pools = [event.factory_pool, *(pool for _, pool in event.channels)]
    if state.lobby is None or state.wish is None or state.joining or state.open_attempt:
        return Decision(effects=(fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools)),))
    join = m.Join(
        capacity_sat=state.wish.capacity_sat,
        capacity_least_sat=state.wish.capacity_least_sat,
        factory_pool=m.Pool(
            pubkey=event.factory_pool.pubkey, pubnonces=event.factory_pool.pubnonces
        ),
        payout_script=state.wallet.next_script(RECEIVE),
        candidates=tuple(
            m.CandidateOffer(
                channel=offer_of(keys),
                pool=m.Pool(pubkey=pool.pubkey, pubnonces=pool.pubnonces),
            )
            for keys, pool in event.channels
        ),
        moves=_moving_from(state, event.move_signature),
    )
    return Decision(
        records=(
            r.AddressIssued(change=RECEIVE),
            r.JoinSent(attempt=event.asked.attempt, message=encode_message(join)),
        ),
        effects=(fx.Send(node_id=state.config.lsp_node_id, message=join),),
    )


def on_join_requested(state: ClientState, event: ev.JoinRequested) -> Decision:
    """Take the operator's wish.

    Raises:
        Rejected: If a factory is under way, or the capacity cannot be had.
    """
    if not 0 < event.capacity_least_sat <= event.capacity_sat:
        raise Rejected(
            "invalid_capacity",
            f"capacity_sat: expected at least {event.capacity_least_sat} and above 0, "
            f"received {event.capacity_sat}",
        )
    if state.open_attempt is not None:
        raise Rejected("ceremony_under_way", "a factory is being built", retryable=True)
    if state.joining is not None:
        raise Rejected("already_joined", "already waiting in the lobby: leave first")
    lobby = state.lobby
    if lobby is not None and not (
        lobby.capacity_min_sat <= event.capacity_sat
        and event.capacity_least_sat <= lobby.capacity_max_sat
    ):
        raise Rejected(
            "capacity_out_of_range",
            f"capacity_sat: expected {lobby.capacity_min_sat}..{lobby.capacity_max_sat}, "
            f"received {event.capacity_sat}",
        )
    wish = r.WishMade(capacity_sat=event.capacity_sat, capacity_least_sat=event.capacity_least_sat)
    return Decision(records=(wish,)) + prepare_join(apply(state, wish), lobby)


def on_leave_requested(state: ClientState) -> Decision:
    """Withdraw the operator's wish.

    Raises:
        Rejected: If there is none, or a factory is under way.
    """
    if state.wish is None:
        raise Rejected("not_joined", "not waiting in the lobby")
    if state.open_attempt is not None:
        raise Rejected("ceremony_under_way", "a factory is being built", retryable=True)
    withdrawn = Decision(records=(r.WishWithdrawn(),))
    if state.joining is None:
        return withdrawn
    leave = m.Leave(factory_pubkey=state.joining.join.factory_pool.pubkey)
    return withdrawn + Decision(
        effects=(
            fx.Send(node_id=state.config.lsp_node_id, message=leave),
            fx.DropPools(pool_ids=pool_ids_of(state.joining.join)),
        )
    )
