"""The LSP's live channels: it forwards between its clients, and pays them itself."""

from functools import partial

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import LiveHtlc
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import finish
from cromford.protocol.channels.forwarding import (
    ForwardingRules,
    answer_as_lsp,
    hold_deadlines,
    on_hold_deadline,
)
from cromford.protocol.channels.htlc_rules import is_alive, is_in_time
from cromford.protocol.channels.payments import refusal_text, start_payment
from cromford.protocol.channels.signer_answers import on_signer_answer
from cromford.protocol.channels.steps import on_message, prepare
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import AnyTurn, Turn
from cromford.wire import messages as m


def finish_channels(turn: Turn[LspState], *, takes_up_held: bool = False) -> None:
    """Do all that follows from what was remembered of channels: answer, pass on, sign."""
    policy = turn.state.config.policy
    rules = ForwardingRules(
        fee_base_msat=policy.fee_base_msat,
        fee_proportional_millionths=policy.fee_proportional_millionths,
        hold_seconds=policy.hold_seconds,
        is_usable=partial(is_usable, turn.state),
    )

    def answer(turn: AnyTurn, link: Link, live: LiveHtlc) -> None:
        answer_as_lsp(turn, link, live, rules)

    finish(turn, answer, takes_up_held=takes_up_held)


def take(turn: Turn[LspState], event: ev.ChannelEvent) -> None:
    """Take an answer of our signer, or the operator's wish to pay.

    Raises:
        Rejected: If the invoice cannot be paid now.
    """
    match event:
        case ev.PayRequested():
            on_pay_requested(turn, event)
        case ev.InvoiceRequested():
            raise AssertionError("InvoiceRequested is a client's event")
        case _:
            on_signer_answer(turn, event)
            finish_channels(turn)


def on_channel_message(turn: Turn[LspState], node_id: bytes, message: m.ChannelMessage) -> None:
    """Take a message about a channel with this peer; one about any other is dropped."""
    link = turn.book.links.get(message.channel_id)
    if link is not None and link.node_id == node_id:
        on_message(turn, link, message)
        finish_channels(turn)


def begin(turn: Turn[LspState], attempt: LspAttempt, node_id: bytes) -> None:
    """Take up the channel with a client that found it ready too, in this connection."""
    client = attempt.client_of(node_id)
    if client is None or node_id not in turn.state.connected:
        return
    link = turn.book.links.get(attempt.setting(client).channel_id)
    if link is not None:
        prepare(turn, link)
        finish_channels(turn)


def is_usable(state: LspState, link: Link) -> bool:
    """Say whether new HTLCs may be offered: funded deep enough, not leaving, not too late.

    Which other client of the factory leaves does not matter.
    """
    attempt = state.attempts[link.attempt_id]
    return (
        is_alive(link, state.chain)
        and (link.attempt_id, link.client) not in state.exits
        and state.chain.depth(attempt.funding_tx.txid) >= attempt.terms.min_depth
        and is_in_time(link, state.chain, height=state.chain.height)
    )


def on_hold_ended(turn: Turn[LspState], deadline: fx.HoldDeadline) -> None:
    """Give an HTLC back that could not go on in time."""
    on_hold_deadline(turn, deadline)
    finish_channels(turn)


def owed(state: LspState) -> tuple[fx.SetDeadline, ...]:
    """Return the deadlines that a restart has to set again."""
    return hold_deadlines(state.book, hold_seconds=state.config.policy.hold_seconds)


def on_pay_requested(turn: Turn[LspState], event: ev.PayRequested) -> None:
    """Pay a client's invoice out of our side of its channel.

    Raises:
        Rejected: If it cannot be paid now.
    """
    known = turn.book.payments.get(event.payment_hash)
    if known is not None and known.status != "failed":
        return
    turn.check_fresh()
    links = [link for link in turn.book.links_with(event.payee) if is_usable(turn.state, link)]
    if not links:
        raise Rejected("payee_unknown", "the payee has no live channel with this LSP")
    links = [link for link in links if link.is_open]
    if not links:
        raise Rejected("payee_offline", "the payee is not connected", retryable=True)
    cltv_expiry = turn.known_height + event.min_final_cltv_expiry_delta
    refused: UpdateRefused | None = None
    for link in reversed(links):
        try:
            start_payment(turn, link, event, fee_msat=0, cltv_expiry=cltv_expiry)
        except UpdateRefused as error:
            refused = refused or error
        else:
            finish_channels(turn)
            return
    if refused is not None:
        raise Rejected("not_payable", refusal_text(refused), retryable=True)
