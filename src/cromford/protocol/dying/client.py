"""A client moves itself: out of a factory that dies, into the next, with all that it has.

It joins the LSP's lobby without being asked, with the proof of its old factory key, and once it has
a channel in a later factory it pays its whole balance to itself there: an ordinary HTLC out of the
old channel, through the LSP, into the new one. It is payer and payee of that, so it knows the
preimage from the beginning, and shows it as any payee does: once the HTLC is irrevocably in the new
channel, and in time.
"""

from typing import Final, assert_never

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.crypto.keys import sha256
from cromford.factory.lifetime import Period
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_of, offerable_msat
from cromford.protocol.channels.client import finish_channels, is_usable
from cromford.protocol.channels.coverage import room_msat
from cromford.protocol.channels.htlc_rules import (
    forward_delta_blocks,
    is_alive,
    min_final_cltv_expiry_delta,
)
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT
from cromford.protocol.channels.payments import start_payment
from cromford.protocol.dying.moved import least_capacity_sat, movable_msat
from cromford.protocol.dying.telling import tell_period
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState, Wish
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.moving import NOT_MOVING, Moving
from cromford.protocol.lobby import client as lobby
from cromford.protocol.policy import WhenDying
from cromford.protocol.turn import Turn
from cromford.watch.exit import swept_by

# Of the dying period: until then a later factory is waited for whose funding left the chain, or in
# which there is no room for all. Sooner, a third would be built where the second itself dies soon.
DOUBT_PERCENT: Final = 50


def take(turn: Turn[ClientState], event: ev.MoveEvent) -> None:
    """Take the operator's wish to move, or what was drawn for a payment to ourselves.

    Raises:
        Rejected: If there is nothing to move out of.
    """
    match event:
        case ev.MoveRequested(attempt_id=attempt_id):
            on_move_requested(turn, attempt_id)
        case ev.MovePrepared():
            on_move_prepared(turn, event)
        case _:
            assert_never(event)


# What a client is to do


def moving_of(state: ClientState, attempt: ClientAttempt) -> Moving:
    """Return how far a client has moved out of a factory."""
    return state.moving.get(attempt.attempt_id, NOT_MOVING)


def link_of(state: ClientState, attempt: ClientAttempt) -> Link | None:
    """Return a factory's channel; None before it was ready."""
    if not attempt.ready_sent or not isinstance(attempt.stage, Complete):
        return None
    return state.book.links.get(attempt.setting.channel_id)


def can_move_out(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether a channel's factory dies, and its money can still go elsewhere by a payment.

    Nothing about a channel expires whose output is on chain for good: it stays where it is.
    """
    link = link_of(state, attempt)
    return (
        link is not None
        and attempt.lsp_node_id == state.config.lsp_node_id
        and state.chain.height >= attempt.lifetime.dying_height
        and is_usable(state, link)
        and not link.is_settled(state.chain)
    )


def moves_out(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether a client moves out of a factory by itself: it can, and it is to."""
    return can_move_out(state, attempt) and is_to_move(state, attempt)


def is_to_move(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether a client is to move out: by its operator's word, else by its policy."""
    choice = moving_of(state, attempt).choice
    return state.config.policy.when_dying is WhenDying.MOVE if choice is None else choice


def target_of(state: ClientState, old: ClientAttempt) -> ClientAttempt | None:
    """Return the newest factory that a client has moved to, or is about to; None if there is none.

    One that is being built, that waits for its block, or in which the channel lives; one whose
    funding left the chain is waited for until half of the dying period is over.
    """
    newer = reversed(tuple(state.attempts.values()))
    return next((attempt for attempt in newer if _is_target(state, old, attempt)), None)


def _is_target(state: ClientState, old: ClientAttempt, attempt: ClientAttempt) -> bool:
    if attempt.attempt_id == old.attempt_id or attempt.lsp_node_id != old.lsp_node_id:
        return False
    if attempt.is_open:
        return True
    link, height = link_of(state, attempt), state.chain.height
    if link is None or height >= attempt.lifetime.dying_height:
        return False
    if attempt.is_exiting or not is_alive(link, state.chain):
        return False
    is_on_chain = state.chain.depth(attempt.funding_tx.txid) > 0
    return is_on_chain or height < old.lifetime.share_height(DOUBT_PERCENT)


def lacks_room(state: ClientState, old: ClientAttempt, target: ClientAttempt) -> bool:
    """Say whether a live channel that a client moves to will not take all that is to move there.

    Not before half of the dying period is over, and not while something is under way in either
    channel, which may change it.
    """
    link, new = link_of(state, old), link_of(state, target)
    if link is None or new is None or not _is_late(state, old) or not _is_quiet(state, link, new):
        return False
    due_msat = min(balance_of(link).own_msat, offerable_msat(link.state, link.me))
    return due_msat >= LEFT_BEHIND_MSAT and due_msat > movable_msat(
        link, new, room_msat=room_msat(state, new)
    )


def _is_late(state: ClientState, old: ClientAttempt) -> bool:
    return state.chain.height >= old.lifetime.share_height(DOUBT_PERCENT)


def _is_quiet(state: ClientState, link: Link, new: Link) -> bool:
    is_open = link.is_open and new.is_open and is_usable(state, new)
    return is_open and not (link.state.htlcs or new.state.htlcs)


def is_left(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether something is still to be done until a client is out of a factory."""
    target = target_of(state, attempt)
    link = link_of(state, attempt)
    if target is None or link is None:
        return link is not None
    return balance_of(link).own_msat >= LEFT_BEHIND_MSAT or bool(link.state.htlcs)


# What it does


def on_block(turn: Turn[ClientState]) -> None:
    """Tell of factories that die, as a block makes it so."""
    for attempt in turn.state.attempts.values():
        link = link_of(turn.state, attempt)
        if link is None or attempt.period is Period.EXPIRED:
            continue
        if not _is_gone(turn.state, attempt, link):
            tell_period(turn, attempt.attempt_id, attempt.lifetime, attempt.period)


def _is_gone(state: ClientState, attempt: ClientAttempt, link: Link) -> bool:
    """Say whether nothing that is ours grows older with a factory.

    It was never funded, or something else than our branch took its output; or we moved out of it;
    or our channel's output is in a block for good, or spent, and nothing about it expires.
    """
    is_funded = state.chain.depth(attempt.funding_tx.txid) > 0
    return (
        not is_funded
        or attempt.is_retired
        or link.funding_on(state.chain).outpoint in state.chain.spends
        or link.remaining(state.chain).exit_deadline_height is None
        or swept_by(attempt.branch_on(state.chain).nodes, state.chain.spends) is not None
    )


def go_on(turn: Turn[ClientState]) -> None:
    """Do what is next in moving out of factories that die; nothing where none does.

    Whatever it needs is part of the state, so it does not matter how often it is asked, nor when a
    crash came.
    """
    _end_payments(turn)
    _end_wish(turn)
    if not turn.facts.is_fresh:
        return
    for attempt in tuple(turn.state.attempts.values()):
        if moves_out(turn.state, attempt):
            _go_on_from(turn, attempt)


def _go_on_from(turn: Turn[ClientState], old: ClientAttempt) -> None:
    state, moving = turn.state, moving_of(turn.state, old)
    if moving.is_under_way or not moving.may_try(turn.height):
        return
    target = target_of(state, old)
    if target is not None and _way(state, old, target) is not None:
        turn.ask(fx.PrepareMove(attempt_id=old.attempt_id))
    elif target is None or lacks_room(state, old, target):
        _wish(turn, old)


def _way(
    state: ClientState, old: ClientAttempt, target: ClientAttempt
) -> tuple[Link, Link, int] | None:
    """Return both channels and what to pay through them now; None while nothing can be."""
    link, new = link_of(state, old), link_of(state, target)
    if link is None or new is None or state.lobby is None:
        return None
    if not (link.is_open and new.is_open and is_usable(state, new)):
        return None
    amount_msat = movable_msat(link, new, room_msat=room_msat(state, new))
    return (link, new, amount_msat) if amount_msat else None


def on_move_prepared(turn: Turn[ClientState], event: ev.MovePrepared) -> None:
    """Pay ourselves, unless something has changed since the values were drawn."""
    state = turn.state
    old = state.attempts[event.asked.attempt_id]
    target = target_of(state, old)
    if not moves_out(state, old) or moving_of(state, old).is_under_way or target is None:
        return
    way = _way(state, old, target)
    if way is None or not turn.facts.is_fresh:
        return
    link, new, amount_msat = way
    payment_hash = sha256(event.preimage)
    delta_blocks = min_final_cltv_expiry_delta(new, turn.chain)
    delta_blocks += forward_delta_blocks(link, turn.chain)
    description = f"out of factory {old.attempt_id.hex()[:8]}"
    request = ev.PayRequested(
        text="",
        payment_hash=payment_hash,
        payment_secret=event.payment_secret,
        payee=state.config.node_id,
        amount_msat=amount_msat,
        description=description,
        min_final_cltv_expiry_delta=delta_blocks,
    )
    try:
        start_payment(turn, link, request, fee_msat=0, cltv_expiry=turn.known_height + delta_blocks)
    except UpdateRefused as refused:
        _hinder(turn, old, refused)
        return
    turn.remember(
        cr.InvoiceIssued(
            payment_hash=payment_hash,
            preimage=event.preimage,
            payment_secret=event.payment_secret,
            amount_msat=amount_msat,
            description=description,
            expires_at=0,
            text="",
        ),
        dr.MoveStarted(
            attempt_id=old.attempt_id,
            to_attempt_id=target.attempt_id,
            payment_hash=payment_hash,
            amount_msat=amount_msat,
        ),
    )
    finish_channels(turn)


def _hinder(turn: Turn[ClientState], old: ClientAttempt, refused: UpdateRefused) -> None:
    """Remember why no payment to ourselves can be made; each block asks again.

    Once: by the limit alone, for the numbers in it change with each block.
    """
    if moving_of(turn.state, old).hindrance != refused.field:
        turn.remember(dr.MoveHindered(attempt_id=old.attempt_id, reason=refused.field))


def _end_payments(turn: Turn[ClientState]) -> None:
    """Remember what became of payments to ourselves; one that failed is not taken any more."""
    for attempt_id in sorted(turn.state.moving):
        moving, book = turn.state.moving[attempt_id], turn.book
        if not moving.is_under_way or moving.payment is None:
            continue
        payment, invoice = book.payments[moving.payment], book.invoices[moving.payment]
        if payment.status == "pending":
            continue
        arrived = invoice.paid_by if payment.status == "paid" else None
        if invoice.status == "open":
            turn.remember(cr.InvoiceExpired(payment_hash=moving.payment))
        turn.remember(
            dr.MoveEnded(
                attempt_id=attempt_id,
                to_attempt_id=b"" if arrived is None else book.links[arrived[0]].attempt_id,
                payment_hash=moving.payment,
                amount_msat=payment.amount_msat,
                is_moved=arrived is not None,
            )
        )


# The lobby


def _wish(turn: Turn[ClientState], old: ClientAttempt) -> None:
    """Wish for a channel in the next factory; the operator's own wish goes first, until refused."""
    state = turn.state
    if state.joining is not None or state.open_attempt is not None:
        return
    if state.wish is not None and state.wish.refused_height is None:
        return
    wish = wish_of(state, old)
    if wish is None:
        return
    turn.remember(
        lr.WishMade(
            capacity_sat=wish.capacity_sat,
            capacity_least_sat=wish.capacity_least_sat,
            moves_from=wish.moves_from,
        )
    )
    lobby.prepare_join(turn)


def wish_of(state: ClientState, old: ClientAttempt) -> Wish | None:
    """Return what a client wishes to move out of a factory; None while there is no lobby.

    As much as the old channel holds, unless the policy says another capacity, and never less than
    what the whole balance needs, with that of other factories that die: the largest there is, if
    that is less. Then the rest moves to a third.
    """
    link = link_of(state, old)
    if state.lobby is None or link is None:
        return None
    largest_sat = state.lobby.capacity_max_sat
    least_sat = min(max(1, needed_sat(state, old)), largest_sat)
    wanted_sat = state.config.policy.moving_capacity_sat or link.state.capacity_sat
    wanted_sat = max(wanted_sat, least_sat, state.lobby.capacity_min_sat)
    return Wish(
        capacity_sat=min(wanted_sat, largest_sat),
        capacity_least_sat=least_sat,
        moves_from=old.attempt_id,
    )


def needed_sat(state: ClientState, old: ClientAttempt) -> int:
    """Return the smallest channel that takes all a client has in factories it moves out of."""
    moving = [attempt for attempt in state.attempts.values() if moves_out(state, attempt)]
    links = [link_of(state, attempt) for attempt in moving]
    balances = [balance_of(link) for link in links if link is not None]
    total_msat = sum(one.own_msat + one.sending_msat + one.receiving_msat for one in balances)
    old_link = link_of(state, old)
    return 0 if old_link is None else least_capacity_sat(total_msat, old_link.setting.terms)


def _end_wish(turn: Turn[ClientState]) -> None:
    """Withdraw a wish that was made to move out of a factory, once there is nothing to move."""
    wish = turn.state.wish
    if wish is None or not wish.moves_from or turn.state.open_attempt is not None:
        return
    state, old = turn.state, turn.state.attempts[wish.moves_from]
    target = target_of(state, old)
    # One that was too small is so again once what is under way in it has ended.
    if not moves_out(state, old) or (
        target is not None and not _is_wanted_still(state, old, target)
    ):
        lobby.withdraw(turn)


def _is_wanted_still(state: ClientState, old: ClientAttempt, target: ClientAttempt) -> bool:
    """Say whether a wish stays that was made though there is a factory to move to."""
    link, new = link_of(state, old), link_of(state, target)
    if link is None or new is None or not _is_late(state, old):
        return False
    if _is_quiet(state, link, new):
        return lacks_room(state, old, target)
    return balance_of(link).own_msat >= LEFT_BEHIND_MSAT


# What the operator says


def on_join_requested(turn: Turn[ClientState], event: ev.JoinRequested) -> None:
    """Take the operator's wish; it goes before one that the client made by itself.

    Raises:
        Rejected: If it cannot be met.
    """
    state = turn.state
    if state.wish is not None and state.wish.moves_from and state.open_attempt is None:
        lobby.withdraw(turn)
    lobby.on_join_requested(turn, event)


def on_leave_requested(turn: Turn[ClientState]) -> None:
    """Leave the lobby, and stay in every factory that the client was moving out of by itself.

    Raises:
        Rejected: If there is nothing to withdraw, or a factory is under way.
    """
    state = turn.state
    moving = [
        attempt
        for attempt in state.attempts.values()
        if moves_out(state, attempt) and is_left(state, attempt)
    ]
    if state.wish is not None or not moving:
        lobby.on_leave_requested(turn)
    for attempt in moving:
        turn.remember(dr.MoveChosen(attempt_id=attempt.attempt_id, is_moving=False))


def on_move_requested(turn: Turn[ClientState], attempt_id: bytes) -> None:
    """Move out of a factory because the operator says so.

    Raises:
        Rejected: If there is no such factory, or it does not die, or its channel cannot pay.
    """
    state = turn.state
    attempt = state.attempts.get(attempt_id)
    if attempt is None:
        raise Rejected("factory_not_found", f"no factory {attempt_id.hex()}")
    if link_of(state, attempt) is None:
        raise Rejected("no_channel", "this factory has no channel of ours")
    dying_height = attempt.lifetime.dying_height
    if turn.height < dying_height:
        raise Rejected(
            "not_dying",
            f"the factory dies from height {dying_height} on, the chain is at {turn.height}",
            retryable=True,
        )
    if not can_move_out(state, attempt):
        raise Rejected("not_movable", "the factory's channel takes no payment any more: see `exit`")
    turn.remember(dr.MoveChosen(attempt_id=attempt_id, is_moving=True))
    go_on(turn)


def take_lobby(turn: Turn[ClientState], event: ev.LobbyEvent) -> None:
    """Take what the lobby takes, and what it means for a client that moves.

    Raises:
        Rejected: If the operator's wish cannot be met.
    """
    match event:
        case ev.JoinRequested():
            on_join_requested(turn, event)
        case ev.LeaveRequested():
            on_leave_requested(turn)
        case _:
            lobby.take(turn, event)
