"""The client's table: which event goes to which room.

It joins a lobby, checks a proposal against everything it can compute itself, signs its exit
first and the root last, and from then on can leave alone. It trusts nobody.
"""

from collections.abc import Sequence
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol import publishing, spending
from cromford.protocol.advancing import buying, recovering
from cromford.protocol.advancing import client as advancing
from cromford.protocol.channels import client as channels
from cromford.protocol.channels.close_rules import hang_up_if_it_goes_on
from cromford.protocol.channels.payments import take_back_late
from cromford.protocol.channels.resuming import on_nonce_deadline
from cromford.protocol.channels.signing import on_revocation_deadline
from cromford.protocol.closing import client as closing
from cromford.protocol.closing.confirming import owed_by_client
from cromford.protocol.dying import client as dying
from cromford.protocol.exiting import client as exiting
from cromford.protocol.exiting.channel import ANY_FEES
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.handover import client as handover
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_state import ClientState, apply, new_client
from cromford.protocol.journal.known_chain import relevant_txs
from cromford.protocol.lobby import client as lobby
from cromford.protocol.opening import client as opening
from cromford.protocol.restored import BEGIN_ANEW, skip_keys, watch_further
from cromford.protocol.turn import Decision, Turn
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

__all__ = ["apply", "decide", "new_client", "relevant", "resume"]


def relevant(state: ClientState, txs: Sequence[Tx]) -> tuple[Tx, ...]:
    """Return the transactions of a block that matter to this client."""
    return relevant_txs(
        txs,
        wallet=state.wallet,
        watched=state.watched_txids,
        watched_outpoints=exiting.watched(state) | opening.watched(state),
    )


def decide(state: ClientState, event: ev.Event, facts: Facts = FRESH) -> Decision[ClientState]:
    """Return what to remember and do about one event.

    Raises:
        Rejected: If the operator asked for something impossible; nothing is changed.
    """
    turn = Turn(state, apply, facts)
    _take(turn, event)
    if turn.state.advances:
        advancing.go_on(turn)
        channels.finish_channels(turn)
    quiet_ended = (cl.CloseSigned, cl.CloseEnded, ar.AdvanceDropped)
    if any(turn.first(kind) is not None for kind in quiet_ended):
        channels.finish_channels(turn)  # What came while we were quiet waits for its answer.
    if turn.state.purchases:
        buying.settle(turn, state.advances)
    return turn.decision


def _take(turn: Turn[ClientState], event: ev.Event) -> None:
    if isinstance(event, ev.MessageReceived):  # Most events are one: it need not be asked further.
        _take_from_world(turn, event)
    elif isinstance(event, ev.ChannelEvent):
        channels.take(turn, event)
    elif isinstance(event, ev.OpeningEvent):
        _take_opening(turn, event)
    elif isinstance(event, ev.CloseEvent):
        closing.take(turn, event)
    elif isinstance(event, ev.AdvanceEvent):
        advancing.take(turn, event)
        channels.finish_channels(turn)
    elif isinstance(event, ev.MarketEvent):
        buying.take(turn, event)
    elif isinstance(event, ev.ExitEvent):
        exiting.take(turn, event)
    elif isinstance(event, ev.LobbyEvent):
        dying.take_lobby(turn, event)
    elif isinstance(event, ev.MoveEvent):
        dying.take(turn, event)
    elif isinstance(event, ev.SpendingEvent):
        spending.take(turn, event)
    elif isinstance(event, ev.KeysOffered):
        reason = "KeyHandover is a client's message"
        turn.ask(
            fx.DropOffered(offered=event.offered),
            fx.Disconnect(node_id=event.node_id, reason=reason),
        )
    elif isinstance(event, ev.JointSweepEvent | ev.HandoverEvent):
        raise AssertionError(f"{type(event).__name__} is an LSP's event")
    else:
        _take_from_world(turn, event)


def _take_opening(turn: Turn[ClientState], event: ev.OpeningEvent) -> None:
    """Take what belongs to a ceremony; our signer answers alike in a close."""
    if isinstance(event, ev.PartialSigned) and event.asked.close_id:
        closing.on_partial_signed(turn, event)
    elif isinstance(event, ev.SigningFailed) and event.asked.close_id:
        closing.on_signing_failed(turn, event)
    elif isinstance(event, ev.PartialSigned) and event.asked.advance_id:
        advancing.on_partial_signed(turn, event)
    elif isinstance(event, ev.SigningFailed) and event.asked.advance_id:
        advancing.on_signing_failed(turn, event)
    else:
        opening.take(turn, event)


def _take_from_world(turn: Turn[ClientState], event: ev.WorldEvent) -> None:
    match event:
        case ev.MessageReceived(message=message):
            _take_message(turn, message)
            dying.go_on(turn)
        case ev.DaemonStarted(unix_time=unix_time, drawn=drawn):
            skip_keys(turn, drawn)
            buying.void_connection(turn)
            advancing.void_connection(turn)
            closing.void_connection(turn)
            opening.void_connection(turn, r.Started())
            recovering.on_start(turn)
            turn.ask(
                *resume(turn.state, turn.facts.fees),
                *channels.invoice_deadlines(turn.state, unix_time, is_fresh=turn.facts.is_fresh),
            )
        case ev.StoreProven():
            _on_proven(turn)
        case ev.ConnectionOpened(node_id=node_id):
            _on_connection(turn, node_id)
        case ev.ConnectionClosed(node_id=node_id):
            buying.void_connection(turn)
            advancing.void_connection(turn)
            closing.void_connection(turn)
            opening.void_connection(turn, r.PeerDisconnected(node_id=node_id))
        case ev.MessageMalformed(node_id=node_id, reason=reason):
            turn.ask(fx.Disconnect(node_id=node_id, reason=reason))
        case ev.BlockAdded():
            _on_block(turn, event)
        case ev.BlockRemoved(height=height):
            turn.remember(r.BlockDisconnected(height=height))
        case ev.RescanRequested():
            watch_further(turn)
        case ev.FactsChanged():
            _on_facts_changed(turn)
        case ev.MailArrived():
            raise AssertionError("MailArrived is an LSP's event")
        case ev.DeadlineReached(deadline=deadline):
            _on_deadline(turn, deadline)
        case ev.BroadcastRefused():
            publishing.on_refused(turn, event)
        case _:
            assert_never(event)


def _take_message(turn: Turn[ClientState], message: m.Message) -> None:
    if isinstance(message, m.ChannelMessage):
        channels.on_channel_message(turn, message)
    elif isinstance(message, m.OpeningMessage):
        opening.take_message(turn, message)
        if isinstance(message, m.ChannelReady):
            handover.on_ready_again(turn, message)
    elif isinstance(message, m.HoldMessage):
        _take_hold_message(turn, message)
    elif isinstance(message, m.CloseMessage):
        closing.take_message(turn, message)
    elif isinstance(message, m.AdvanceMessage):
        advancing.take_message(turn, message)
        channels.finish_channels(turn)
    elif isinstance(message, m.LeafStates):
        recovering.on_told(turn, message)
        turn.ask(*exiting.lend(turn))
    elif isinstance(message, m.QuoteMessage):
        buying.take_message(turn, message)
    elif isinstance(message, m.MarkMessage):
        channels.on_channel_message(turn, message)
    elif isinstance(message, m.KeyTaken):
        handover.on_key_taken(turn, message)
    elif isinstance(message, m.KeyHandover):
        lobby.part(turn, message)
    else:
        lobby.take_message(turn, message)


def _take_hold_message(turn: Turn[ClientState], message: m.HoldMessage) -> None:
    if isinstance(message, m.HashAnnounced):
        channels.on_hash_announced(turn, message)
    else:
        lsp_node_id = turn.state.config.lsp_node_id
        turn.ask(fx.Disconnect(node_id=lsp_node_id, reason="AnnounceHash is a client's message"))


def apply_in(state: ClientState, _stream: str, record: r.AnyRecord, at: int = 0) -> ClientState:
    """Return the state after remembering one thing in the one stream that a client has."""
    return apply(state, record, at)


def resume(state: ClientState, fees: OwnFees = ANY_FEES) -> tuple[fx.Effect, ...]:
    """Return what is still owed, whatever was done before: exits' next steps, closes, payments."""
    exits = (
        effect
        for attempt in state.attempts.values()
        for effect in exiting.exit_effects(state, attempt, fees)
    )
    closes = owed_by_client(state, fees)
    return (*exits, *closes, *spending.owed_spendings(state.wallet))


def _on_deadline(turn: Turn[ClientState], deadline: fx.Deadline) -> None:
    match deadline:
        case fx.AttemptDeadline(attempt_id=attempt_id):
            opening.on_deadline(turn, attempt_id)
        case fx.InvoiceDeadline(payment_hash=payment_hash):
            channels.on_invoice_deadline(turn, payment_hash)
        case fx.NonceDeadline():
            on_nonce_deadline(turn, deadline)
        case fx.RevocationDeadline():
            on_revocation_deadline(turn, deadline)
        case fx.CloseDeadline():
            closing.on_deadline(turn, deadline)
        case fx.AdvanceDeadline():
            advancing.on_deadline(turn, deadline)
        case fx.LeafDeadline():
            recovering.on_deadline(turn, deadline)
            turn.ask(*exiting.lend(turn))
        case fx.RejoinDeadline() | fx.HoldDeadline():
            raise AssertionError(f"{type(deadline).__name__} is an LSP's deadline")
        case _:
            assert_never(deadline)


def _on_proven(turn: Turn[ClientState]) -> None:
    """Go on as before the restore, with a connection in which nothing was said of it."""
    if not turn.state.restored.is_unproven:
        return
    turn.remember(r.MarkLifted())
    turn.ask(*resume(turn.state, turn.facts.fees))
    if turn.state.is_connected:
        turn.ask(fx.Disconnect(node_id=turn.state.lsp_node_id, reason=BEGIN_ANEW))


def _on_connection(turn: Turn[ClientState], node_id: bytes) -> None:
    if node_id != turn.state.config.lsp_node_id:
        reason = "not the LSP this client was started for"
        turn.ask(fx.Disconnect(node_id=node_id, reason=reason))
        return
    turn.remember(r.PeerConnected(node_id=node_id))
    for attempt in turn.state.attempts.values():
        if attempt.lsp_node_id == node_id:
            for message in opening.after_reconnect(attempt):
                turn.send(node_id, message)
    handover.on_connection(turn)
    channels.announce_again(turn)


def _on_block(turn: Turn[ClientState], event: ev.BlockAdded) -> None:
    wallet = turn.state.wallet
    turn.remember(
        r.BlockConnected(
            height=event.height,
            block_hash=event.block_hash,
            txs=tuple(tx.serialize() for tx in event.txs),
        )
    )
    spending.tell_overtaken(turn, wallet, event.txs)
    exiting.learn_from_block(turn)
    turn.ask(
        *exiting.lend(turn),
        *owed_by_client(turn.state, turn.facts.fees),
        *spending.owed_spendings(turn.state.wallet),
    )
    opening.on_block(turn)
    exiting.on_block(turn)
    closing.on_block(turn)
    advancing.on_block(turn)
    buying.on_block(turn)
    for link in turn.book.ordered_links:
        hang_up_if_it_goes_on(turn, link)
    take_back_late(turn)
    handover.on_block(turn)
    dying.on_block(turn)
    dying.go_on(turn)
    lobby.prepare_join(turn)


def _on_facts_changed(turn: Turn[ClientState]) -> None:
    """Go on with what waited for a fresh chain; or leave in time though no block comes."""
    if turn.facts.is_fresh:
        unix_time = turn.facts.unix_time
        if unix_time:
            turn.ask(*channels.invoice_deadlines(turn.state, unix_time, is_fresh=True))
        channels.finish_channels(turn, takes_up_held=True)
        dying.go_on(turn)
        lobby.prepare_join(turn)
    else:
        turn.ask(*resume(turn.state, turn.facts.fees))
        exiting.on_headers(turn)
        channels.finish_channels(turn)
