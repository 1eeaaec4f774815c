"""The client's live channels: payments, invoices, and the LSP at the other end of each."""

from collections.abc import Iterator

from cromford import effects as fx
from cromford import told
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import LiveHtlc
from cromford.crypto.keys import sha256
from cromford.protocol import events as ev
from cromford.protocol.channels import marks
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.depth import is_deep, no_channel
from cromford.protocol.channels.finish import finish
from cromford.protocol.channels.forwarding import forwarding_fee_msat
from cromford.protocol.channels.htlc_rules import (
    forward_delta_blocks,
    is_alive,
    is_in_time,
)
from cromford.protocol.channels.payments import (
    answer_as_payee,
    check_not_forgotten,
    refusal_text,
    start_payment,
)
from cromford.protocol.channels.signer_answers import on_signer_answer
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import OwnInvoice
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn, Turn
from cromford.wire import messages as m


def finish_channels(turn: Turn[ClientState], *, takes_up_held: bool = False) -> None:
    """Do all that follows from what was remembered of channels: answer, then sign."""
    state = turn.state

    def answer(_: AnyTurn, link: Link, live: LiveHtlc) -> None:
        may_take = is_usable(state, link) and not is_detour(state, link, live)
        answer_as_payee(turn, link, live, is_usable=may_take)

    finish(turn, answer, takes_up_held=takes_up_held)


def is_detour(state: ClientState, link: Link, live: LiveHtlc) -> bool:
    """Say whether an HTLC that we pay ourselves with comes elsewhere than where it was to go.

    Offered back to us in the channel that it left, or in another that dies, it would move nothing.
    """
    payment = state.book.payments.get(live.htlc.payment_hash)
    if payment is None:
        return False
    is_dying = state.chain.height >= state.attempts[link.attempt_id].lifetime.dying_height
    return is_dying or payment.htlc[0] == link.channel_id


def take(turn: Turn[ClientState], event: ev.ChannelEvent) -> None:
    """Take an answer of our signer, or the operator's wish to be paid or to pay.

    Raises:
        Rejected: If there is no channel for it now.
    """
    match event:
        case ev.InvoiceRequested():
            on_invoice_requested(turn, event)
        case ev.PayRequested():
            on_pay_requested(turn, event)
        case _:
            on_signer_answer(turn, event)
            finish_channels(turn)


def on_channel_message(turn: Turn[ClientState], message: m.ChannelMessage | m.MarkMessage) -> None:
    """Take a message about a channel with the LSP that sends it; one about any other is dropped.

    So is one about a channel that was closed together: nothing can be said about it any more.
    """
    link = turn.book.links.get(message.channel_id)
    if link is None or link.node_id != turn.state.lsp_node_id:
        return
    if is_frozen(link.closes, turn.chain):
        return
    marks.take_message(turn, link, message)
    finish_channels(turn)


def begin(turn: Turn[ClientState], attempt: ClientAttempt) -> None:
    """Take up a channel that both sides found ready, in this connection."""
    link = turn.book.links.get(attempt.setting.channel_id)
    is_here = turn.state.is_connected and attempt.lsp_node_id == turn.state.lsp_node_id
    if link is None or attempt.keys_taken or is_frozen(link.closes, turn.chain):
        return
    if is_here and attempt.is_ready_on_both_sides:
        marks.begin(turn, link)


def is_usable(state: ClientState, link: Link) -> bool:
    """Say whether new HTLCs may be offered, and taken: funded, not left, not too late.

    Who else leaves the factory does not matter: it publishes nothing that this channel loses by.
    """
    attempt = state.attempts[link.attempt_id]
    return _is_in_use(state, link) and is_deep(attempt, state.chain, link)


def usable_links(state: ClientState) -> list[Link]:
    """Return the channels through which payments may begin with the LSP of now.

    One with another LSP lives on, and carries none: whoever pays asks the LSP of now for the way.
    """
    return [link for link in _links_here(state) if is_usable(state, link)]


def _links_here(state: ClientState) -> Iterator[Link]:
    lsp_node_id = state.config.lsp_node_id
    return (link for link in state.book.ordered_links if link.node_id == lsp_node_id)


def _is_in_use(state: ClientState, link: Link) -> bool:
    attempt = state.attempts[link.attempt_id]
    return (
        is_alive(link, state.chain)
        and not (attempt.is_exiting or attempt.is_retired)
        and is_in_time(link, state.chain, height=state.chain.height)
    )


def why_unusable(state: ClientState, *, purpose: str) -> Rejected:
    """Return why no channel with our LSP can be used now.

    Args:
        state: The client.
        purpose: `pay` or `receive`.
    """
    shallow = (
        (state.attempts[link.attempt_id], link)
        for link in _links_here(state)
        if _is_in_use(state, link) and not is_usable(state, link)
    )
    return no_channel(shallow, state.chain, purpose=purpose)


def on_invoice_requested(turn: Turn[ClientState], event: ev.InvoiceRequested) -> None:
    """Remember an invoice, so that its preimage is never lost.

    Raises:
        Rejected: If there is no channel to be paid through, or another invoice has its id.
    """
    if event.external_id in turn.book.external_ids:
        raise Rejected(
            "external_id_taken",
            f"external_id: expected one of no other invoice, received {event.external_id!r}",
        )
    if not usable_links(turn.state):
        raise why_unusable(turn.state, purpose="receive")
    payment_hash = sha256(event.preimage)
    turn.remember(
        cr.InvoiceIssued(
            payment_hash=payment_hash,
            preimage=event.preimage,
            payment_secret=event.payment_secret,
            amount_msat=event.amount_msat,
            description=event.description,
            expires_at=event.expires_at,
            text=event.text,
            expiry_seconds=event.expiry_seconds,
            hold_seconds=event.hold_seconds,
            label=event.label,
            external_id=event.external_id,
        )
    )
    deadline = fx.InvoiceDeadline(payment_hash=payment_hash)
    # What was paid in time may have waited for us.
    seconds = event.expiry_seconds + event.hold_seconds
    turn.ask(fx.SetDeadline(deadline=deadline, seconds=seconds))
    if turn.state.is_connected:
        _announce(turn, turn.book.invoices[payment_hash])


def announce_again(turn: Turn[ClientState]) -> None:
    """Tell the LSP once more of the payments that it did not say it would hold.

    One that had no room for more announcements may have some now.
    """
    for _, invoice in sorted(turn.book.invoices.items()):
        _announce(turn, invoice)


def _announce(turn: Turn[ClientState], invoice: OwnInvoice) -> None:
    if invoice.status == "open" and invoice.hold_seconds and not invoice.agreed_seconds:
        announcement = m.AnnounceHash(
            payment_hash=invoice.payment_hash,
            hold_seconds=invoice.hold_seconds,
            expiry_seconds=invoice.expiry_seconds,
        )
        turn.send(turn.state.config.lsp_node_id, announcement)


def on_hash_announced(turn: Turn[ClientState], message: m.HashAnnounced) -> None:
    """Remember for how long the LSP holds a payment; what was not asked means nothing."""
    invoice = turn.book.invoices.get(message.payment_hash)
    if invoice is None or not invoice.hold_seconds or invoice.agreed_seconds:
        return
    hold_seconds = min(message.hold_seconds, invoice.hold_seconds)
    if hold_seconds != invoice.agreed_seconds:
        turn.remember(cr.HoldAgreed(payment_hash=message.payment_hash, hold_seconds=hold_seconds))


def invoice_deadlines(
    state: ClientState, unix_time: int, *, is_fresh: bool
) -> tuple[fx.SetDeadline, ...]:
    """Return the deadlines of open invoices, by the clock: after a restart, and once it is proven.

    An invoice that expires is over for good, whatever the clock says later; and one that is far
    ahead looks like a chain that stands still. So while the chain is stale, those stay open whose
    time is over. Nothing is taken for them meanwhile.

    Args:
        state: The client.
        unix_time: What the clock says, in seconds.
        is_fresh: Whether the chain is fresh, and its blocks of the clock's time.
    """
    left_seconds = {
        payment_hash: invoice.expires_at + invoice.hold_seconds - unix_time
        for payment_hash, invoice in sorted(state.book.invoices.items())
        if invoice.status == "open" and not invoice.is_own_move
    }
    return tuple(
        fx.SetDeadline(
            deadline=fx.InvoiceDeadline(payment_hash=payment_hash), seconds=max(0, seconds)
        )
        for payment_hash, seconds in left_seconds.items()
        if is_fresh or seconds > 0
    )


def on_invoice_deadline(turn: Turn[ClientState], payment_hash: bytes) -> None:
    """Let an invoice expire."""
    invoice = turn.book.invoices.get(payment_hash)
    if invoice is not None and invoice.status == "open":
        turn.remember(cr.InvoiceExpired(payment_hash=payment_hash))
        # An HTLC that waits for a fresh chain goes back: nobody pays it any more.
        finish_channels(turn)


def on_pay_requested(turn: Turn[ClientState], event: ev.PayRequested) -> None:
    """Pay an invoice through the LSP. One that is paid, or on its way, is not paid again.

    Raises:
        Rejected: If it cannot be paid now: no fresh chain, no connection, fee, balance, or a limit;
            if it is our own; or if it may have been paid in what a restored store lost.
    """
    state = turn.state
    if event.payee == state.config.node_id:
        raise Rejected(
            "own_invoice",
            f"payee: expected another node, received this client's own {event.payee.hex()}: "
            "nobody would be paid",
        )
    known = state.book.payments.get(event.payment_hash)
    if known is not None and known.status != "failed":
        return
    check_not_forgotten(state.restored, event)
    turn.check_risk()
    lobby = state.lobby
    if lobby is None:
        raise Rejected("lsp_unreachable", "not connected to the LSP", retryable=True)
    fee_msat = 0
    if event.payee != state.config.lsp_node_id:
        fee_msat = forwarding_fee_msat(
            event.amount_msat,
            fee_base_msat=lobby.fee_base_msat,
            fee_proportional_millionths=lobby.fee_proportional_millionths,
        )
    _check_fee(state, event, fee_msat)
    refused: UpdateRefused | None = None
    for link in _payers(state, event):
        delta_blocks = event.min_final_cltv_expiry_delta + forward_delta_blocks(link, turn.chain)
        try:
            start_payment(
                turn, link, event, fee_msat=fee_msat, cltv_expiry=turn.known_height + delta_blocks
            )
        except UpdateRefused as error:
            refused = refused or error
        else:
            finish_channels(turn)
            return
    if refused is None:
        raise why_unusable(state, purpose="pay")
    raise Rejected("not_payable", refusal_text(refused), retryable=True)


def _payers(state: ClientState, event: ev.PayRequested) -> list[Link]:
    """Return the channels to try, those with the most to spend first."""
    links = [link for link in usable_links(state) if link.is_open]
    if event.attempt_id is not None:
        links = [link for link in links if link.attempt_id == event.attempt_id]
    return sorted(links, key=lambda link: -balance_of(link).spendable_msat)


def _check_fee(state: ClientState, event: ev.PayRequested, fee_msat: int) -> None:
    policy = state.config.policy
    allowed_msat = event.fee_max_msat
    if allowed_msat is None:
        allowed_msat = forwarding_fee_msat(
            event.amount_msat,
            fee_base_msat=policy.fee_base_msat_max,
            fee_proportional_millionths=policy.fee_proportional_millionths_max,
        )
    if fee_msat > allowed_msat:
        raise Rejected(
            "fee_too_high",
            f"fee_max_msat: expected at most {told.msat(allowed_msat)}, "
            f"the LSP asks {told.msat(fee_msat)}",
        )
