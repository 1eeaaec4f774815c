"""The LSP's table: which event goes to which room.

It gathers clients, proposes a tree, collects signatures below the root, then the root, then
acknowledgements; then, and only then, it signs and broadcasts the funding transaction. Whoever
spoils a ceremony is named and dropped, and the others start again with fresh keys.
"""

from collections.abc import Sequence
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol import publishing, spending
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.payments import take_back_late
from cromford.protocol.channels.steps import on_nonce_deadline, on_revocation_deadline
from cromford.protocol.exiting import lsp as exiting
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.known_chain import relevant_txs
from cromford.protocol.journal.lsp_state import Build, LspState, apply, new_lsp
from cromford.protocol.lobby import lsp as lobby
from cromford.protocol.opening import lsp as opening
from cromford.protocol.opening.abandoning import check_is_no_replacement
from cromford.protocol.opening.funding import fund_if_due
from cromford.protocol.turn import Decision, Turn
from cromford.wire import messages as m

__all__ = ["apply", "decide", "new_lsp", "relevant", "resume"]


def relevant(state: LspState, txs: Sequence[Tx]) -> tuple[Tx, ...]:
    """Return the transactions of a block that matter to this LSP."""
    return relevant_txs(
        txs,
        wallet=state.wallet,
        watched=state.watched_txids,
        watched_outpoints=exiting.watched(state),
    )


def decide(state: LspState, event: ev.Event, facts: Facts = FRESH) -> Decision[LspState]:
    """Return what to remember and do about one event.

    Raises:
        Rejected: If the operator asked for something impossible; nothing is changed.
    """
    turn = Turn(state, apply, facts)
    _take(turn, event)
    _finish(turn, state.build)
    return turn.decision


def _take(turn: Turn[LspState], event: ev.Event) -> None:
    if isinstance(event, ev.ChannelEvent):
        channels.take(turn, event)
    elif isinstance(event, ev.OpeningEvent):
        opening.take(turn, event)
    elif isinstance(event, ev.ExitEvent):
        exiting.take(turn, event)
    elif isinstance(event, ev.LobbyEvent):
        lobby.take(turn, event)
    elif isinstance(event, ev.SpendingEvent):
        if isinstance(event, ev.AbandonRequested):
            check_is_no_replacement(turn.state, event.txid)
        spending.take(turn, event)
    else:
        _take_from_world(turn, event)


def _take_from_world(turn: Turn[LspState], event: ev.WorldEvent) -> None:
    match event:
        case ev.DaemonStarted():
            _on_start(turn)
        case ev.ConnectionOpened(node_id=node_id):
            lobby.on_connection(turn, node_id)
            opening.tell_ready_again(turn, node_id)
        case ev.ConnectionClosed(node_id=node_id):
            _on_disconnection(turn, node_id)
        case ev.MessageReceived(node_id=node_id, message=message):
            _take_message(turn, node_id, message)
        case ev.MessageMalformed(node_id=node_id, reason=reason):
            opening.on_malformed(turn, node_id, reason)
        case ev.BlockAdded():
            _on_block(turn, event)
        case ev.BlockRemoved(height=height):
            turn.remember(r.BlockDisconnected(height=height))
        case ev.FactsChanged():
            _on_facts_changed(turn)
        case ev.DeadlineReached(deadline=deadline):
            _on_deadline(turn, deadline)
        case ev.BroadcastRefused():
            publishing.on_refused(turn, event)
        case _:
            assert_never(event)


def _take_message(turn: Turn[LspState], node_id: bytes, message: m.Message) -> None:
    if isinstance(message, m.ChannelMessage):
        channels.on_channel_message(turn, node_id, message)
    elif isinstance(message, m.OpeningMessage):
        opening.take_message(turn, node_id, message)
    elif isinstance(message, m.Join | m.Leave):
        lobby.take_message(turn, node_id, message)
    else:
        reason = f"{type(message).__name__} is an LSP's message"
        opening.on_malformed(turn, node_id, reason)


def _finish(turn: Turn[LspState], build: Build | None) -> None:
    """Do once what follows from a decision, whatever made it: who stays of an attempt rejoins."""
    aborted = turn.first(op.AttemptAborted)
    if aborted is not None and build is not None and turn.state.build is build:
        lobby.await_rejoin(turn, build, without=aborted.culprits)


def resume(state: LspState) -> tuple[fx.Effect, ...]:
    """Return what is still owed, whatever was done before."""
    return (
        *spending.owed_spendings(state.wallet),
        *exiting.owed(state),
        *opening.owed(state),
        *channels.owed(state),
    )


def _on_deadline(turn: Turn[LspState], deadline: fx.Deadline) -> None:
    match deadline:
        case fx.RejoinDeadline():
            lobby.rebuild(turn)
        case fx.HoldDeadline():
            channels.on_hold_ended(turn, deadline)
        case fx.RevocationDeadline():
            on_revocation_deadline(turn, deadline)
        case fx.AttemptDeadline(attempt_id=attempt_id):
            opening.on_deadline(turn, attempt_id)
        case fx.NonceDeadline():
            on_nonce_deadline(turn, deadline)
        case fx.InvoiceDeadline():
            raise AssertionError("an invoice's deadline is a client's")
        case _:
            assert_never(deadline)


def _on_start(turn: Turn[LspState]) -> None:
    """End what a restart voids: nonces are gone, so unsigned ceremonies are over."""
    turn.remember(r.Started())
    opening.on_start(turn)
    turn.ask(*resume(turn.state))
    fund_if_due(turn)


def _on_disconnection(turn: Turn[LspState], node_id: bytes) -> None:
    """A connection takes its pools with it; what needs them is over."""
    if node_id not in turn.state.connected:
        return
    pools = tuple(link.pool_id for link in turn.book.links_with(node_id) if link.pool_id)
    turn.remember(r.PeerDisconnected(node_id=node_id))
    if pools:
        turn.ask(fx.DropPools(pool_ids=pools))
    opening.on_disconnection(turn, node_id)


def _on_block(turn: Turn[LspState], event: ev.BlockAdded) -> None:
    turn.remember(
        r.BlockConnected(
            height=event.height,
            block_hash=event.block_hash,
            txs=tuple(tx.serialize() for tx in event.txs),
        )
    )
    turn.ask(*spending.owed_spendings(turn.state.wallet), *exiting.owed(turn.state))
    opening.on_block(turn)
    exiting.on_block(turn)
    take_back_late(turn)
    # What the chain decided about an outgoing HTLC answers the incoming one.
    channels.finish_channels(turn)
    lobby.build_if_due(turn, at_height=event.height)


def _on_facts_changed(turn: Turn[LspState]) -> None:
    """Go on with what waited for a fresh chain; or leave in time though no block comes."""
    if turn.facts.is_fresh:
        channels.finish_channels(turn, takes_up_held=True)
        fund_if_due(turn)
        lobby.build_if_due(turn, at_height=None)
    else:
        turn.ask(*spending.owed_spendings(turn.state.wallet), *exiting.owed(turn.state))
        exiting.on_headers(turn)
        channels.finish_channels(turn)
