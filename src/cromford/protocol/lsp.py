"""The LSP: what it does about each thing that happens.

It gathers clients, proposes a tree, collects signatures below the root, then the root, then
acknowledgements; then, and only then, it signs and broadcasts the funding transaction. Whoever
spoils a ceremony is named and dropped, and the others start again with fresh keys.
"""

from collections.abc import Sequence
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.channel.content import CommitmentContent
from cromford.factory.shape import plan_of
from cromford.protocol import events as ev
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.signer_answers import SignerAnswer
from cromford.protocol.exiting import breach
from cromford.protocol.exiting import lsp as leaving
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import records as r
from cromford.protocol.journal.chain_view import relevant_txs
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import LspState, apply, folded, new_lsp
from cromford.protocol.lobby.build import (
    BuildPlan,
    greeting,
    is_move_proven,
    plan_build,
    refusal_of,
)
from cromford.protocol.lobby.schedule import is_build_due
from cromford.protocol.opening.lsp import (
    abort,
    fund,
    funding_broadcast,
    is_fundable,
    on_acknowledge,
    on_attempt_prepared,
    on_deadline,
    on_partial_signed,
    on_sign_below,
    on_sign_root,
)
from cromford.protocol.spending import on_payment_requested, on_payment_signed, owed_payments
from cromford.protocol.turn import NOTHING, Decision
from cromford.wallet.account import RECEIVE
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

__all__ = ["apply", "content_at", "decide", "new_lsp", "relevant", "resume"]

RECONNECT_DEADLINES = 3  # How many deadlines an LSP that restarted gives its clients.


def relevant(state: LspState, txs: Sequence[Tx]) -> tuple[Tx, ...]:
    """Return the transactions of a block that matter to this LSP."""
    return relevant_txs(
        txs,
        wallet=state.wallet,
        watched=state.watched_txids,
        watched_outpoints=leaving.watched(state),
    )


def decide(state: LspState, event: ev.Event) -> Decision:
    """Return what to remember and do about one event.

    Raises:
        Rejected: If the operator asked for something impossible; nothing is changed.
    """
    if isinstance(event, SignerAnswer):
        return channels.on_channel_signer(state, event)
    match event:
        case ev.DaemonStarted():
            return _on_start(state)
        case ev.ConnectionOpened(node_id=node_id):
            return _on_connection(state, node_id)
        case ev.ConnectionClosed(node_id=node_id):
            return _on_disconnection(state, node_id)
        case ev.MessageReceived(node_id=node_id, message=message):
            return _on_message(state, node_id, message)
        case ev.MessageMalformed(node_id=node_id, reason=reason):
            return _on_malformed(state, node_id, reason)
        case ev.BlockAdded():
            return _on_block(state, event)
        case ev.BlockRemoved(height=height):
            return Decision(records=(r.BlockDisconnected(height=height),))
        case ev.DeadlineReached(deadline=deadline):
            return _on_deadline(state, deadline)
        case ev.AttemptPrepared():
            return _rebuilding(state, on_attempt_prepared(state, event))
        case ev.PartialSigned(asked=asked, partial_sigs=partial_sigs):
            decision = on_partial_signed(state, asked.attempt_id, dict(partial_sigs))
            return _rebuilding(state, decision)
        case ev.SigningFailed(asked=asked, reason=reason):
            return _on_signing_failed(state, asked.attempt_id, reason)
        case ev.FundingSigned(asked=asked, tx=tx):
            return _on_funding_signed(state, asked.attempt_id, tx)
        case ev.BuildRequested():
            return _on_build_requested(state, event)
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
        case ev.ExitRequested(attempt_id=attempt_id, client=client):
            return leaving.on_exit_requested(state, attempt_id, client)
        case ev.PayRequested():
            return channels.on_pay_requested(state, event)
        case (
            ev.JoinPrepared()
            | ev.CoinsLookedUp()
            | ev.JoinRequested()
            | ev.LeaveRequested()
            | ev.InvoiceRequested()
        ):
            raise AssertionError(f"{type(event).__name__} is a client's event")
        case _:
            assert_never(event)


def content_at(state: LspState, channel_id: bytes, number: int) -> CommitmentContent | None:
    """Return what the peer's commitment of this number says, if it is the latest in this state."""
    return breach.content_at(state.book, channel_id, number)


def resume(state: LspState) -> tuple[fx.Effect, ...]:
    """Return what is still owed, whatever was done before."""
    owed: list[fx.Effect] = [*owed_payments(state.wallet), *leaving.owed(state)]
    for attempt in state.attempts.values():
        if attempt.aborted is not None:
            continue
        if attempt.signed_funding_tx is not None:
            if state.chain.depth(attempt.funding_tx.txid) == 0:
                owed.append(funding_broadcast(attempt.signed_funding_tx))
        elif attempt.root_signature is not None:
            # Clients come back with a growing pause, which is not theirs to answer for.
            seconds = RECONNECT_DEADLINES * state.config.policy.deadline_seconds
            owed.append(
                fx.SetDeadline(
                    deadline=fx.AttemptDeadline(attempt_id=attempt.attempt_id), seconds=seconds
                )
            )
            if not attempt.holdouts and is_fundable(state, attempt):
                owed.append(fund(state, attempt))
    return tuple(owed)


def _on_funding_signed(state: LspState, attempt_id: bytes, tx: Tx) -> Decision:
    if not state.attempts[attempt_id].is_open:
        return NOTHING
    record = r.FundingWasSigned(attempt_id=attempt_id, tx=tx.serialize())
    return Decision(records=(record,), effects=(funding_broadcast(tx),))


def _on_deadline(state: LspState, deadline: fx.Deadline) -> Decision:
    match deadline:
        case fx.RejoinDeadline():
            return _rebuild(state)
        case fx.HoldDeadline():
            return channels.on_hold_ended(state, deadline)
        case fx.AttemptDeadline(attempt_id=attempt_id):
            return _rebuilding(state, on_deadline(state, attempt_id))
        case fx.InvoiceDeadline():
            raise AssertionError("an invoice's deadline is a client's")
        case _:
            assert_never(deadline)


def _on_signing_failed(state: LspState, attempt_id: bytes, reason: str) -> Decision:
    if not state.attempts[attempt_id].is_open:
        return NOTHING
    dropped = r.BuildDropped(reason=f"our signer: {reason}")
    return abort(state, attempt_id, reason=dropped.reason) + Decision(records=(dropped,))


def _on_start(state: LspState) -> Decision:
    """End what a restart voids: nonces are gone, so unsigned ceremonies are over."""
    decision = Decision(records=(r.Started(),))
    for attempt in state.attempts.values():
        if attempt.is_open and attempt.root_signature is None:
            decision += abort(state, attempt.attempt_id, reason="the LSP restarted")
    after = folded(state, decision.records)
    return decision + Decision(effects=resume(after))


def _on_connection(state: LspState, node_id: bytes) -> Decision:
    """Greet a peer. Who never joined leaves no trace: names cost nothing, the journal does."""
    is_known = node_id in state.joins
    return Decision(
        records=(r.PeerConnected(node_id=node_id),) if is_known else (),
        effects=(fx.Send(node_id=node_id, message=greeting(state)),),
    ) + _after_reconnect(state, node_id)


def _on_disconnection(state: LspState, node_id: bytes) -> Decision:
    """A connection takes its pools with it; what needs them is over."""
    if node_id not in state.connected:
        return NOTHING
    pools = tuple(link.pool_id for link in state.book.links_with(node_id) if link.pool_id)
    gone = Decision(
        records=(r.PeerDisconnected(node_id=node_id),),
        effects=(fx.DropPools(pool_ids=pools),) if pools else (),
    )
    after = apply(state, gone.records[0])
    attempt = after.open_attempt
    client = attempt.client_of(node_id) if attempt is not None else None
    if attempt is not None and client is not None and client not in attempt.root_partials:
        aborted = abort(
            after,
            attempt.attempt_id,
            reason=f"client {client} disconnected",
            culprits=(node_id,),
        )
        return gone + _rebuilding(after, aborted)
    return gone


def _on_malformed(state: LspState, node_id: bytes, reason: str) -> Decision:
    disconnect = Decision(effects=(fx.Disconnect(node_id=node_id, reason=reason),))
    attempt = state.open_attempt
    if attempt is None or attempt.client_of(node_id) is None:
        return disconnect
    aborted = abort(
        state,
        attempt.attempt_id,
        reason=f"malformed message: {reason}",
        culprits=(node_id,),
        is_fault=True,
    )
    return _rebuilding(state, aborted) + disconnect


def _on_message(state: LspState, node_id: bytes, message: m.Message) -> Decision:
    if isinstance(message, m.ChannelMessage):
        return channels.on_channel_message(state, node_id, message)
    match message:
        case m.Join():
            return _on_join(state, node_id, message)
        case m.Leave(factory_pubkey=pubkey):
            member = state.members.get(node_id)
            if member is None or member.join.factory_pool.pubkey != pubkey:
                return NOTHING
            return Decision(records=(r.ClientLeft(node_id=node_id),))
        case m.SignBelow():
            return _rebuilding(state, on_sign_below(state, node_id, message))
        case m.SignRoot():
            return _rebuilding(state, on_sign_root(state, node_id, message))
        case m.Acknowledge():
            return on_acknowledge(state, node_id, message)
        case m.Resume():
            return _on_resume(state, node_id, message)
        case m.ChannelReady():
            return _on_channel_ready(state, node_id, message)
        case m.Abort():
            return _on_abort(state, node_id, message)
        case m.Lobby() | m.Joined() | m.Refused() | m.Propose() | m.SignedBelow() | m.SignedRoot():
            return _on_malformed(state, node_id, f"{type(message).__name__} is an LSP's message")
        case _:
            assert_never(message)


def _on_join(state: LspState, node_id: bytes, join: m.Join) -> Decision:
    pubkey = join.factory_pool.pubkey
    member = state.members.get(node_id)
    if member is not None and member.join == join:
        waiting = m.Joined(factory_pubkey=pubkey, waiting=len(state.members))
        return Decision(effects=(fx.Send(node_id=node_id, message=waiting),))
    reason = refusal_of(state, node_id, join)
    if reason is not None:
        refused = m.Refused(factory_pubkey=pubkey, reason=reason)
        return Decision(effects=(fx.Send(node_id=node_id, message=refused),))
    record = r.ClientJoined(
        node_id=node_id,
        message=encode_message(join),
        is_moving=is_move_proven(state, node_id, join),
    )
    first = () if node_id in state.connected else (r.PeerConnected(node_id=node_id),)
    after = folded(state, (*first, record))
    joined = m.Joined(factory_pubkey=pubkey, waiting=len(after.members))
    decision = Decision(
        records=(*first, record), effects=(fx.Send(node_id=node_id, message=joined),)
    )
    build = after.build
    if build is not None and build.attempt is None and set(build.node_ids) <= set(after.members):
        return decision + _rebuild(after)
    return decision + _scheduled(after, at_height=None)


def _scheduled(state: LspState, *, at_height: int | None) -> Decision:
    """Return the build that the schedule asks for, if it does; what hinders it is remembered."""
    policy = state.config.policy
    if state.open_attempt is not None or state.build is not None:
        return NOTHING
    if not is_build_due(policy, n_waiting=len(state.members), at_height=at_height):
        return NOTHING
    try:
        plan = plan_build(state, min_clients=policy.min_clients, max_clients=policy.max_clients)
    except Rejected as rejected:
        # Once: what hinders it may last, and a schedule asks again and again.
        if str(rejected) == state.build_dropped:
            return NOTHING
        return Decision(records=(r.BuildDropped(reason=str(rejected)),))
    return _start_build(state, plan, policy.min_clients, policy.max_clients)


def _on_build_requested(state: LspState, event: ev.BuildRequested) -> Decision:
    if state.open_attempt is not None or state.build is not None:
        raise Rejected("build_under_way", "a factory is being built", retryable=True)
    plan = plan_build(state, min_clients=event.min_clients, max_clients=event.max_clients)
    return _start_build(state, plan, event.min_clients, event.max_clients)


def _start_build(state: LspState, plan: BuildPlan, min_clients: int, max_clients: int) -> Decision:
    started = r.BuildStarted(
        attempt=state.next_attempt,
        node_ids=plan.node_ids,
        reasons=tuple(seat.reason for seat in plan.placed),
        capacity_sat=plan.terms.capacity_sat,
        min_clients=min_clients,
        max_clients=max_clients,
    )
    n_vertices = sum(1 for _ in plan_of(plan.terms).vertices())
    return Decision(
        records=(started,),
        effects=(
            fx.ClearDeadline(deadline=fx.RejoinDeadline()),
            fx.PrepareAttempt(
                attempt=started.attempt,
                n_clients=len(plan.placed),
                pool_size=2 * n_vertices,  # a kickoff and a state each
            ),
        ),
    )


def _rebuilding(state: LspState, decision: Decision) -> Decision:
    """Return the decision, and if it aborts an attempt, wait for those who stay to join again."""
    aborted = [record for record in decision.records if isinstance(record, r.AttemptAborted)]
    dropped = [record for record in decision.records if isinstance(record, r.BuildDropped)]
    if not aborted and not dropped:
        return decision
    build = state.build
    if build is None:
        return decision
    culprits = aborted[0].culprits if aborted else ()
    staying = tuple(
        node_id
        for node_id in build.node_ids
        if node_id not in culprits and node_id in state.connected
    )
    if len(staying) < build.min_clients:
        reason = f"{len(staying)} clients are left, {build.min_clients} are needed"
        return decision + Decision(records=(r.BuildDropped(reason=reason),))
    awaited = r.RebuildAwaited(
        node_ids=staying, min_clients=build.min_clients, max_clients=build.max_clients
    )
    seconds = state.config.policy.deadline_seconds
    deadline = fx.SetDeadline(deadline=fx.RejoinDeadline(), seconds=seconds)
    decision += Decision(records=(awaited,), effects=(deadline,))
    after = folded(state, decision.records)
    # Where nothing was proposed their keys are still fresh, and nobody has to join again.
    return decision + _rebuild(after) if set(staying) <= set(after.members) else decision


def _rebuild(state: LspState) -> Decision:
    """Start again with those of the last attempt who came back."""
    build = state.build
    if build is None or build.attempt is not None or state.open_attempt is not None:
        return NOTHING
    try:
        plan = plan_build(
            state,
            min_clients=build.min_clients,
            max_clients=build.max_clients,
            only=build.node_ids,
        )
    except Rejected as rejected:
        return Decision(
            records=(r.BuildDropped(reason=str(rejected)),),
            effects=(fx.ClearDeadline(deadline=fx.RejoinDeadline()),),
        )
    return _start_build(state, plan, build.min_clients, build.max_clients)


def _on_abort(state: LspState, node_id: bytes, message: m.Abort) -> Decision:
    attempt = state.attempts.get(message.attempt_id)
    if attempt is None or not attempt.is_open or attempt.client_of(node_id) is None:
        return NOTHING
    # To refuse is no fault: the terms may be ours to change. But it is left out of the next try.
    client = attempt.client_of(node_id)
    aborted = abort(
        state,
        attempt.attempt_id,
        reason=f"client {client} refused: {message.reason}",
        culprits=(node_id,),
    )
    return _rebuilding(state, aborted)


def _after_reconnect(state: LspState, node_id: bytes) -> Decision:
    ready = tuple(
        fx.Send(node_id=node_id, message=_channel_ready(attempt))
        for attempt in state.attempts.values()
        if attempt.ready_sent and attempt.client_of(node_id) is not None
    )
    return Decision(effects=ready)


def _on_resume(state: LspState, node_id: bytes, message: m.Resume) -> Decision:
    attempt = state.attempts.get(message.attempt_id)
    if attempt is None or attempt.aborted is not None or attempt.client_of(node_id) is None:
        over = m.Abort(attempt_id=message.attempt_id, reason="this attempt is over")
        return Decision(effects=(fx.Send(node_id=node_id, message=over),))
    if attempt.root_signature is None:
        return NOTHING  # It is sent to everybody as soon as it is finished.
    return Decision(effects=(fx.Send(node_id=node_id, message=attempt.signed_root()),))


def _on_channel_ready(state: LspState, node_id: bytes, message: m.ChannelReady) -> Decision:
    attempt = state.attempts.get(message.attempt_id)
    if (
        attempt is None
        or attempt.signed_funding_tx is None
        or attempt.client_of(node_id) is None
        or message != _channel_ready(attempt)
    ):
        return NOTHING
    records: tuple[r.AnyRecord, ...] = ()
    if node_id not in attempt.ready_received:
        records = (r.ReadyReceived(attempt_id=message.attempt_id, node_id=node_id),)
    after = folded(state, records)
    begun = channels.begin(after, after.attempts[message.attempt_id], node_id)
    return Decision(records=records) + begun


def _channel_ready(attempt: LspAttempt) -> m.ChannelReady:
    return m.ChannelReady(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        funding_txid=attempt.funding_tx.txid,
    )


def _on_block(state: LspState, event: ev.BlockAdded) -> Decision:
    record = r.BlockConnected(
        height=event.height,
        block_hash=event.block_hash,
        txs=tuple(tx.serialize() for tx in event.txs),
    )
    after = apply(state, record)
    owed = (*owed_payments(after.wallet), *leaving.owed(after))
    decision = Decision(records=(record,), effects=owed)
    for attempt in after.attempts.values():
        if attempt.signed_funding_tx is None:
            continue
        depth = after.chain.depth(attempt.funding_tx.txid)
        if depth == 0:
            decision += Decision(effects=(funding_broadcast(attempt.signed_funding_tx),))
        elif depth >= attempt.terms.min_depth and not attempt.ready_sent:
            decision += _ready(after, attempt)
    decision += leaving.on_block(folded(after, decision.records[1:]))
    final = folded(after, decision.records[1:])
    # What the chain decided about an outgoing HTLC answers the incoming one.
    decision += channels.decide_channels(final, lambda _turn: None)
    return decision + _scheduled(final, at_height=event.height)


def _ready(state: LspState, attempt: LspAttempt) -> Decision:
    """Tell everybody that the funding is deep enough, and take up the channels of who said so."""
    sent = r.ReadySent(attempt_id=attempt.attempt_id)
    decision = Decision(
        records=(sent,),
        effects=tuple(
            fx.Send(node_id=seat.node_id, message=_channel_ready(attempt)) for seat in attempt.seats
        ),
    )
    after = apply(state, sent)
    ready = after.attempts[attempt.attempt_id]
    for node_id in ready.ready_received:
        decision += channels.begin(after, ready, node_id)
    return decision
