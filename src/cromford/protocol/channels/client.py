"""The client's live channels: payments, invoices, and the LSP at the other end of each."""

from collections.abc import Callable

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import LiveHtlc
from cromford.crypto.keys import sha256
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.finish import finish
from cromford.protocol.channels.forwarding import forwarding_fee_msat
from cromford.protocol.channels.htlc_rules import forward_delta_blocks
from cromford.protocol.channels.payments import (
    answer_as_payee,
    refusal_text,
    start_payment,
)
from cromford.protocol.channels.signer_answers import SignerAnswer, on_signer_answer
from cromford.protocol.channels.steps import on_message, prepare
from cromford.protocol.channels.turn import Turn
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import NOTHING, Decision
from cromford.wire import messages as m


def decide_channels(
    state: ClientState, act: Callable[[Turn], None], *, retries_held: bool = False
) -> Decision:
    """Return a decision about channels: what `act` does, and all that follows from it."""
    turn = Turn(state.book)
    act(turn)

    def answer(turn: Turn, link: Link, live: LiveHtlc) -> None:
        height, usable = state.chain.height, is_usable(state, link)
        answer_as_payee(turn, link, live, height=height, is_usable=usable)

    finish(turn, answer, retries_held=retries_held)
    return turn.decision


def on_channel_message(state: ClientState, message: m.ChannelMessage) -> Decision:
    """Take a message about one of our channels; one about any other is dropped."""
    link = state.book.links.get(message.channel_id)
    if link is None:
        return NOTHING
    return decide_channels(state, lambda turn: on_message(turn, link, message))


def on_channel_signer(state: ClientState, answer: SignerAnswer) -> Decision:
    """Take an answer of our signer."""
    return decide_channels(state, lambda turn: on_signer_answer(turn, answer))


def begin(state: ClientState, attempt: ClientAttempt) -> Decision:
    """Take up a channel that both sides found ready, in this connection."""
    link = state.book.links.get(attempt.setting.channel_id)
    if link is None or not state.is_connected or not attempt.ready_received:
        return NOTHING
    return decide_channels(state, lambda turn: prepare(turn, link))


def is_usable(state: ClientState, link: Link) -> bool:
    """Say whether new HTLCs may be offered, and taken: funded, not leaving, not too late."""
    attempt = state.attempts[link.attempt_id]
    depth = state.chain.depth(attempt.funding_tx.txid)
    return (
        link.failure is None
        and not attempt.is_exiting
        and depth >= attempt.terms.min_depth
        and attempt.branch.root_kickoff.tx.txid not in state.chain.confirmed
        and state.chain.height < link.exit_deadline_height
    )


def on_invoice_requested(state: ClientState, event: ev.InvoiceRequested) -> Decision:
    """Remember an invoice, so that its preimage is never lost.

    Raises:
        Rejected: If there is no channel to be paid through.
    """
    if not any(is_usable(state, link) for link in state.book.links.values()):
        raise Rejected("no_channel", "no channel is ready to receive through")
    payment_hash = sha256(event.preimage)

    def act(turn: Turn) -> None:
        turn.remember(
            cr.InvoiceIssued(
                payment_hash=payment_hash,
                preimage=event.preimage,
                payment_secret=event.payment_secret,
                amount_msat=event.amount_msat,
                description=event.description,
                expires_at=event.expires_at,
                text=event.text,
            )
        )
        turn.wish(
            fx.SetDeadline(
                deadline=fx.InvoiceDeadline(payment_hash=payment_hash),
                seconds=event.expiry_seconds,
            )
        )

    return decide_channels(state, act)


def invoice_deadlines(state: ClientState, unix_time: int) -> tuple[fx.SetDeadline, ...]:
    """Return the deadlines of open invoices, after a restart."""
    return tuple(
        fx.SetDeadline(
            deadline=fx.InvoiceDeadline(payment_hash=invoice.payment_hash),
            seconds=max(0, invoice.expires_at - unix_time),
        )
        for _, invoice in sorted(state.book.invoices.items())
        if invoice.status == "open"
    )


def on_invoice_deadline(state: ClientState, payment_hash: bytes) -> Decision:
    """Let an invoice expire."""
    invoice = state.book.invoices.get(payment_hash)
    if invoice is None or invoice.status != "open":
        return NOTHING
    return Decision(records=(cr.InvoiceExpired(payment_hash=payment_hash),))


def on_pay_requested(state: ClientState, event: ev.PayRequested) -> Decision:
    """Pay an invoice through the LSP. One that is paid, or on its way, is not paid again.

    Raises:
        Rejected: If it cannot be paid now: no connection, fee, balance, or a limit.
    """
    known = state.book.payments.get(event.payment_hash)
    if known is not None and known.status != "failed":
        return NOTHING
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
    cltv_expiry = state.chain.height + event.min_final_cltv_expiry_delta

    def act(turn: Turn) -> None:
        refused: UpdateRefused | None = None
        for link in _payers(state, event):
            try:
                start_payment(
                    turn,
                    link,
                    event,
                    fee_msat=fee_msat,
                    cltv_expiry=cltv_expiry + forward_delta_blocks(link),
                    height=state.chain.height,
                )
            except UpdateRefused as error:
                refused = refused or error
            else:
                return
        if refused is None:
            raise Rejected("no_channel", "no channel is ready to pay through", retryable=True)
        raise Rejected("not_payable", refusal_text(refused), retryable=True)

    return decide_channels(state, act)


def _payers(state: ClientState, event: ev.PayRequested) -> list[Link]:
    """Return the channels to try, those with the most to spend first.

    Whoever moves to a new factory pays itself: then the oldest goes first, on its way out.
    """
    links = [link for link in state.book.ordered_links if link.is_open and is_usable(state, link)]
    if event.attempt_id is not None:
        links = [link for link in links if link.attempt_id == event.attempt_id]
    if event.payee == state.config.node_id:
        return sorted(links, key=lambda link: link.exit_deadline_height)
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
            f"fee_max_msat: expected at most {allowed_msat}, the LSP asks {fee_msat}",
        )
