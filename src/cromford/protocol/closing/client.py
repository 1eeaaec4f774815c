"""A client's side of a cooperative close: check everything, agree, check again, sign.

From the record of having signed on, the LSP alone can finish the close: the channel goes on, but
may not come to owe us more than the close pays. Once it is finished, the channel stands still.
"""

from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol import events as ev
from cromford.protocol.closing.checks import (
    Closable,
    check_begin,
    check_closed,
    check_proposals,
    check_still,
)
from cromford.protocol.closing.confirming import owed_by_client
from cromford.protocol.closing.restored import named_msat
from cromford.protocol.faults import FaultyLsp, Refusal
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.close_scopes import close_intents, close_task
from cromford.protocol.journal.closing import ClientClosing
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.turn import Turn
from cromford.signing.keychain import ChannelKey, FactoryKey
from cromford.wire import messages as m


def take(turn: Turn[ClientState], event: ev.CloseEvent) -> None:
    """Take our signer's nonces for a close."""
    match event:
        case ev.ClosePrepared():
            on_prepared(turn, event)
        case ev.CloseUnprepared(asked=asked, reason=reason):
            _end(turn, asked.close_id, f"our signer: {reason}")
        case (
            ev.CloseRequested()
            | ev.SeatsPrepared()
            | ev.SeatsLacking()
            | ev.SeatsSigned()
            | ev.SeatsFailed()
        ):
            raise AssertionError(f"{type(event).__name__} is an LSP's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[ClientState], message: m.CloseMessage) -> None:
    """Take what the LSP says about a close; what only a client says ends the connection."""
    match message:
        case m.CloseBegin():
            on_begin(turn, message)
        case m.ClosePropose():
            on_propose(turn, message)
        case m.Closed():
            on_closed(turn, message)
        case m.CloseEnd(close_id=close_id, reason=reason):
            _end(turn, close_id, f"the LSP: {reason}", tells_lsp=False)
        case m.CloseAgree() | m.CloseSign():
            reason = f"{type(message).__name__} is a client's message"
            turn.ask(fx.Disconnect(node_id=turn.state.config.lsp_node_id, reason=reason))
        case _:
            assert_never(message)


def on_begin(turn: Turn[ClientState], message: m.CloseBegin) -> None:
    """Agree to a close, or refuse by name. From here on we begin no update in the channel."""
    if message.close_id in turn.state.closing:
        return
    try:
        found = check_begin(turn, message)
    except Refusal as refusal:
        _refuse(turn, message.close_id, str(refusal))
        return
    turn.remember(
        cl.CloseAgreed(
            attempt_id=message.attempt_id,
            close_id=message.close_id,
            channel_id=found.link.channel_id,
            outpoint=message.outpoint,
            feerates_sat_per_kw=tuple(one.feerate_sat_per_kw for one in message.options),
            balance_msat=found.due_msat,
        )
    )
    deadline = fx.CloseDeadline(close_id=message.close_id)
    seconds = turn.state.config.policy.deadline_seconds
    turn.ask(
        fx.PrepareClose(
            attempt_id=message.attempt_id,
            close_id=message.close_id,
            key=_key_of(found),
            n_options=len(message.options),
        ),
        fx.SetDeadline(deadline=deadline, seconds=seconds),
    )


def _key_of(found: Closable) -> FactoryKey | ChannelKey:
    """Return the key of ours that signs: the factory's, or the funding key of the channel."""
    is_channel = found.scope.outpoint in {one.outpoint for one in found.link.fundings}
    return found.link.key if is_channel else FactoryKey(attempt=found.attempt.key_attempt)


def on_prepared(turn: Turn[ClientState], event: ev.ClosePrepared) -> None:
    """Tell the LSP what we are owed, if that is still so, and we can know it."""
    closing = turn.state.closing.get(event.asked.close_id)
    if closing is None or closing.pool is not None:
        turn.ask(fx.DropPools(pool_ids=(event.pool.pool_id,)))
        return
    turn.remember(
        cl.ClosePoolMade(
            attempt_id=closing.attempt_id,
            close_id=closing.close_id,
            pool=encoded_pool(event.pool),
        )
    )
    try:
        found = check_still(turn, closing)
    except Refusal as refusal:
        _end(turn, closing.close_id, str(refusal))
        return
    agree = m.CloseAgree(
        close_id=closing.close_id,
        balance_msat=named_msat(found.link),
        payout_script=found.payout.script_pubkey,
        pool=m.Pool(pubkey=event.pool.pubkey, pubnonces=event.pool.pubnonces),
    )
    turn.send(found.attempt.lsp_node_id, agree)


def on_propose(turn: Turn[ClientState], message: m.ClosePropose) -> None:
    """Check the transactions, write down that we sign them, and sign them."""
    closing = turn.state.closing.get(message.close_id)
    if closing is None or closing.pool is None or closing.is_signed:
        return
    try:
        found, txs = check_proposals(turn, closing, message)
    except Refusal as refusal:
        _end(turn, closing.close_id, f"refused: {refusal}")
        return
    turn.remember(
        cl.CloseSigned(
            attempt_id=closing.attempt_id,
            close_id=closing.close_id,
            intents=close_intents(closing.close_id, found.scope, txs),
            txids=tuple(tx.txid for tx in txs),
            balance_msat=_paid_msat(found, txs) if closing.balance_msat is None else None,
        )
    )
    requests = tuple(
        fx.SignRequest(
            pool_id=closing.pool.pool_id,
            nonce_index=number,
            task=close_task(found.scope, tx, number),
            aggnonce=proposal.aggnonce,
        )
        for number, (tx, proposal) in enumerate(zip(txs, message.proposals, strict=True))
    )
    turn.ask(
        fx.PartialSign(attempt_id=closing.attempt_id, requests=requests, close_id=closing.close_id)
    )


def _paid_msat(found: Closable, txs: tuple[Tx, ...]) -> int:
    """Return what we are sure to be paid, whichever of the transactions confirms."""
    return MSAT_PER_SAT * min(sum(found.paid_sat(tx)) for tx in txs)


def on_partial_signed(turn: Turn[ClientState], event: ev.PartialSigned) -> None:
    """Send our partial signatures. The record that allows it was there before they were made."""
    closing = turn.state.closing.get(event.asked.close_id)
    if closing is None or not closing.is_signed or closing.pool is None:
        return
    partial_sigs = tuple(partial_sig for _, partial_sig in event.partial_sigs)
    sign = m.CloseSign(close_id=closing.close_id, partial_sigs=partial_sigs)
    turn.send(turn.state.attempts[closing.attempt_id].lsp_node_id, sign)
    turn.ask(fx.DropPools(pool_ids=(closing.pool.pool_id,)))


def on_signing_failed(turn: Turn[ClientState], event: ev.SigningFailed) -> None:
    """Tell the LSP that nothing comes of it; what was written down binds us all the same."""
    _end(turn, event.asked.close_id, f"our signer: {event.reason}")


def on_closed(turn: Turn[ClientState], message: m.Closed) -> None:
    """Take a finished close: from here on the channel stands still, and we publish it, too."""
    under_way = turn.state.closing.get(message.close_id)
    if message.close_id in turn.state.closed:
        return
    if under_way is not None and under_way.attempt_id != message.attempt_id:
        return  # That name is another factory's close, which would end with this one.
    try:
        found = check_closed(turn.state, message)
    except FaultyLsp as fault:
        _end(turn, message.close_id, f"the LSP is at fault: {fault}")
        return
    if found is None:
        return
    closable, txs, close = found
    turn.remember(
        cl.CloseFinished(
            attempt_id=message.attempt_id,
            close_id=message.close_id,
            outpoint=close.outpoint.serialize(),
            txs=tuple(tx.serialize() for tx in txs),
            channels=(closable.link.channel_id,),
            balances_msat=(close.balance_msat,),
        )
    )
    if under_way is not None:
        turn.ask(*_cleared(under_way))
    turn.ask(*owed_by_client(turn.state, turn.facts.fees))


def on_deadline(turn: Turn[ClientState], deadline: fx.CloseDeadline) -> None:
    """Wait no longer for a close; one that we signed may be finished all the same."""
    closing = turn.state.closing.get(deadline.close_id)
    if closing is not None:
        reason = "deadline: the LSP went silent"
        _end(turn, deadline.close_id, reason, tells_lsp=not closing.is_signed)


def on_block(turn: Turn[ClientState]) -> None:
    """End closes that we have not signed, and would not sign any more."""
    for closing in _in_order(turn.state):
        if closing.is_signed:
            continue
        try:
            check_still(turn, closing)
        except Refusal as refusal:
            _end(turn, closing.close_id, str(refusal))


def void_connection(turn: Turn[ClientState]) -> None:
    """End what needs the nonces of this connection; before the record that it is over."""
    for closing in _in_order(turn.state):
        _end(turn, closing.close_id, "connection lost", tells_lsp=False)


def _in_order(state: ClientState) -> list[ClientClosing]:
    return [closing for _, closing in sorted(state.closing.items())]


def _end(turn: Turn[ClientState], close_id: bytes, reason: str, *, tells_lsp: bool = True) -> None:
    closing = turn.state.closing.get(close_id)
    if closing is None:
        return
    reason = reason[: m.REASON_SIZE_MAX]
    turn.remember(cl.CloseEnded(attempt_id=closing.attempt_id, close_id=close_id, reason=reason))
    turn.ask(*_cleared(closing))
    if tells_lsp:
        _refuse(turn, close_id, reason)


def _refuse(turn: Turn[ClientState], close_id: bytes, reason: str) -> None:
    reason = reason[: m.REASON_SIZE_MAX]
    turn.send(turn.state.lsp_node_id, m.CloseEnd(close_id=close_id, reason=reason))


def _cleared(closing: ClientClosing) -> tuple[fx.Effect, ...]:
    cleared = fx.ClearDeadline(deadline=fx.CloseDeadline(close_id=closing.close_id))
    if closing.pool is None:
        return (cleared,)
    return (cleared, fx.DropPools(pool_ids=(closing.pool.pool_id,)))
