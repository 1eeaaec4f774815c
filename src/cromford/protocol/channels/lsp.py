"""The LSP's live channels: it forwards between its clients, and pays them itself."""

from collections.abc import Collection
from functools import partial

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import LiveHtlc
from cromford.protocol import events as ev
from cromford.protocol.channels import marks
from cromford.protocol.channels.close_rules import hang_up_if_it_goes_on
from cromford.protocol.channels.depth import NOT_DEEP, is_deep, why_not_deep
from cromford.protocol.channels.finish import finish
from cromford.protocol.channels.forwarding import (
    ForwardingRules,
    answer_as_lsp,
    end_late_holds,
    hold_deadlines,
    obstacle_to,
    on_hold_deadline,
    on_refused,
    take_forward,
    withdraw_untaken,
)
from cromford.protocol.channels.htlc_rules import is_alive, is_in_time
from cromford.protocol.channels.payments import refusal_text, start_payment, take_back_late
from cromford.protocol.channels.signer_answers import on_signer_answer
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import records as r
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import ForwardAsked, ForwardRefused, PayAsked
from cromford.protocol.turn import AnyTurn, Turn
from cromford.wire import messages as m


def finish_channels(
    turn: Turn[Factory], *, takes_up_held: bool = False, payees: Collection[bytes] = ()
) -> None:
    """Do all that follows from what was remembered of channels: answer, pass on, sign.

    Args:
        turn: The decision so far.
        takes_up_held: Whether all that waited for a fresh chain is decided again.
        payees: Those whose channels changed in other factories.
    """
    before = turn.state

    def answer(turn: AnyTurn, link: Link, live: LiveHtlc) -> None:
        answer_as_lsp(turn, link, live, _rules(before))

    finish(turn, answer, takes_up_held=takes_up_held, payees=payees)


def _rules(state: Factory) -> ForwardingRules:
    policy = state.config.policy
    return ForwardingRules(
        fee_base_msat=policy.fee_base_msat,
        fee_proportional_millionths=policy.fee_proportional_millionths,
        hold_seconds=policy.hold_seconds,
        is_usable=partial(is_usable, state),
        is_dying=partial(is_dying, state),
    )


def take(turn: Turn[Factory], event: ev.ChannelEvent) -> None:
    """Take an answer of our signer."""
    match event:
        case ev.PayRequested() | ev.InvoiceRequested():
            raise AssertionError(f"{type(event).__name__} is no factory's event")
        case _:
            on_signer_answer(turn, event)
            finish_channels(turn)


def on_channel_message(
    turn: Turn[Factory], node_id: bytes, message: m.ChannelMessage | m.MarkMessage
) -> None:
    """Take a message about a channel with this peer; one about any other is dropped.

    So is one about a channel that was closed together, whose client is told of the close instead,
    and one about a channel whose client gave us its keys: nothing is under way there, and it could
    only fail what a close needs.
    """
    link = turn.book.links.get(message.channel_id)
    if link is None or link.node_id != node_id:
        return
    if link.client not in turn.state.held_keys and not is_frozen(link.closes, turn.chain):
        marks.take_message(turn, link, message)
        finish_channels(turn)


def begin(turn: Turn[Factory], node_id: bytes) -> None:
    """Take up the channel with a client that found it ready too, in this connection."""
    attempt = turn.state.attempt
    client = attempt.client_of(node_id)
    if client is None or not turn.facts.directory.is_connected(node_id):
        return
    link = turn.book.links.get(attempt.setting(client).channel_id)
    if link is None or client in turn.state.held_keys:
        return
    if not is_frozen(link.closes, turn.chain):
        marks.begin(turn, link)


def on_block(turn: Turn[Factory]) -> None:
    """Do what a new height makes due in channels, and all that follows from it."""
    for link in turn.book.ordered_links:
        hang_up_if_it_goes_on(turn, link)
    take_back_late(turn)
    end_late_holds(turn)
    withdraw_untaken(turn)
    finish_channels(turn)


def on_disconnection(turn: Turn[Factory], node_id: bytes) -> None:
    """End a client's session: its connection takes our nonces with it."""
    links = [link for link in turn.book.links_with(node_id) if link.has_session]
    if links:
        turn.remember(r.PeerDisconnected(node_id=node_id))
    pools = tuple(pool_id for link in links for pool_id in link.pool_ids)
    if pools:
        turn.ask(fx.DropPools(pool_ids=pools))


def is_usable(state: Factory, link: Link) -> bool:
    """Say whether new HTLCs may be offered: funded deep enough, not left, not too late.

    Which other client of the factory leaves does not matter.
    """
    return _is_in_use(state, link) and is_deep(state.attempt, state.chain, link)


def _is_in_use(state: Factory, link: Link) -> bool:
    return (
        is_alive(link, state.chain)
        and link.client not in state.exits | state.held_keys
        and is_in_time(link, state.chain, height=state.chain.height)
    )


def is_dying(state: Factory, link: Link) -> bool:
    """Say whether a channel's dying period has begun, by its own path."""
    dying_height = link.exit_deadline_height - state.attempt.terms.dying_blocks
    return state.chain.height >= dying_height


def obstacle(turn: Turn[Factory], asked: ForwardAsked) -> str | None:
    """Return why an HTLC of another factory would be refused here now; None if it would not."""
    return obstacle_to(turn, asked, is_usable=partial(is_usable, turn.state))


def on_forward_asked(turn: Turn[Factory], sender: str, asked: ForwardAsked) -> None:
    """Take an HTLC of another factory, or refuse it."""
    take_forward(turn, sender, asked, is_usable=partial(is_usable, turn.state))
    finish_channels(turn)


def on_forward_refused(turn: Turn[Factory], sender: str, refused: ForwardRefused) -> None:
    """Ask elsewhere, or let the HTLC wait."""
    on_refused(turn, sender, refused)
    finish_channels(turn)


def on_hold_ended(turn: Turn[Factory], deadline: fx.HoldDeadline) -> None:
    """Give an HTLC back that could not go on in time."""
    on_hold_deadline(turn, deadline)
    withdraw_untaken(turn)
    finish_channels(turn)


def owed(state: Factory) -> tuple[fx.SetDeadline, ...]:
    """Return the deadlines that a restart has to set again."""
    return hold_deadlines(state.book, hold_seconds=state.config.policy.hold_seconds)


def on_pay_asked(turn: Turn[Factory], sender: str, asked: PayAsked) -> None:
    """Pay a client's invoice out of our side of its channel, or say why not."""
    why = turn.facts.why_no_risk
    refusal = pay_refusal(turn.state, asked.payee) if why is None else (why, why)
    if refusal is None:
        cltv_expiry = turn.known_height + asked.min_final_cltv_expiry_delta
        (link,) = turn.book.links_with(asked.payee)  # A client has one channel in a factory.
        try:
            start_payment(turn, link, asked, fee_msat=0, cltv_expiry=cltv_expiry, asker=sender)
        except UpdateRefused as error:
            refusal = "not_payable", refusal_text(error)
        else:
            finish_channels(turn)
            return
    declined = cr.PayDeclined(asker=sender, payment_hash=asked.payment_hash, reason=refusal[1])
    turn.remember(declined)


def pay_refusal(state: Factory, payee: bytes) -> tuple[str, str] | None:
    """Return a code and a reason why a client cannot be paid here now; None if it may be."""
    links = (link for link in state.book.links_with(payee) if _is_in_use(state, link))
    link = next(links, None)
    if link is None:
        return "payee_unknown", "the payee has no live channel with this LSP"
    if not is_deep(state.attempt, state.chain, link):
        return NOT_DEEP, why_not_deep(state.attempt, state.chain, link)
    return None if link.is_open else ("payee_offline", "the payee is not connected")
