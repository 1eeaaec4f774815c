"""A client's side of an advance: check everything, be quiet, agree, sign, hold what protects us.

From the record of having signed on, the old state and the new may both confirm: nothing is dropped
any more. Before it, whatever is not as we want it ends the advance, and costs nobody anything.
"""

from typing import Final, assert_never

from cromford import effects as fx
from cromford.channel.errors import PeerViolation
from cromford.protocol import events as ev
from cromford.protocol.advancing.checking import (
    Advancing,
    check_may_begin,
    check_propose,
    check_still,
    next_leaf,
)
from cromford.protocol.advancing.finishing import (
    drop_pools,
    end_if_done,
    end_purchase,
    on_done,
    tell_held,
)
from cromford.protocol.advancing.halves import finish_half, held_next, still_awaits
from cromford.protocol.advancing.landing import say_void
from cromford.protocol.advancing.making import (
    CHANNEL_NONCES,
    FACTORY_NONCES,
    POISON_NONCE,
    lies_on_next,
    own_intents,
    peer_latest,
)
from cromford.protocol.advancing.signing import check_commit, made_partials, requests_of
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.next_signing import sign_next_of
from cromford.protocol.faults import Refusal
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.signing.keychain import FactoryKey
from cromford.wire import messages as m
from cromford.wire.messages import encode_message
from cromford.wire.selling import AdvancePartials, NextHalf, NextNonces

NOT_BOUGHT: Final = "the purchase that it was for has ended"


def take(turn: Turn[ClientState], event: ev.AdvanceEvent) -> None:
    """Take an answer of our signer."""
    match event:
        case ev.AdvancePrepared():
            _on_prepared(turn, event)
        case ev.AdvanceUnprepared(asked=asked, reason=reason):
            _on_failed(turn, asked.attempt_id, asked.advance_id, reason)
        case ev.NextHalfMade():
            _on_half_made(turn, event)
        case ev.NextSigned():
            _on_next_signed(turn, event)
        case ev.NextSigningFailed(asked=asked, reason=reason):
            _on_failed(turn, asked.attempt_id, asked.advance_id, reason)
        case _:
            assert_never(event)


def take_message(turn: Turn[ClientState], message: m.AdvanceMessage) -> None:
    """Take what the LSP says about an advance; what only a client says ends the connection."""
    match message:
        case m.AdvancePropose():
            _on_propose(turn, message)
        case m.AdvanceCommit():
            _on_commit(turn, message)
        case m.AdvanceDone():
            advance = _under_way(turn.state, message.attempt_id, message.advance_id)
            if advance is not None:
                on_done(turn, advance, message)
        case m.AdvanceAbort():
            _on_abort(turn, message)
        case m.AdvanceAgree() | m.AdvanceSign() | m.AdvanceHeld():
            reason = f"{type(message).__name__} is a client's message"
            turn.ask(fx.Disconnect(node_id=turn.state.config.lsp_node_id, reason=reason))
        case _:
            assert_never(message)


def _under_way(state: ClientState, attempt_id: bytes, advance_id: bytes) -> ClientAdvance | None:
    """Return the advance of this name, if the LSP of the present connection may speak of it."""
    advance = state.advances.get(attempt_id)
    if state.attempt_with(state.lsp_node_id, attempt_id) is None or advance is None:
        return None
    return advance if advance.advance_id == advance_id else None


def _on_propose(turn: Turn[ClientState], message: m.AdvancePropose) -> None:
    """Begin with an advance, or again with one that we signed; or refuse by name."""
    known = turn.state.advances.get(message.attempt_id)
    try:
        check_may_begin(turn.state, known, message)
        if known is None:
            _receive(turn, check_propose(turn, message), message)
        elif not known.is_signed:
            return  # Sent twice: we are about to agree, or did.
    except Refusal as refusal:
        # Whoever signed waits, and refuses nothing: of tries that are too many it costs us a day,
        # for no answer is a deadline that we let pass.
        if known is None:
            _refuse(turn, message.attempt_id, message.advance_id, str(refusal))
        elif not known.is_signed:
            _drop(turn, message.attempt_id, known, str(refusal))
        return
    attempt = turn.state.attempts[message.attempt_id]
    link = turn.book.links[attempt.setting.channel_id]
    turn.ask(
        fx.PrepareAdvance(
            attempt_id=message.attempt_id,
            advance_id=message.advance_id,
            factory_key=FactoryKey(attempt=attempt.key_attempt),
            factory_size=FACTORY_NONCES,
            channel_keys=(link.key,),
            channel_size=CHANNEL_NONCES,
            session=message.session,
        )
    )
    if known is None:  # Whoever signed is not quiet, and waits for as long as it takes.
        deadline = fx.AdvanceDeadline(advance_id=message.advance_id)
        seconds = turn.state.config.policy.deadline_seconds
        turn.ask(fx.SetDeadline(deadline=deadline, seconds=seconds))


def _receive(turn: Turn[ClientState], found: Advancing, message: m.AdvancePropose) -> None:
    turn.remember(
        ar.AdvanceReceived(
            attempt_id=message.attempt_id,
            advance_id=message.advance_id,
            channel_id=found.link.channel_id,
            state_index=message.state_index,
            capacities_sat=found.leaf.allocation.capacities_sat,
            lstock_sat=found.leaf.allocation.lstock_sat,
            quote_id=message.quote_id,
            price_msat=message.price_msat,
        )
    )


def _on_prepared(turn: Turn[ClientState], event: ev.AdvancePrepared) -> None:
    """Keep our nonces; what they replace of an earlier try is let go."""
    asked = event.asked
    advance = _under_way(turn.state, asked.attempt_id, asked.advance_id)
    if advance is None or (advance.factory_pool is not None and not advance.is_signed):
        pools = (event.factory_pool, *event.channel_pools)
        turn.ask(fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools)))
        return
    turn.remember(
        ar.AdvancePoolsMade(
            attempt_id=asked.attempt_id,
            advance_id=asked.advance_id,
            factory_pool=encoded_pool(event.factory_pool),
            channel_pools=tuple(encoded_pool(pool) for pool in event.channel_pools),
            session=asked.session,
        )
    )
    drop_pools(turn, advance)


def _agree_when_quiet(turn: Turn[ClientState], attempt_id: bytes, advance: ClientAdvance) -> None:
    """Say that we agree, once nothing is on its way in our channel, or at once if we signed."""
    if advance.factory_pool is None or advance.channel_pool is None or advance.is_agreed:
        return
    link = turn.link(advance.channel_id)
    channel: tuple[NextNonces, ...] = ()
    if not advance.is_signed:
        if not link.is_open or not link.state.is_quiet:
            return
        try:
            check_still(turn, advance)
        except Refusal as refusal:
            _drop(turn, attempt_id, advance, str(refusal))
            return
        nonces = NextNonces(
            number=link.state.own_signed,
            pubnonce=advance.channel_pool.pubnonces[0],
            following_pubnonce=advance.channel_pool.pubnonces[1],
        )
        channel = (nonces,)
    turn.remember(ar.AdvanceAgreed(attempt_id=attempt_id, advance_id=advance.advance_id))
    agree = m.AdvanceAgree(
        attempt_id=attempt_id,
        advance_id=advance.advance_id,
        factory_pubkey=advance.factory_pool.pubkey,
        pubnonces=advance.factory_pool.pubnonces,
        channel=channel,
        session=advance.session,
    )
    turn.send(link.node_id, agree)


def _on_commit(turn: Turn[ClientState], message: m.AdvanceCommit) -> None:
    """Take the LSP's half of our latest commitment, or sign again what we signed."""
    advance = _under_way(turn.state, message.attempt_id, message.advance_id)
    if advance is None or not advance.is_agreed or advance.is_leaving:
        return
    link = turn.link(advance.channel_id)
    attempt = turn.state.attempts[message.attempt_id]
    try:
        requests = requests_of(next_leaf(attempt, advance), advance, message)
        if advance.is_signed:
            _sign(turn, message, requests)
            return
        check_still(turn, advance)
        check_commit(link, message)
        if link.next is None:
            raise AssertionError("agreed without a next funding")
        finishing = finish_half(link, link.next, message.half, message)
    except Refusal as refusal:
        # Of a channel that failed the nonces are gone, too: that is not why.
        _drop(turn, message.attempt_id, advance, str(refusal))
        return
    except PeerViolation as violation:
        _violated(turn, message.attempt_id, advance, violation)
        return
    if finishing is not None:
        turn.ask(finishing)


def _on_half_made(turn: Turn[ClientState], event: ev.NextHalfMade) -> None:
    """Hold our latest commitment on the next funding; then, for ever, sign the next state.

    All is looked at once more before it: this is our last chance to refuse.
    """
    message = event.asked.message
    link = turn.link(event.asked.channel_id)
    advance = _under_way(turn.state, event.asked.attempt_id, event.asked.advance_id)
    if advance is None or advance.is_signed or not advance.is_agreed:
        return
    if not isinstance(message, m.AdvanceCommit) or not still_awaits(link, event):
        return
    try:
        held = held_next(event)
    except PeerViolation as violation:
        _violated(turn, event.asked.attempt_id, advance, violation)
        return
    try:
        found = check_still(turn, advance)
    except Refusal as refusal:
        _drop(turn, event.asked.attempt_id, advance, str(refusal))
        return
    commitment = peer_latest(link)
    turn.remember(
        held,
        ar.AdvanceSigned(
            attempt_id=event.asked.attempt_id,
            advance_id=advance.advance_id,
            intents=own_intents(found.leaf, advance.state_index),
            message=encode_message(message),
        ),
        ar.NextCommitmentIntended(
            channel_id=link.channel_id,
            number=commitment.content.number,
            sighash=commitment.signing_task.sighash,
        ),
    )
    if not lies_on_next(turn.link(link.channel_id)):
        raise AssertionError("an advance is signed on which a latest commitment does not lie")
    _sign(turn, message, requests_of(found.leaf, advance, message))


def _sign(
    turn: Turn[ClientState], message: m.AdvanceCommit, requests: tuple[fx.SignRequest, ...]
) -> None:
    turn.ask(
        fx.PartialSign(
            attempt_id=message.attempt_id, requests=requests, advance_id=message.advance_id
        )
    )


def on_partial_signed(turn: Turn[ClientState], event: ev.PartialSigned) -> None:
    """Send our partial signatures. The record that allows it was there before they were made.

    The first time, with our half of the LSP's latest commitment.
    """
    advance = _under_way(turn.state, event.asked.attempt_id, event.asked.advance_id)
    if advance is None or not advance.is_signed or advance.channel_pool is None:
        return
    partial_sigs = tuple(partial_sig for _, partial_sig in event.partial_sigs)
    nonce = advance.channel_pool.pubnonces[POISON_NONCE]
    partials = made_partials(partial_sigs, nonce)
    link = turn.link(advance.channel_id)
    if not advance.is_leaving:
        _send_signed(turn, link, advance, (), (partials,))
        return
    commitment = peer_latest(link)
    number = commitment.content.number
    pubnonce = None if link.next is None else link.next.peer_nonces.get(number)
    if pubnonce is None:
        raise AssertionError("an advance is signed without the LSP's nonces")
    point = link.state.peer_point
    turn.ask(sign_next_of(link, commitment, point, pubnonce, partials=(partials,)))


def _on_next_signed(turn: Turn[ClientState], event: ev.NextSigned) -> None:
    """Send our half of the LSP's latest commitment: with our other parts, or after a reconnect."""
    asked = event.asked
    advance = _under_way(turn.state, asked.attempt_id, asked.advance_id)
    link = turn.link(asked.channel_id)
    if advance is None or not link.state.is_connected:
        return
    half = NextHalf(
        number=asked.number,
        pubnonce=event.pubnonce,
        partial_sig=event.partial_sig,
        htlc_signatures=event.htlc_signatures,
    )
    if advance.is_leaving:
        turn.remember(ar.AdvanceSent(attempt_id=asked.attempt_id, advance_id=asked.advance_id))
        turn.ask(_cleared(advance))
    _send_signed(turn, link, advance, (half,), asked.partials)


def _send_signed(
    turn: Turn[ClientState],
    link: Link,
    advance: ClientAdvance,
    half: tuple[NextHalf, ...],
    partials: tuple[AdvancePartials, ...],
) -> None:
    sign = m.AdvanceSign(
        attempt_id=link.attempt_id, advance_id=advance.advance_id, half=half, partials=partials
    )
    turn.send(link.node_id, sign)


def on_signing_failed(turn: Turn[ClientState], event: ev.SigningFailed) -> None:
    """End the connection: the LSP asks again in the next one, with fresh nonces."""
    _on_failed(turn, event.asked.attempt_id, event.asked.advance_id, event.reason)


def _on_failed(turn: Turn[ClientState], attempt_id: bytes, advance_id: bytes, reason: str) -> None:
    advance = _under_way(turn.state, attempt_id, advance_id)
    if advance is None:
        return
    if advance.is_signed:
        node_id = turn.link(advance.channel_id).node_id
        turn.ask(fx.Disconnect(node_id=node_id, reason=f"our signer: {reason}"))
    else:
        _drop(turn, attempt_id, advance, f"our signer: {reason}")


def _on_abort(turn: Turn[ClientState], message: m.AdvanceAbort) -> None:
    """Let go of an advance that the LSP ends; once we signed it cannot."""
    advance = _under_way(turn.state, message.attempt_id, message.advance_id)
    if advance is None:
        return
    if advance.is_signed:
        violation = PeerViolation("advance_abort", expected="none: we signed", received="one")
        _violated(turn, message.attempt_id, advance, violation)
    else:
        reason = f"the LSP: {message.reason}"
        _drop(turn, message.attempt_id, advance, reason, tells_lsp=False)
        end_purchase(turn, message.attempt_id, advance.quote_id, reason)


def _violated(
    turn: Turn[ClientState], attempt_id: bytes, advance: ClientAdvance, violation: PeerViolation
) -> None:
    """End a channel whose LSP provably broke the rules; what we signed binds us all the same."""
    if not advance.is_signed:
        _drop(turn, attempt_id, advance, str(violation), tells_lsp=False)
    end_updates(turn, turn.link(advance.channel_id), str(violation))


def _drop(
    turn: Turn[ClientState],
    attempt_id: bytes,
    advance: ClientAdvance,
    reason: str,
    *,
    tells_lsp: bool = True,
) -> None:
    turn.remember(
        ar.AdvanceDropped(
            attempt_id=attempt_id,
            advance_id=advance.advance_id,
            reason=reason[: m.REASON_SIZE_MAX],
            height=turn.height,
        )
    )
    _let_go(turn, advance)
    if tells_lsp:
        _refuse(turn, attempt_id, advance.advance_id, reason)


def _refuse(turn: Turn[ClientState], attempt_id: bytes, advance_id: bytes, reason: str) -> None:
    abort = m.AdvanceAbort(
        attempt_id=attempt_id, advance_id=advance_id, reason=reason[: m.REASON_SIZE_MAX]
    )
    turn.send(turn.state.lsp_node_id, abort)


def _let_go(turn: Turn[ClientState], advance: ClientAdvance) -> None:
    turn.ask(_cleared(advance))
    drop_pools(turn, advance)


def _cleared(advance: ClientAdvance) -> fx.ClearDeadline:
    return fx.ClearDeadline(deadline=fx.AdvanceDeadline(advance_id=advance.advance_id))


def void_connection(turn: Turn[ClientState]) -> None:
    """Let go what needs the nonces of this connection; before the record that it is over."""
    for _, advance in _in_order(turn.state):
        turn.ask(_cleared(advance))
        if advance.pool_ids:
            turn.ask(fx.DropPools(pool_ids=advance.pool_ids))


def on_deadline(turn: Turn[ClientState], deadline: fx.AdvanceDeadline) -> None:
    """Wait no longer for the LSP's next word: our channel has been quiet for it."""
    for _, advance in _in_order(turn.state):
        if advance.advance_id == deadline.advance_id and not advance.is_signed:
            node_id = turn.link(advance.channel_id).node_id
            reason = "deadline: the LSP went silent in an advance"
            turn.ask(fx.Disconnect(node_id=node_id, reason=reason))


def on_block(turn: Turn[ClientState]) -> None:
    """Do what a new height makes due, or possible."""
    for attempt_id, advance in _in_order(turn.state):
        link = turn.link(advance.channel_id)
        if not advance.is_signed:
            _check_once_more(turn, attempt_id, advance)
        else:
            say_void(turn, link)
            tell_held(turn, advance)


def _check_once_more(turn: Turn[ClientState], attempt_id: bytes, advance: ClientAdvance) -> None:
    try:
        check_still(turn, advance)
    except Refusal as refusal:
        _drop(turn, attempt_id, advance, str(refusal))


def go_on(turn: Turn[ClientState]) -> None:
    """Do all that can be done now: agree once the channel is quiet, say what we hold, end.

    What we bought nothing by any more is let go: another purchase is not signed with its nonces.
    """
    back = turn.first(cr.ChannelReestablished)
    for attempt_id, advance in _in_order(turn.state):
        if _lacks_purchase(turn.state, advance):
            _drop(turn, attempt_id, advance, NOT_BOUGHT)
            continue
        _agree_when_quiet(turn, attempt_id, advance)
        if back is not None and back.channel_id == advance.channel_id:
            tell_held(turn, advance)
        end_if_done(turn, attempt_id, advance)


def _lacks_purchase(state: ClientState, advance: ClientAdvance) -> bool:
    """Say whether what an advance was agreed to for has ended, while nothing was signed."""
    has_ended = bool(advance.quote_id) and advance.quote_id not in state.purchases
    return has_ended and not advance.is_signed


def _in_order(state: ClientState) -> list[tuple[bytes, ClientAdvance]]:
    return sorted(state.advances.items())
