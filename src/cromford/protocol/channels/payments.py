"""Paying and being paid: our own HTLCs and those that are for us."""

from typing import Final

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.channel.limits import is_overexposed
from cromford.channel.messages import UpdateAdd, UpdateFail, UpdateFulfill
from cromford.channel.stage import LiveHtlc
from cromford.channel.updates import propose_add
from cromford.protocol import events as ev
from cromford.protocol.channels.close_rules import check_closes, is_beyond_close
from cromford.protocol.channels.coins import check_coin, lacks_coin
from cromford.protocol.channels.coverage import check_offer_is_covered, why_beyond
from cromford.protocol.channels.htlc_rules import acceptance_failure, check_offer, is_final
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import OwnInvoice
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.encoding import delivery_of, journalled, message_of
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import PayAsked
from cromford.protocol.journal.mark import Restored
from cromford.protocol.turn import AnyTurn, Turn
from cromford.wire import messages as m
from cromford.wire.fields import encode_fields

OVERPAYMENT_FACTOR: Final = 2  # BOLT 4: a payee accepts at most twice what it asked for.


def offer(turn: AnyTurn, link: Link, update: UpdateAdd, *, first: cr.PaymentRecord) -> None:
    """Offer an HTLC that was prepared, and remember before it what it is for."""
    turn.remember(first)
    message = message_of(link.channel_id, update)
    turn.remember(cr.UpdateProposed(channel_id=link.channel_id, message=journalled(message)))


def prepare_offer(
    turn: AnyTurn,
    link: Link,
    *,
    amount_msat: int,
    payment_hash: bytes,
    cltv_expiry: int,
    delivery: m.Delivery,
) -> UpdateAdd:
    """Return the update that offers an HTLC; nothing is remembered.

    Raises:
        UpdateRefused: If the channel cannot carry it now.
    """
    check_offer(link, cltv_expiry, chain=turn.chain, height=turn.known_height)
    check_coin(turn, link, amount_msat=amount_msat)
    check_closes(link, turn.chain, amount_msat=amount_msat)
    after, update = propose_add(
        link.state,
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        cltv_expiry=cltv_expiry,
        payload=encode_fields(delivery),
    )
    check_offer_is_covered(turn, changed(link, state=after), amount_msat=amount_msat)
    return update


def take_back_late(turn: AnyTurn) -> None:
    """Take back HTLCs that never left, once their expiry is nearer than the peer accepts.

    One that we offer leaves when the peer has revoked its commitment before, which may be days
    later, in another connection. Signed then, it could be claimed when it is too late to claim the
    HTLC that it pays for. At each block, because only blocks make it late.
    """
    for link in turn.book.ordered_links:
        late = next((one for one in link.unsent if _is_late(turn, link, one)), None)
        if late is not None:
            turn.remember(cr.AddsTakenBack(channel_id=link.channel_id, htlc_id=late.htlc.htlc_id))


def _is_late(turn: AnyTurn, link: Link, live: LiveHtlc) -> bool:
    if not link.takes_updates:
        return False  # It never leaves, and whoever lost state cannot say what it signed.
    try:
        check_offer(link, live.htlc.cltv_expiry, chain=turn.chain, height=turn.known_height)
    except UpdateRefused:
        return True
    return False


def take(turn: AnyTurn, link: Link, htlc_id: int, preimage: bytes) -> None:
    """Take an HTLC of the peer by its preimage."""
    message = message_of(link.channel_id, UpdateFulfill(htlc_id=htlc_id, preimage=preimage))
    turn.remember(cr.UpdateProposed(channel_id=link.channel_id, message=journalled(message)))


def give_back(turn: AnyTurn, link: Link, htlc_id: int, reason: bytes) -> None:
    """Give an HTLC of the peer back."""
    message = message_of(link.channel_id, UpdateFail(htlc_id=htlc_id, reason=reason))
    turn.remember(cr.UpdateProposed(channel_id=link.channel_id, message=journalled(message)))


def start_payment(
    turn: AnyTurn,
    link: Link,
    request: ev.PayRequested | PayAsked,
    *,
    fee_msat: int,
    cltv_expiry: int,
    asker: str = "",
) -> None:
    """Pay an invoice through a channel.

    Raises:
        UpdateRefused: If the channel cannot carry it now.
    """
    update = prepare_offer(
        turn,
        link,
        amount_msat=request.amount_msat + fee_msat,
        payment_hash=request.payment_hash,
        cltv_expiry=cltv_expiry,
        delivery=m.Delivery(
            payee=request.payee,
            payment_secret=request.payment_secret,
            amount_msat=request.amount_msat,
        ),
    )
    started = cr.PaymentStarted(
        payment_hash=request.payment_hash,
        payee=request.payee,
        amount_msat=request.amount_msat,
        fee_msat=fee_msat,
        description=request.description,
        channel_id=link.channel_id,
        htlc_id=update.htlc_id,
        text=request.text,
        asker=asker,
        label="" if isinstance(request, PayAsked) else request.label,
    )
    offer(turn, link, update, first=started)


def answer_as_payee(
    turn: Turn[ClientState], link: Link, live: LiveHtlc, *, is_usable: bool
) -> None:
    """Take an HTLC that pays an open invoice of ours, or give it back with a reason.

    While the chain is stale it waits: it may have expired in a block that we have not read, and
    its preimage would be given away.

    Args:
        turn: The decision so far.
        link: The channel that it came in.
        live: The HTLC, locked in.
        is_usable: Whether new HTLCs may be in this channel. Where the funding left the chain it may
            be spent elsewhere, and a preimage shown for an HTLC in it would be given away.
    """
    htlc = live.htlc
    invoice = turn.book.invoices.get(htlc.payment_hash)
    may_skim_msat = turn.state.skims.get(htlc.payment_hash, 0)
    if invoice is None or not _pays(htlc, live.payload, invoice, may_skim_msat):
        # BOLT 4: the same answer to all of these, so that nobody can probe for invoices.
        give_back(turn, link, htlc.htlc_id, Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS.reason)
        return
    failure = acceptance_failure(link, htlc.cltv_expiry, chain=turn.chain, height=turn.known_height)
    is_refused = is_overexposed(link.state, htlc) or lacks_coin(turn, link, htlc) or not is_usable
    is_refused = is_refused or is_beyond_close(link, turn.chain)
    beyond = why_beyond(turn, link)
    if failure is None and (is_refused or beyond is not None):
        failure = Failure.TEMPORARY_CHANNEL_FAILURE
    if not turn.facts.may_risk and not is_final(failure, turn.facts):
        return
    if failure is not None:
        if beyond is not None and failure is Failure.TEMPORARY_CHANNEL_FAILURE:
            refused = cr.HtlcRefused(
                channel_id=link.channel_id, htlc_id=htlc.htlc_id, reason=beyond
            )
            turn.remember(refused)
        give_back(turn, link, htlc.htlc_id, failure.reason)
        return
    turn.remember(
        cr.InvoicePaid(
            payment_hash=htlc.payment_hash,
            channel_id=link.channel_id,
            htlc_id=htlc.htlc_id,
            amount_msat=htlc.amount_msat,
        )
    )
    turn.ask(fx.ClearDeadline(deadline=fx.InvoiceDeadline(payment_hash=htlc.payment_hash)))
    take(turn, link, htlc.htlc_id, invoice.preimage)


def _pays(htlc: Htlc, payload: bytes, invoice: OwnInvoice, may_skim_msat: int) -> bool:
    """Say whether an HTLC pays an invoice. The amount is the invoice's, never the payer's word.

    What the LSP kept of it counts, as far as we agreed to that for this very payment.
    """
    delivery = delivery_of(payload)
    if delivery is None or delivery.payment_secret != invoice.payment_secret:
        return False
    skimmed_msat = sum(one.price_msat for one in delivery.skimmed)
    least_msat = invoice.amount_msat - skimmed_msat
    return (
        invoice.status == "open"
        and skimmed_msat <= may_skim_msat
        and least_msat <= htlc.amount_msat <= OVERPAYMENT_FACTOR * invoice.amount_msat
    )


def check_not_forgotten(restored: Restored, request: ev.PayRequested) -> None:
    """Check that a store which was put back cannot have paid an invoice in what it lost.

    Whoever was on the way of that payment knows the preimage, and takes what is offered for it now.

    Raises:
        Rejected: If it may have.
    """
    if restored.may_have_paid(request.created_at):
        raise Rejected(
            "may_be_paid",
            f"invoice: expected one made since this store was put back from a backup, at "
            f"{restored.since} (unix time), received one of {request.created_at}: it may have been "
            "paid in what was lost",
        )


def refusal_text(refused: UpdateRefused) -> str:
    """Return why a channel cannot carry an HTLC, as an operator reads it."""
    return f"the channel cannot carry it now: {refused}"
