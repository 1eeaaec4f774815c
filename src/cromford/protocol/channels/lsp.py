"""The LSP's live channels: it forwards between its clients, and pays them itself."""

from collections.abc import Callable
from functools import partial

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import LiveHtlc
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import finish
from cromford.protocol.channels.forwarding import (
    ForwardingRules,
    answer_as_lsp,
    on_hold_deadline,
)
from cromford.protocol.channels.payments import refusal_text, start_payment
from cromford.protocol.channels.signer_answers import SignerAnswer, on_signer_answer
from cromford.protocol.channels.steps import on_message, prepare
from cromford.protocol.channels.turn import Turn
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import NOTHING, Decision
from cromford.wire import messages as m


def decide_channels(
    state: LspState, act: Callable[[Turn], None], *, retries_held: bool = False
) -> Decision:
    """Return a decision about channels: what `act` does, and all that follows from it."""
    turn = Turn(state.book)
    act(turn)
    policy = state.config.policy
    rules = ForwardingRules(
        fee_base_msat=policy.fee_base_msat,
        fee_proportional_millionths=policy.fee_proportional_millionths,
        hold_seconds=policy.hold_seconds,
        height=state.chain.height,
        is_usable=partial(is_usable, state),
    )

    def answer(turn: Turn, link: Link, live: LiveHtlc) -> None:
        answer_as_lsp(turn, link, live, rules)

    finish(turn, answer, retries_held=retries_held)
    return turn.decision


def on_channel_message(state: LspState, node_id: bytes, message: m.ChannelMessage) -> Decision:
    """Take a message about a channel with this peer; one about any other is dropped."""
    link = state.book.links.get(message.channel_id)
    if link is None or link.node_id != node_id:
        return NOTHING
    came_back = isinstance(message, m.ChannelReestablish)
    return decide_channels(
        state, lambda turn: on_message(turn, link, message), retries_held=came_back
    )


def on_channel_signer(state: LspState, answer: SignerAnswer) -> Decision:
    """Take an answer of our signer."""
    came_back = isinstance(answer, ev.PointRecalled)
    return decide_channels(
        state, lambda turn: on_signer_answer(turn, answer), retries_held=came_back
    )


def begin(state: LspState, attempt: LspAttempt, node_id: bytes) -> Decision:
    """Take up the channel with a client that found it ready too, in this connection."""
    client = attempt.client_of(node_id)
    if client is None or node_id not in state.connected:
        return NOTHING
    link = state.book.links.get(attempt.setting(client).channel_id)
    if link is None:
        return NOTHING
    return decide_channels(state, lambda turn: prepare(turn, link))


def is_usable(state: LspState, link: Link) -> bool:
    """Say whether new HTLCs may be offered: funded deep enough, not leaving, not too late."""
    attempt = state.attempts[link.attempt_id]
    return (
        link.failure is None
        and state.chain.depth(attempt.funding_tx.txid) >= attempt.terms.min_depth
        and attempt.tree.vertices[0].kickoff.tx.txid not in state.chain.confirmed
        and state.chain.height < link.exit_deadline_height
    )


def on_hold_ended(state: LspState, deadline: fx.HoldDeadline) -> Decision:
    """Give an HTLC back whose payee stayed away."""
    return decide_channels(state, lambda turn: on_hold_deadline(turn, deadline))


def on_pay_requested(state: LspState, event: ev.PayRequested) -> Decision:
    """Pay a client's invoice out of our side of its channel.

    Raises:
        Rejected: If it cannot be paid now.
    """
    known = state.book.payments.get(event.payment_hash)
    if known is not None and known.status != "failed":
        return NOTHING
    links = [link for link in state.book.links_with(event.payee) if is_usable(state, link)]
    if not links:
        raise Rejected("payee_unknown", "the payee has no live channel with this LSP")
    links = [link for link in links if link.is_open]
    if not links:
        raise Rejected("payee_offline", "the payee is not connected", retryable=True)

    def act(turn: Turn) -> None:
        refused: UpdateRefused | None = None
        for link in reversed(links):
            try:
                start_payment(
                    turn,
                    link,
                    event,
                    fee_msat=0,
                    cltv_expiry=state.chain.height + event.min_final_cltv_expiry_delta,
                    height=state.chain.height,
                )
            except UpdateRefused as error:
                refused = refused or error
            else:
                return
        if refused is not None:
            raise Rejected("not_payable", refusal_text(refused), retryable=True)

    return decide_channels(state, act)
