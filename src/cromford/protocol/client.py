"""The client: what it does about each thing that happens.

It joins a lobby, checks a proposal against everything it can compute itself, signs its exit
first and the root last, and from then on can leave alone. It trusts nobody.
"""

from collections.abc import Sequence
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.channel.content import CommitmentContent
from cromford.protocol import events as ev
from cromford.protocol.channels import client as channels
from cromford.protocol.channels.signer_answers import SignerAnswer
from cromford.protocol.exiting import breach
from cromford.protocol.exiting import client as leaving
from cromford.protocol.journal import records as r
from cromford.protocol.journal.chain_view import relevant_txs
from cromford.protocol.journal.client_attempt import (
    ClientAttempt,
    Complete,
    RootSent,
    pool_ids_of,
)
from cromford.protocol.journal.client_state import ClientState, apply, folded, new_client
from cromford.protocol.lobby.client import (
    on_join_answered,
    on_join_prepared,
    on_join_requested,
    on_leave_requested,
    on_lobby,
    prepare_join,
)
from cromford.protocol.opening.client import (
    abort,
    on_coins,
    on_deadline,
    on_partial_signed,
    on_propose,
    on_signatures,
)
from cromford.protocol.spending import on_payment_requested, on_payment_signed, owed_payments
from cromford.protocol.turn import NOTHING, Decision
from cromford.wallet.account import RECEIVE
from cromford.wire import messages as m

__all__ = ["apply", "content_at", "decide", "new_client", "relevant", "resume"]


def relevant(state: ClientState, txs: Sequence[Tx]) -> tuple[Tx, ...]:
    """Return the transactions of a block that matter to this client."""
    return relevant_txs(
        txs,
        wallet=state.wallet,
        watched=state.watched_txids,
        watched_outpoints=leaving.watched(state),
    )


def decide(state: ClientState, event: ev.Event) -> Decision:
    """Return what to remember and do about one event.

    Raises:
        Rejected: If the operator asked for something impossible; nothing is changed.
    """
    if isinstance(event, SignerAnswer):
        return channels.on_channel_signer(state, event)
    match event:
        case ev.DaemonStarted(unix_time=unix_time):
            return _on_start(state, unix_time)
        case ev.ConnectionOpened(node_id=node_id):
            return _on_connection(state, node_id)
        case ev.ConnectionClosed(node_id=node_id):
            return _on_disconnection(state, r.PeerDisconnected(node_id=node_id))
        case ev.MessageReceived(message=message):
            return _on_message(state, message)
        case ev.MessageMalformed(node_id=node_id, reason=reason):
            return Decision(effects=(fx.Disconnect(node_id=node_id, reason=reason),))
        case ev.BlockAdded():
            return _on_block(state, event)
        case ev.BlockRemoved(height=height):
            return Decision(records=(r.BlockDisconnected(height=height),))
        case ev.DeadlineReached(deadline=deadline):
            return _on_deadline(state, deadline)
        case ev.JoinPrepared():
            return on_join_prepared(state, event)
        case ev.CoinsLookedUp(asked=asked, coins=coins):
            return on_coins(state, asked.attempt_id, dict(coins))
        case ev.PartialSigned(asked=asked, partial_sigs=partial_sigs):
            return on_partial_signed(state, asked.attempt_id, tuple(sig for _, sig in partial_sigs))
        case ev.SigningFailed(asked=asked, reason=reason):
            return abort(state, asked.attempt_id, reason)
        case ev.JoinRequested():
            return on_join_requested(state, event)
        case ev.LeaveRequested():
            return on_leave_requested(state)
        case ev.ExitRequested(attempt_id=attempt_id):
            return leaving.on_exit_requested(state, attempt_id)
        case ev.AddressRequested():
            return Decision(records=(r.AddressIssued(change=RECEIVE),))
        case ev.PaymentRequested():
            height = state.chain.height
            return on_payment_requested(state.wallet, event, tip_height=height)
        case ev.PaymentSigned():
            return on_payment_signed(event)
        case ev.BroadcastRefused():
            return NOTHING
        case ev.CommitmentRecalled():
            return leaving.on_commitment_recalled(state, event)
        case ev.SpendSigned(asked=asked, tx=tx):
            return Decision(effects=(fx.Broadcast(name=asked.spend.name, tx=tx),))
        case ev.InvoiceRequested():
            return channels.on_invoice_requested(state, event)
        case ev.PayRequested():
            return channels.on_pay_requested(state, event)
        case ev.AttemptPrepared() | ev.FundingSigned() | ev.BuildRequested():
            raise AssertionError(f"{type(event).__name__} is an LSP's event")
        case _:
            assert_never(event)


def content_at(state: ClientState, channel_id: bytes, number: int) -> CommitmentContent | None:
    """Return what the peer's commitment of this number says, if it is the latest in this state."""
    return breach.content_at(state.book, channel_id, number)


def resume(state: ClientState) -> tuple[fx.Effect, ...]:
    """Return what is still owed, whatever was done before: each exit's next step, payments."""
    exits = (
        effect
        for attempt in state.attempts.values()
        for effect in leaving.exit_effects(state, attempt)
    )
    return (*exits, *owed_payments(state.wallet))


def _on_start(state: ClientState, unix_time: int) -> Decision:
    decision = _on_disconnection(state, r.Started())
    deadlines = channels.invoice_deadlines(state, unix_time)
    return decision + Decision(effects=(*resume(state), *deadlines))


def _on_connection(state: ClientState, node_id: bytes) -> Decision:
    if node_id != state.config.lsp_node_id:
        reason = "not the LSP this client was started for"
        return Decision(effects=(fx.Disconnect(node_id=node_id, reason=reason),))
    messages = [
        message for attempt in state.attempts.values() for message in _after_reconnect(attempt)
    ]
    return Decision(
        records=(r.PeerConnected(node_id=node_id),),
        effects=tuple(fx.Send(node_id=node_id, message=message) for message in messages),
    )


def _on_deadline(state: ClientState, deadline: fx.Deadline) -> Decision:
    match deadline:
        case fx.AttemptDeadline(attempt_id=attempt_id):
            return on_deadline(state, attempt_id)
        case fx.InvoiceDeadline(payment_hash=payment_hash):
            return channels.on_invoice_deadline(state, payment_hash)
        case fx.RejoinDeadline() | fx.HoldDeadline():
            raise AssertionError(f"{type(deadline).__name__} is an LSP's deadline")
        case _:
            assert_never(deadline)


def _after_reconnect(attempt: ClientAttempt) -> tuple[m.Message, ...]:
    ids = {"attempt_id": attempt.attempt_id, "terms_hash": attempt.propose.terms_hash}
    if isinstance(attempt.stage, RootSent) and attempt.aborted is None:
        return (m.Resume(**ids),)
    if not isinstance(attempt.stage, Complete):
        return ()
    if attempt.ready_sent:
        return (_channel_ready(attempt),)
    return (m.Acknowledge(**ids),) if attempt.aborted is None else ()


def _on_disconnection(state: ClientState, record: r.AnyRecord) -> Decision:
    """Void what hung on the connection: pools on both sides, and attempts that need them."""
    aborted = tuple(
        r.AttemptAborted(attempt_id=attempt.attempt_id, reason="connection lost", culprits=())
        for attempt in state.attempts.values()
        if attempt.aborted is None and not isinstance(attempt.stage, RootSent | Complete)
    )
    pools = [
        pool_id
        for attempt in state.attempts.values()
        if attempt.aborted is None
        for pool_id in pool_ids_of(attempt.join)
    ]
    if state.joining is not None:
        pools.extend(pool_ids_of(state.joining.join))
    pools += [link.pool_id for link in state.book.links.values() if link.pool_id is not None]
    return Decision(
        records=(record, *aborted),
        effects=(
            fx.DropPools(pool_ids=tuple(pools)),
            *(
                fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=record.attempt_id))
                for record in aborted
            ),
        ),
    )


def _on_message(state: ClientState, message: m.Message) -> Decision:
    if isinstance(message, m.ChannelMessage):
        return channels.on_channel_message(state, message)
    match message:
        case m.Lobby():
            return on_lobby(state, message)
        case m.Joined(factory_pubkey=pubkey):
            return on_join_answered(state, pubkey, None)
        case m.Refused(factory_pubkey=pubkey, reason=reason):
            return on_join_answered(state, pubkey, reason)
        case m.Propose():
            return on_propose(state, message)
        case m.SignedBelow():
            return on_signatures(state, message)
        case m.SignedRoot():
            return on_signatures(state, message)
        case m.Abort():
            return _on_abort(state, message)
        case m.ChannelReady():
            return _on_channel_ready(state, message)
        case m.Join() | m.Leave() | m.SignBelow() | m.SignRoot() | m.Acknowledge() | m.Resume():
            reason = f"{type(message).__name__} is a client's message"
            return Decision(
                effects=(fx.Disconnect(node_id=state.config.lsp_node_id, reason=reason),)
            )
        case _:
            assert_never(message)


def _on_abort(state: ClientState, message: m.Abort) -> Decision:
    attempt = state.attempts.get(message.attempt_id)
    # Once we said that it is ready, the LSP cannot talk us out of a factory.
    if attempt is None or attempt.aborted is not None or attempt.ready_sent:
        return NOTHING
    ended = Decision(
        records=(
            r.AttemptAborted(
                attempt_id=message.attempt_id, reason=f"the LSP: {message.reason}", culprits=()
            ),
        ),
        effects=(
            fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=message.attempt_id)),
            fx.DropPools(pool_ids=pool_ids_of(attempt.join)),
        ),
    )
    after = folded(state, ended.records)
    return ended + prepare_join(after, after.lobby)


def _on_channel_ready(state: ClientState, message: m.ChannelReady) -> Decision:
    attempt = state.attempts.get(message.attempt_id)
    if (
        attempt is None
        or not isinstance(attempt.stage, Complete)
        or message != _channel_ready(attempt)
    ):
        return NOTHING
    node_id = state.config.lsp_node_id
    records: tuple[r.AnyRecord, ...] = ()
    if not attempt.ready_received:
        records = (r.ReadyReceived(attempt_id=message.attempt_id, node_id=node_id),)
    after = folded(state, records)
    return Decision(records=records) + channels.begin(after, after.attempts[message.attempt_id])


def _channel_ready(attempt: ClientAttempt) -> m.ChannelReady:
    return m.ChannelReady(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.propose.terms_hash,
        funding_txid=attempt.funding_tx.txid,
    )


def _on_block(state: ClientState, event: ev.BlockAdded) -> Decision:
    record = r.BlockConnected(
        height=event.height,
        block_hash=event.block_hash,
        txs=tuple(tx.serialize() for tx in event.txs),
    )
    after = apply(state, record)
    decision = Decision(records=(record,), effects=resume(after))
    for attempt in after.attempts.values():
        if is_ready(after, attempt) and not attempt.ready_sent:
            ready = fx.Send(node_id=after.config.lsp_node_id, message=_channel_ready(attempt))
            sent = r.ReadySent(attempt_id=attempt.attempt_id)
            decision += Decision(records=(sent,), effects=(ready,))
            told = apply(after, sent)
            decision += channels.begin(told, told.attempts[attempt.attempt_id])
        elif attempt.is_open and is_hopeless(after, attempt):
            given_up = r.WaitGivenUp(attempt_id=attempt.attempt_id)
            decision += Decision(records=(given_up,))
    decision += leaving.on_block(folded(state, decision.records))
    final = folded(state, decision.records)
    return decision + prepare_join(final, final.lobby)


def is_hopeless(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether the funding did not confirm in the agreed patience, or too late to be used."""
    if not isinstance(attempt.stage, Complete | RootSent):
        return False
    height = state.chain.confirmed.get(attempt.funding_tx.txid)
    if height is None:
        return state.chain.height >= attempt.terms.build_height + attempt.terms.patience_blocks
    return height > attempt.terms.ready_height_max(attempt.branch.n_layers)


def is_ready(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether the agreed funding is deep enough, in time, and we can leave alone.

    The txid covers outputs and amounts, so the confirmed output is the one that was checked.
    """
    if not isinstance(attempt.stage, Complete):
        return False
    height = state.chain.confirmed.get(attempt.funding_tx.txid)
    return (
        height is not None
        and state.chain.height - height + 1 >= attempt.terms.min_depth
        and height <= attempt.terms.ready_height_max(attempt.branch.n_layers)
    )
