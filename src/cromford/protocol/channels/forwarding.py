"""The LSP between two clients: an HTLC goes on, waits for its payee, or is given back.

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
from cromford.protocol.journal.book import HtlcKey
from cromford.protocol.journal.encoding import delivery_of
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingRules:
    """What an LSP asks for a forward, and where it stands now.

    Attributes:
        fee_base_msat: For each HTLC (BOLT 7).
        fee_proportional_millionths: Of its amount.
        hold_seconds: How long it waits for a payee that is away, or for a chain that is stale.
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
    """Forward an HTLC that is locked in, or give it back.

    It is held for a payee that is away, and while the chain is stale.
    """
    htlc = live.htlc
    key = (link.channel_id, htlc.htlc_id)
    delivery = delivery_of(live.payload)
    failure = _failure_before(turn, link, live, delivery, rules)
    if delivery is None or is_final(failure, turn.facts):
        code = failure or Failure.INVALID_ONION_PAYLOAD
        _give_back(turn, link, key, code)
        return
    outgoing = [
        other
        for other in turn.book.links_with(delivery.payee)
        if other.channel_id != link.channel_id and rules.is_usable(other)
    ]
    if not outgoing:
        _give_back(turn, link, key, Failure.UNKNOWN_NEXT_PEER)
        return
    connected = [other for other in outgoing if other.is_open]
    if not connected or not turn.facts.is_fresh:
        _hold(turn, key, rules)
        return
    _forward(turn, link, live, candidates=connected)


def _hold(turn: AnyTurn, key: HtlcKey, rules: ForwardingRules) -> None:
    """Wait for a payee, or for a fresh chain: from now on, or from its payer's return.

    Nobody else prolongs the wait.
    """
    is_new = key not in turn.book.held
    if is_new:
        turn.remember(cr.HtlcHeld(channel_id=key[0], htlc_id=key[1]))
    if is_new or key[0] in turn.touched:
        turn.wish(fx.SetDeadline(deadline=hold_deadline(key), seconds=rules.hold_seconds))


def _failure_before(
    turn: AnyTurn,
    link: Link,
    live: LiveHtlc,
    delivery: m.Delivery | None,
    rules: ForwardingRules,
) -> Failure | None:
    htlc = live.htlc
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


def _forward(turn: AnyTurn, link: Link, live: LiveHtlc, *, candidates: list[Link]) -> None:
    htlc, delivery = live.htlc, decode_fields(m.Delivery, live.payload)
    key = (link.channel_id, htlc.htlc_id)
    failure = Failure.TEMPORARY_CHANNEL_FAILURE
    # The newest first: an older factory is on its way out.
    for outgoing in reversed(candidates):
        try:
            offer(
                turn,
                outgoing,
                amount_msat=delivery.amount_msat,
                payment_hash=htlc.payment_hash,
                cltv_expiry=htlc.cltv_expiry - forward_delta_blocks(link, turn.chain),
                delivery=delivery,
                first=cr.HtlcForwarded(
                    channel_id=link.channel_id,
                    htlc_id=htlc.htlc_id,
                    out_channel_id=outgoing.channel_id,
                    out_htlc_id=outgoing.state.next_id(outgoing.me),
                    fee_msat=htlc.amount_msat - delivery.amount_msat,
                ),
            )
        except UpdateRefused as refused:
            if refused.field == "cltv_expiry":
                failure = Failure.INCORRECT_CLTV_EXPIRY
        else:
            turn.wish(fx.ClearDeadline(deadline=hold_deadline(key)))
            return
    _give_back(turn, link, key, failure)


def _give_back(turn: AnyTurn, link: Link, key: HtlcKey, failure: Failure) -> None:
    if key in turn.book.held:
        turn.wish(fx.ClearDeadline(deadline=hold_deadline(key)))
    give_back(turn, link, key[1], failure.reason)


def on_hold_deadline(turn: AnyTurn, deadline: fx.HoldDeadline) -> None:
    """Stop waiting for a payee that stayed away, or for a chain that stayed stale."""
    key = (deadline.channel_id, deadline.htlc_id)
    if key not in turn.book.held:
        return
    link = turn.link(key[0])
    # Where the payer is away too, its HTLC waits until it is back, and then so long again.
    if link.is_open and link.incoming(key[1]) is not None:
        give_back(turn, link, key[1], Failure.TEMPORARY_CHANNEL_FAILURE.reason)


def hold_deadline(key: HtlcKey) -> fx.HoldDeadline:
    """Return the deadline of an HTLC that waits for its payee, or for a fresh chain."""
    return fx.HoldDeadline(channel_id=key[0], htlc_id=key[1])
