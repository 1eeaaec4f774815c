"""The LSP between two clients: an HTLC goes on, waits for its payee, or is given back.

What a payer is told must not tell who is a client, who is at home, and how much it can receive. So
it hears one and the same of all that depends on the payee, after one and the same time.

It never offers what it could lose: the incoming HTLC is locked in, pays the fee, and expires so
much later that it can still be claimed after the outgoing one was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.channel.limits import is_overexposed
from cromford.channel.stage import LiveHtlc
from cromford.protocol.channels.htlc_rules import (
    acceptance_failure,
    forward_delta_blocks,
    is_final,
)
from cromford.protocol.channels.payments import give_back, offer
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book, HtlcKey
from cromford.protocol.journal.encoding import delivery_of
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields

MILLION: Final = 1_000_000
STALE: Final = "our chain is stale"  # Why an HTLC waits, for the operator.


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingRules:
    """What an LSP asks for a forward, and where it stands now.

    Attributes:
        fee_base_msat: For each HTLC (BOLT 7).
        fee_proportional_millionths: Of its amount.
        hold_seconds: How long it waits for a payee, or for a chain that is stale, and how soon a
            payer hears of a failure.
        is_usable: Whether new HTLCs may be offered in a channel.
    """

    fee_base_msat: int
    fee_proportional_millionths: int
    hold_seconds: int
    is_usable: Callable[[Link], bool]


def forwarding_fee_msat(
    amount_msat: int, *, fee_base_msat: int, fee_proportional_millionths: int
) -> int:
    """Return the fee for forwarding an amount (BOLT 7)."""
    return fee_base_msat + amount_msat * fee_proportional_millionths // MILLION


def answer_as_lsp(turn: AnyTurn, link: Link, live: LiveHtlc, rules: ForwardingRules) -> None:
    """Forward an HTLC that is locked in, or give it back for what is its payer's own affair.

    Where it is the payee's, or our chain is stale, it waits: in time, that may change. Whatever
    comes of it, its payer hears of a failure when the hold is over, and not before.
    """
    key = (link.channel_id, live.htlc.htlc_id)
    is_new = key not in turn.book.held
    failure = _failure_before(turn, link, live, rules)
    if failure is not None and is_final(failure, turn.facts):
        if is_new:
            give_back(turn, link, key[1], failure.reason)
        return
    if is_new:
        turn.ask(fx.SetDeadline(deadline=hold_deadline(key), seconds=rules.hold_seconds))
    obstacle = _forward(turn, link, live, rules) if turn.facts.is_fresh else STALE
    if obstacle is not None and is_new:
        turn.remember(cr.HtlcHeld(channel_id=key[0], htlc_id=key[1], reason=obstacle))


def _failure_before(
    turn: AnyTurn,
    link: Link,
    live: LiveHtlc,
    rules: ForwardingRules,
) -> Failure | None:
    """Say what is wrong with an HTLC whoever its payee is."""
    htlc, delivery = live.htlc, delivery_of(live.payload)
    if delivery is None:
        return Failure.INVALID_ONION_PAYLOAD
    failure = acceptance_failure(link, htlc.cltv_expiry, chain=turn.chain, height=turn.known_height)
    if failure is not None:
        return failure
    if is_overexposed(turn.link(link.channel_id).state, htlc) or not rules.is_usable(link):
        return Failure.TEMPORARY_CHANNEL_FAILURE
    fee_msat = forwarding_fee_msat(
        delivery.amount_msat,
        fee_base_msat=rules.fee_base_msat,
        fee_proportional_millionths=rules.fee_proportional_millionths,
    )
    if htlc.amount_msat < delivery.amount_msat + fee_msat:
        return Failure.FEE_INSUFFICIENT
    return None


def _forward(turn: AnyTurn, link: Link, live: LiveHtlc, rules: ForwardingRules) -> str | None:
    """Let an HTLC go on to its payee, or say, for the operator alone, why it cannot."""
    htlc, delivery = live.htlc, decode_fields(m.Delivery, live.payload)
    outgoing = [
        other
        for other in turn.book.links_with(delivery.payee)
        if other.channel_id != link.channel_id and rules.is_usable(other)
    ]
    if not outgoing:
        return "the payee has no other channel here"
    obstacle = "the payee is away"
    # The newest first: an older factory is on its way out.
    for other in reversed([other for other in outgoing if other.is_open]):
        try:
            offer(
                turn,
                other,
                amount_msat=delivery.amount_msat,
                payment_hash=htlc.payment_hash,
                cltv_expiry=htlc.cltv_expiry - forward_delta_blocks(link, turn.chain),
                delivery=delivery,
                first=cr.HtlcForwarded(
                    channel_id=link.channel_id,
                    htlc_id=htlc.htlc_id,
                    out_channel_id=other.channel_id,
                    out_htlc_id=other.state.next_id(other.me),
                    fee_msat=htlc.amount_msat - delivery.amount_msat,
                ),
            )
        except UpdateRefused as refused:
            obstacle = f"the payee's channel cannot carry it: {refused}"
        else:
            return None
    return obstacle


def on_hold_deadline(turn: AnyTurn, deadline: fx.HoldDeadline) -> None:
    """Let the payer know from now on that its HTLC failed, if it did or does."""
    key = (deadline.channel_id, deadline.htlc_id)
    forward = turn.book.forwards.get(key)
    is_unsettled = forward is not None and forward.preimage is None
    if key not in turn.book.released and (key in turn.book.held or is_unsettled):
        turn.remember(cr.HoldEnded(channel_id=key[0], htlc_id=key[1]))


def hold_deadlines(book: Book, *, hold_seconds: int) -> tuple[fx.SetDeadline, ...]:
    """Return the deadlines of all HTLCs that are held or went on, after a restart."""
    waiting = {*book.held, *book.forwards} - {*book.released}
    return tuple(
        fx.SetDeadline(deadline=hold_deadline(key), seconds=hold_seconds) for key in sorted(waiting)
    )


def hold_deadline(key: HtlcKey) -> fx.HoldDeadline:
    """Return the deadline before which no payer hears of a failure."""
    return fx.HoldDeadline(channel_id=key[0], htlc_id=key[1])
