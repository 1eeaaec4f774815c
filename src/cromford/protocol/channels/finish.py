"""The end of every decision about channels: answer what waits for an answer, then sign."""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from cromford import effects as fx
from cromford.channel.stage import LiveHtlc
from cromford.protocol.channels.close_rules import stands_still
from cromford.protocol.channels.payments import give_back, take
from cromford.protocol.channels.signing import sign_if_due
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import HtlcKey
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields

# All that a payer hears about a payee. It may be tried again: most reasons pass.
NOT_DELIVERED: Final = Failure.TEMPORARY_CHANNEL_FAILURE
# Of HTLCs that wait for one payee, and that are refused by it once more, in one decision.
VAIN_MAX: Final = 32

Answer = Callable[[AnyTurn, Link, LiveHtlc], None]


def finish(
    turn: AnyTurn,
    answer: Answer,
    *,
    takes_up_held: bool = False,
    payees: Collection[bytes] = (),
) -> None:
    """Answer every HTLC that can be answered now, and sign what is new in each channel.

    In each channel the first comes first, and nothing depends on how a map is ordered.

    Args:
        turn: The decision so far.
        answer: Decides about an HTLC of a peer that is locked in.
        takes_up_held: Whether all that waited for a fresh chain is decided again.
        payees: Those whose channels changed elsewhere, and may have room now.
    """
    waiting = [*sorted(turn.book.arrived), *_taken_up(turn, takes_up_held=takes_up_held)]
    for key in waiting:
        _answer(turn, key, answer)
    for key in sorted(turn.book.resolved):
        _pass_back(turn, key)
    if turn.book.held_for:
        here = (turn.link(channel_id).node_id for channel_id in turn.touched)
        for payee in dict.fromkeys((*here, *payees)):
            _ask_again(turn, payee, answer)
    for channel_id in sorted(turn.book.links) if takes_up_held else turn.touched:
        sign_if_due(turn, turn.link(channel_id))


def _taken_up(turn: AnyTurn, *, takes_up_held: bool) -> list[HtlcKey]:
    """Return what waits and is decided again: all of it, or what a payer's channel came back with.

    That may find its payee now. What waits for a payee whose channel came back is asked for below.
    """
    back = turn.first(cr.ChannelReestablished)
    keys: Iterable[HtlcKey] = ()
    if takes_up_held:
        keys = turn.book.held
    elif back is not None:
        keys = (key for key in turn.book.held if key[0] == back.channel_id)
    return sorted(key for key in keys if key not in turn.book.released)


def _ask_again(turn: AnyTurn, payee: bytes, answer: Answer) -> None:
    """Take up what waits for a payee whose channels changed: they may have room for it now.

    Otherwise whoever fills a payee's channel for a moment would stop, for a whole hold, all that is
    paid to it in that moment. Who waits longest comes first. What cannot fit is not asked for: each
    word of the payee would cost what all that waits for it does. Where `VAIN_MAX` fit and are
    refused all the same, those behind wait until the first are over, for a hold at the most.
    """
    held = turn.book.held_for.get(payee, ())
    room_msat = turn.facts.directory.room_msat(payee) if held else 0
    n_vain = 0
    for key in held:
        if not room_msat or n_vain == VAIN_MAX:
            return
        if key in turn.book.released or (found := _answerable(turn, key)) is None:
            continue
        if decode_fields(m.Delivery, found[1].payload).amount_msat > room_msat:
            continue
        answer(turn, *found)
        if key in turn.book.held:
            n_vain += 1
        else:
            room_msat = turn.facts.directory.room_msat(payee)


def _answer(turn: AnyTurn, key: HtlcKey, answer: Answer) -> None:
    found = _answerable(turn, key)
    if found is not None:
        answer(turn, *found)


def _answerable(turn: AnyTurn, key: HtlcKey) -> tuple[Link, LiveHtlc] | None:
    """Return an HTLC that may be answered in its channel now, with that; None if it may not."""
    link = turn.link(key[0])
    live = link.incoming(key[1])
    if live is None or not link.is_open or stands_still(link, turn.chain):
        return None
    return link, live


def _pass_back(turn: AnyTurn, key: HtlcKey) -> None:
    """Give the answer to an HTLC that went on, or was held, to where it came from.

    Whatever the payee or its channel said stays here: the payer hears the same of all of it.
    """
    link = turn.link(key[0])
    forward = turn.book.forwards.get(key)
    if not link.is_open or link.incoming(key[1]) is None or stands_still(link, turn.chain):
        return
    if forward is None or forward.preimage is None:
        give_back(turn, link, key[1], NOT_DELIVERED.reason)
        return
    hold = fx.HoldDeadline(channel_id=key[0], htlc_id=key[1])
    turn.ask(fx.ClearDeadline(deadline=hold))
    turn.remember(
        cr.FeeEarned(
            channel_id=link.channel_id,
            htlc_id=key[1],
            payment_hash=forward.payment_hash,
            fee_msat=forward.fee_msat,
            announced_by=forward.announced_by,
        )
    )
    take(turn, link, key[1], forward.preimage)
