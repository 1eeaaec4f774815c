"""The client's side of the lobby: a wish, fresh keys and pools, a join."""

from dataclasses import replace
from typing import assert_never

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal.client_attempt import Complete
from cromford.protocol.journal.client_candidate import pool_ids_of
from cromford.protocol.journal.client_state import ClientState, Joining
from cromford.protocol.journal.first_commitments import offer_of
from cromford.protocol.journal.kept import kept_join
from cromford.protocol.lobby.join_size import join_fits
from cromford.protocol.lobby.move import move_statement
from cromford.protocol.turn import Turn
from cromford.wallet.account import RECEIVE
from cromford.wire import messages as m
from cromford.wire.messages import encode_message


def take(turn: Turn[ClientState], event: ev.LobbyEvent) -> None:
    """Take the operator's wish to join or to leave, or the keys that were made for a join.

    Raises:
        Rejected: If the wish cannot be met.
    """
    match event:
        case ev.JoinRequested():
            on_join_requested(turn, event)
        case ev.LeaveRequested():
            on_leave_requested(turn)
        case ev.JoinPrepared():
            on_join_prepared(turn, event)
        case ev.BuildRequested() | ev.LadderRequested() | ev.BanRequested() | ev.BanEndRequested():
            raise AssertionError(f"{type(event).__name__} is an LSP's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[ClientState], message: m.LobbyMessage) -> None:
    """Take what the LSP says in the lobby; what only a client says ends the connection."""
    match message:
        case m.Lobby():
            on_lobby(turn, message)
        case m.Joined(factory_pubkey=pubkey):
            on_join_answered(turn, pubkey, None)
        case m.Refused(factory_pubkey=pubkey, reason=reason):
            on_join_answered(turn, pubkey, reason)
        case m.Join() | m.Leave():
            part(turn, message)
        case _:
            assert_never(message)


def part(turn: Turn[ClientState], message: m.Message) -> None:
    """Part from an LSP that says what only a client says."""
    reason = f"{type(message).__name__} is a client's message"
    turn.ask(fx.Disconnect(node_id=turn.state.config.lsp_node_id, reason=reason))


def on_lobby(turn: Turn[ClientState], lobby: m.Lobby) -> None:
    """Take the LSP's greeting; where there is a wish, join.

    Once in a connection, or again where it asks for keys of more funding candidates: then a wish
    that waits is taken back, and goes out anew. In a ceremony it only counts for the next join.
    What it asks for may keep a client from joining, and never from the channels that it has.
    """
    known, joining = turn.state.lobby, turn.state.joining
    if known is not None and not _asks_for_more(known, lobby):
        return
    if known is not None and known.candidates > turn.state.config.policy.candidates_max:
        return  # It asked for more than we bring already; with ever more it would fill our journal.
    if lobby.network != turn.state.config.network.genesis_hash:
        lsp = turn.state.config.lsp_node_id
        turn.ask(fx.Disconnect(node_id=lsp, reason="another network"))
        return
    turn.remember(lr.LobbyGreeted(message=encode_message(lobby)))
    if joining is not None:
        _take_back(turn, joining)
    prepare_join(turn)


def _asks_for_more(known: m.Lobby, lobby: m.Lobby) -> bool:
    """Say whether a greeting differs from the one before in asking for more candidates alone."""
    is_more = lobby.candidates > known.candidates
    return is_more and replace(known, candidates=lobby.candidates) == lobby


def objection(state: ClientState) -> str | None:
    """Return why this client cannot wait in its LSP's lobby; None if it can, or knows none."""
    lobby = state.lobby
    if lobby is None:
        return None
    most_candidates = state.config.policy.candidates_max
    if not 1 <= lobby.candidates <= most_candidates:
        return f"{lobby.candidates} funding candidates, expected 1..{most_candidates}"
    least, most = state.config.policy.pool_size
    if not least <= lobby.pool_size <= most:
        return f"pools of {lobby.pool_size} nonces, expected {least}..{most}"
    if not join_fits(n_candidates=lobby.candidates, pool_size=lobby.pool_size):
        return f"pools of {lobby.pool_size} nonces for {lobby.candidates} funding candidates"
    return None


def prepare_join(turn: Turn[ClientState]) -> None:
    """Ask for fresh keys and pools, where there is a wish and nothing under way.

    After an abort this is the same wish in the same lobby. Whoever had to join too often waits
    for some blocks; the next one asks again. A wish waits for a fresh chain, too, and for a mark.
    """
    state = turn.state
    if not turn.facts.may_risk:
        return
    lobby = state.lobby
    if state.wish is None or lobby is None or state.joining or state.open_attempt:
        return
    if not state.may_join or objection(state) is not None:
        return
    turn.ask(
        fx.PrepareJoin(
            attempt=state.next_attempt,
            pool_size=lobby.pool_size,
            n_candidates=lobby.candidates,
            move=_move(state),
        )
    )


def on_join_answered(turn: Turn[ClientState], pubkey: bytes, refusal: str | None) -> None:
    """Take the LSP's answer to the join that waits for one; any other is dropped."""
    joining = turn.state.joining
    if joining is None or joining.is_accepted or joining.join.factory_pool.pubkey != pubkey:
        return
    turn.remember(lr.JoinAnswered(factory_pubkey=pubkey, refusal=refusal))
    if refusal is not None:
        turn.ask(fx.DropPools(pool_ids=pool_ids_of(joining.join)))


def _move(state: ClientState) -> tuple[int, bytes] | None:
    """Return the old key that proves a move: of a factory in its dying period."""
    for attempt in state.attempts.values():
        is_here = attempt.lsp_node_id == state.lsp_node_id
        if not isinstance(attempt.stage, Complete) or not attempt.ready_sent or not is_here:
            continue
        if attempt.is_retired:
            continue  # The key is not ours alone any more: by it we prove nothing.
        exit_deadline = attempt.branch.exit_deadline_height
        if exit_deadline - attempt.terms.dying_blocks <= state.chain.height:
            statement = move_statement(
                client_node_id=state.config.node_id,
                lsp_node_id=state.config.lsp_node_id,
                old_attempt_id=attempt.attempt_id,
            )
            return attempt.key_attempt, statement
    return None


def _moving_from(state: ClientState, signature: bytes | None) -> tuple[m.Move, ...]:
    move = _move(state)
    if signature is None or move is None:
        return ()
    old = next(a for a in state.attempts.values() if a.key_attempt == move[0])
    return (m.Move(attempt_id=old.attempt_id, signature=signature),)


def on_join_prepared(turn: Turn[ClientState], event: ev.JoinPrepared) -> None:
    """Join with fresh keys and pools, unless the wish went away meanwhile."""
    state = turn.state
    pools = [event.factory_pool, *(pool for _, pool in event.channels)]
    is_under_way = state.joining is not None or state.open_attempt is not None
    if state.lobby is None or state.wish is None or is_under_way or objection(state) is not None:
        turn.ask(fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools)))
        return
    if len(event.channels) != state.lobby.candidates:
        # The LSP asked for more while these were made.
        turn.ask(fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools)))
        prepare_join(turn)
        return
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
    # Whoever joins again and again would else be paid where no restored wallet looks.
    if not state.wallet.is_at_gap(RECEIVE):
        turn.remember(sr.AddressIssued(change=RECEIVE))
    turn.remember(lr.JoinSent(attempt=event.asked.attempt, join=kept_join(join)))
    turn.send(state.config.lsp_node_id, join)


def on_join_requested(turn: Turn[ClientState], event: ev.JoinRequested) -> None:
    """Take the operator's wish.

    Raises:
        Rejected: If a factory is under way, the capacity cannot be had, or no risk may be
            taken.
    """
    turn.check_risk()
    state = turn.state
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
    turn.remember(
        lr.WishMade(capacity_sat=event.capacity_sat, capacity_least_sat=event.capacity_least_sat)
    )
    prepare_join(turn)


def on_leave_requested(turn: Turn[ClientState]) -> None:
    """Withdraw the operator's wish.

    Raises:
        Rejected: If there is none, or a factory is under way.
    """
    state = turn.state
    if state.wish is None:
        raise Rejected("not_joined", "not waiting in the lobby")
    if state.open_attempt is not None:
        raise Rejected("ceremony_under_way", "a factory is being built", retryable=True)
    withdraw(turn)


def withdraw(turn: Turn[ClientState]) -> None:
    """Wish for nothing any more, and say so where the LSP heard of it."""
    joining = turn.state.joining
    turn.remember(lr.WishWithdrawn())
    if joining is not None:
        _take_back(turn, joining)


def _take_back(turn: Turn[ClientState], joining: Joining) -> None:
    """Leave the lobby with a join that nothing came of, and forget its pools."""
    leave = m.Leave(factory_pubkey=joining.join.factory_pool.pubkey)
    turn.send(turn.state.config.lsp_node_id, leave)
    turn.ask(fx.DropPools(pool_ids=pool_ids_of(joining.join)))
