"""BOLT 2 with the peer of a link: each message and each answer of the signer, one step.

Every step remembers before it speaks. An update travels together with the `commitment_signed`
that covers it; a commitment is finished and remembered before the one before is revoked.
"""

from typing import Final

from cromford import effects as fx
from cromford.channel.commitment import Commitment
from cromford.channel.commits import has_changes, next_own_content, next_signing_due
from cromford.channel.errors import FallenBehind, PeerViolation
from cromford.channel.finished import finish_commitment
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.messages import (
    CommitmentDue,
    Outgoing,
    RevocationDue,
    UpdateAdd,
    UpdateFulfill,
)
from cromford.channel.reestablish import (
    claims_lost_state,
    disconnect,
    receive_reestablish,
    reestablish_message,
)
from cromford.channel.secret_store import N_COMMITMENTS_MAX
from cromford.crypto.musig2 import InvalidContribution, is_partial_sig, is_pubnonce, nonce_agg
from cromford.protocol import events as ev
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.encoding import (
    UpdateMessage,
    decoded,
    message_of,
    reestablish_of,
)
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

NONCE_RETRY_SECONDS: Final = 30
# Said to the operator and to the peer.
LOST_STATE: Final = (
    "state was lost here: the peer knows later states of this channel, so our commitment may be "
    "revoked and is never published"
)
PEER_LOST_STATE: Final = "the peer lost state of this channel: our commitment pays both of us"
UNMARKED: Final = "no channel can be updated now"

# BOLT 2 names no bound. Every honest answer takes a round trip; what is added meanwhile waits.
REVOCATION_SECONDS: Final = 30


def prepare(turn: AnyTurn, link: Link) -> None:
    """Begin with a link in this connection: a fresh nonce, then `channel_reestablish`.

    Even where the channel is over: a peer that lost state must learn it, or it would publish a
    commitment that it has revoked (BOLT 2).
    """
    if link.pool_id is None:
        turn.ask(fx.PrepareNonce(channel_id=link.channel_id, key=link.key))


def on_nonce_prepared(turn: AnyTurn, event: ev.NoncePrepared) -> None:
    """Tell the peer where we believe the channel stands."""
    pool = event.pool
    early = turn.link(event.asked.channel_id).early_reestablish
    turn.remember(
        cr.ChannelPrepared(
            channel_id=event.asked.channel_id, pool_id=pool.pool_id, pubnonce=pool.pubnonces[0]
        )
    )
    link = turn.link(event.asked.channel_id)
    told = reestablish_message(link.state)
    turn.send(
        link.node_id,
        m.ChannelReestablish(
            channel_id=link.channel_id,
            next_commitment_number=told.next_commitment_number,
            next_revocation_number=told.next_revocation_number,
            your_last_per_commitment_secret=told.last_secret,
            next_pubnonce=link.pubnonce,
        ),
    )
    if early and link.failure is None:
        on_message(turn, link, decoded(early, m.ChannelReestablish))


def on_nonce_lacking(turn: AnyTurn, link: Link) -> None:
    """Take a channel up later: a lack of room for its nonce is no reason to end it."""
    if not link.awaits_nonce:
        turn.remember(cr.NonceAwaited(channel_id=link.channel_id, reestablish=b""))
    deadline = fx.NonceDeadline(channel_id=link.channel_id)
    turn.ask(fx.SetDeadline(deadline=deadline, seconds=NONCE_RETRY_SECONDS))


def on_nonce_deadline(turn: AnyTurn, deadline: fx.NonceDeadline) -> None:
    """Try again for a channel that waits for its nonce, in this connection still."""
    link = turn.book.links.get(deadline.channel_id)
    if link is not None and link.awaits_nonce:
        prepare(turn, link)


def on_message(turn: AnyTurn, link: Link, message: m.ChannelMessage) -> None:
    """Take one message about a channel; a peer that breaks the rules ends the channel.

    What comes before both sides have told where the channel stands is dropped: it belongs to an
    earlier connection.
    """
    if link.failure is not None:
        if isinstance(message, m.ChannelReestablish):
            heed_lost_state(turn, link, message)
            recall_point(turn, link, message)
        if not isinstance(message, m.ChannelFailure):
            turn.send(
                link.node_id, m.ChannelFailure(channel_id=link.channel_id, reason=link.failure)
            )
        return
    try:
        match message:
            case m.ChannelReestablish():
                _on_reestablish(turn, link, message)
            case m.UpdateAddHtlc() | m.UpdateFulfillHtlc() | m.UpdateFailHtlc():
                _on_update(turn, link, message)
            case m.CommitmentSigned():
                _on_commitment_signed(turn, link, message)
            case m.RevokeAndAck():
                _on_revoke_and_ack(turn, link, message)
            case m.ChannelFailure(reason=reason):
                fail(turn, link, f"the peer: {reason}", tells_peer=False)
    except PeerViolation as violation:
        fail(turn, link, str(violation))


def fail(
    turn: AnyTurn, link: Link, reason: str, *, is_behind: bool = False, tells_peer: bool = True
) -> None:
    """Take no further part in updates of a channel, and say so."""
    reason = reason[: m.REASON_SIZE_MAX]
    turn.remember(
        cr.ChannelFailed(
            channel_id=link.channel_id, reason=reason, height=turn.height, is_behind=is_behind
        )
    )
    if link.pool_id is not None:
        turn.ask(fx.DropPools(pool_ids=(link.pool_id,)))
    if tells_peer:
        turn.send(link.node_id, m.ChannelFailure(channel_id=link.channel_id, reason=reason))


def _on_reestablish(turn: AnyTurn, link: Link, message: m.ChannelReestablish) -> None:
    if link.awaits_nonce and not link.early_reestablish:
        data = encode_message(message)
        turn.remember(cr.NonceAwaited(channel_id=link.channel_id, reestablish=data))
    if link.pool_id is None or link.state.is_connected:
        return
    if turn.facts.unmarkable is not None:
        return  # What would go again is not marked either. The daemon begins connections anew.
    _check_pubnonce("next_pubnonce", message.next_pubnonce)
    if message.next_revocation_number > N_COMMITMENTS_MAX:
        raise PeerViolation(
            "next_revocation_number",
            expected=f"at most {N_COMMITMENTS_MAX}",
            received=message.next_revocation_number,
        )
    if heed_lost_state(turn, link, message):
        fail(turn, link, PEER_LOST_STATE)
        # It may prove all the same that we lost state, too.
        recall_point(turn, link, message)
    elif message.next_revocation_number == 0:
        _resume(turn, link, message, own_point=None)
    else:
        recall_point(turn, link, message)


def heed_lost_state(turn: AnyTurn, link: Link, message: m.ChannelReestablish) -> bool:
    """Remember that the peer lost state, or says so; return whether it does.

    A peer that lies gains nothing: our commitment is published only where the channel's output is
    on chain, and to bring it there costs what its own exit does. Of a marked channel ours is not
    published at all: it may be the backup's, with which a lying peer compares.
    """
    if not claims_lost_state(link.state, reestablish_of(message)):
        return False
    if not link.peer_is_behind:
        turn.remember(cr.PeerLostState(channel_id=link.channel_id, message=encode_message(message)))
    return True


def recall_point(turn: AnyTurn, link: Link, message: m.ChannelReestablish) -> None:
    """Ask for the point of the secret that the peer shows, where there can be one.

    Beyond the last commitment the secrets of BOLT 3 begin again: one shown for such a number
    would prove nothing.
    """
    if not 0 < message.next_revocation_number <= N_COMMITMENTS_MAX:
        return
    turn.ask(
        fx.RecallPoint(
            channel_id=link.channel_id,
            key=link.key,
            number=message.next_revocation_number - 1,
            message=message,
        )
    )


def on_point_recalled(turn: AnyTurn, event: ev.PointRecalled) -> None:
    """Take up a channel once it is known whether the peer showed the right secret."""
    link = turn.link(event.asked.channel_id)
    if not link.takes_updates:
        _learn_of_lost_state(turn, link, event)
        return
    if link.pool_id is None or link.state.is_connected:
        return
    try:
        _resume(turn, link, event.asked.message, own_point=event.point)
    except PeerViolation as violation:
        fail(turn, link, str(violation))


def _learn_of_lost_state(turn: AnyTurn, link: Link, event: ev.PointRecalled) -> None:
    """Remember a proof that we lost state, of a channel that takes no update any more."""
    if link.is_behind:
        return
    try:
        receive_reestablish(
            disconnect(link.state), reestablish_of(event.asked.message), own_point=event.point
        )
    except FallenBehind:
        fail(turn, link, LOST_STATE, is_behind=True, tells_peer=False)
    except PeerViolation:
        return


def _resume(
    turn: AnyTurn, link: Link, message: m.ChannelReestablish, *, own_point: bytes | None
) -> None:
    try:
        resumption = receive_reestablish(link.state, reestablish_of(message), own_point=own_point)
    except FallenBehind:
        fail(turn, link, LOST_STATE, is_behind=True)
        return
    turn.remember(
        cr.ChannelReestablished(
            channel_id=link.channel_id,
            message=encode_message(message),
            own_point=own_point or b"",
        )
    )
    link = turn.link(link.channel_id)
    if link.state.awaits_revocation:
        # Its answer may be what was lost, and then our signature does not go again.
        turn.ask(_set_revocation_deadline(link))
    _resend(turn, link, resumption.resend)


def _resend(turn: AnyTurn, link: Link, resend: tuple[Outgoing, ...]) -> None:
    """Send again what the peer may lack, in the order in which it was first sent.

    Updates that no signature covers yet are left: they travel with the next one.
    """
    before: list[m.Message] = []
    due: CommitmentDue | None = None
    after: list[m.Message] = []
    for outgoing in resend:
        match outgoing:
            case RevocationDue():
                (before if due is None else after).append(_revocation(link))
            case CommitmentDue():
                due = outgoing
                before += _covered_updates(link)
            case _:
                continue
    if due is None:
        for message in before:
            turn.send(link.node_id, message)
        return
    commitment = link.commitment(due.content, due.per_commitment_point)
    if commitment.signing_task.sighash != link.signed_sighash:
        raise DoubleSigning(f"commitment {due.content.number} of {link.channel_id.hex()}")
    _sign(turn, link, commitment, due, before=tuple(before), after=tuple(after))


def _covered_updates(link: Link) -> list[m.Message]:
    covered = link.state.unacked[: link.state.n_signed_updates]
    return [message_of(link.channel_id, update) for update in covered]


def _on_update(turn: AnyTurn, link: Link, message: UpdateMessage) -> None:
    if not link.state.is_connected:
        return
    turn.remember(cr.UpdateReceived(channel_id=link.channel_id, message=encode_message(message)))


def sign_if_due(turn: AnyTurn, link: Link) -> None:
    """Sign the peer's next commitment if there is anything new, and the peer can take it."""
    state = link.state
    if not link.is_open or link.peer_pubnonce is None or state.awaits_revocation:
        return
    if is_frozen(link.closes, turn.chain):
        return
    if turn.facts.unmarkable is not None:
        return  # What a mark does not cover may be forgotten: it stays owed.
    if not has_changes(state, state.peer) or _waits_for_fresh_chain(turn, link):
        return
    due = next_signing_due(state)
    commitment = link.commitment(due.content, due.per_commitment_point)
    turn.remember(
        cr.CommitmentIntended(
            channel_id=link.channel_id,
            number=due.content.number,
            sighash=commitment.signing_task.sighash,
        )
    )
    link = turn.link(link.channel_id)
    _sign(turn, link, commitment, due, before=tuple(_covered_updates(link)), after=())


def _waits_for_fresh_chain(turn: AnyTurn, link: Link) -> bool:
    """Say whether the next signature would carry what must not be said while the chain is stale.

    That is what was decided when it was fresh, and could not leave: a preimage of an invoice of
    ours, which shows it for the first time, or an HTLC that we add. It holds up the channel, but
    never a preimage that is passed back.
    """
    if turn.facts.is_fresh:
        return False
    state = link.state
    unsigned = state.unacked[state.n_signed_updates :]
    taken = [
        state.find(state.peer, update.htlc_id)
        for update in unsigned
        if isinstance(update, UpdateFulfill)
    ]
    if taken:
        return any(live and live.htlc.payment_hash in turn.book.invoices for live in taken)
    return any(isinstance(update, UpdateAdd) for update in unsigned)


def _sign(
    turn: AnyTurn,
    link: Link,
    commitment: Commitment,
    due: CommitmentDue,
    *,
    before: tuple[m.Message, ...],
    after: tuple[m.Message, ...],
) -> None:
    if link.peer_pubnonce is None:
        raise AssertionError("nothing is signed without the peer's nonce")
    turn.ask(
        fx.SignCommitment(
            channel_id=link.channel_id,
            key=link.key,
            task=commitment.signing_task,
            pubnonce=link.peer_pubnonce,
            per_commitment_point=due.per_commitment_point,
            htlc_sighashes=tuple(htlc.peer_sighash for htlc in htlc_txs(commitment)),
            before=before,
            after=after,
        )
    )


def on_commitment_made(turn: AnyTurn, event: ev.CommitmentMade) -> None:
    """Send the updates, our half of the peer's commitment, and what goes after it."""
    link = turn.link(event.asked.channel_id)
    if not link.is_open:
        return
    signed = m.CommitmentSigned(
        channel_id=link.channel_id,
        pubnonce=event.pubnonce,
        partial_sig=event.partial_sig,
        htlc_signatures=event.htlc_signatures,
    )
    for message in (*event.asked.before, signed, *event.asked.after):
        turn.send(link.node_id, message)
    turn.ask(_set_revocation_deadline(link))


def _on_commitment_signed(turn: AnyTurn, link: Link, message: m.CommitmentSigned) -> None:
    if not link.state.is_connected or link.pool_id is None:
        return
    if turn.facts.unmarkable is not None:
        # To take it is to revoke the commitment before. In a later connection it comes again.
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=UNMARKED))
        return
    try:
        aggnonce = nonce_agg([link.pubnonce, message.pubnonce])
    except InvalidContribution as error:
        raise _bad_pubnonce("pubnonce", message.pubnonce) from error
    if not is_partial_sig(message.partial_sig):
        raise PeerViolation(
            "partial_signature_with_nonce",
            expected="a scalar below the group order",
            received=message.partial_sig,
        )
    content = next_own_content(link.state)
    turn.ask(
        fx.FinishCommitment(
            channel_id=link.channel_id,
            key=link.key,
            pool_id=link.pool_id,
            aggnonce=aggnonce,
            commitment=link.commitment(content, link.own_next_point),
            message=message,
        )
    )


def on_half_made(turn: AnyTurn, event: ev.HalfMade) -> None:
    """Finish our new commitment, remember it, and revoke the one before."""
    link = turn.link(event.asked.channel_id)
    if not link.is_open:
        turn.ask(fx.DropPools(pool_ids=(event.pool.pool_id,)))
        return
    asked = event.asked
    session = asked.commitment.signing_task.session(asked.aggnonce)
    signature = session.partial_sig_agg([event.partial_sig, asked.message.partial_sig])
    try:
        held = finish_commitment(
            asked.commitment, signature=signature, htlc_signatures=asked.message.htlc_signatures
        )
    except PeerViolation as violation:
        turn.ask(fx.DropPools(pool_ids=(event.pool.pool_id,)))
        fail(turn, link, str(violation))
        return
    turn.remember(
        cr.CommitmentFinished(
            channel_id=link.channel_id,
            signature=held.signature,
            htlc_signatures=held.htlc_signatures,
            secret=event.secret,
            next_point=event.next_point,
            pool_id=event.pool.pool_id,
            pubnonce=event.pool.pubnonces[0],
        )
    )
    if link.pool_id is not None:
        turn.ask(fx.DropPools(pool_ids=(link.pool_id,)))
    link = turn.link(link.channel_id)
    turn.send(link.node_id, _revocation(link))


def _revocation(link: Link) -> m.RevokeAndAck:
    if link.last_secret is None:
        raise AssertionError("nothing was revoked")
    return m.RevokeAndAck(
        channel_id=link.channel_id,
        per_commitment_secret=link.last_secret,
        next_per_commitment_point=link.own_next_point,
        next_pubnonce=link.pubnonce,
    )


def _on_revoke_and_ack(turn: AnyTurn, link: Link, message: m.RevokeAndAck) -> None:
    if not link.state.is_connected:
        return
    _check_pubnonce("next_pubnonce", message.next_pubnonce)
    turn.remember(
        cr.RevocationReceived(channel_id=link.channel_id, message=encode_message(message))
    )
    turn.ask(fx.ClearDeadline(deadline=_revocation_deadline(link)))


def on_revocation_deadline(turn: AnyTurn, deadline: fx.RevocationDeadline) -> None:
    """Hang up on a peer that does not answer our signature: what it carries would wait for ever.

    In the next connection both sides tell where the channel stands, and the signature goes again.
    """
    link = turn.book.links.get(deadline.channel_id)
    if link is not None and link.is_open and link.state.awaits_revocation:
        reason = f"no revoke_and_ack for {REVOCATION_SECONDS} seconds"
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=reason))


def _set_revocation_deadline(link: Link) -> fx.SetDeadline:
    return fx.SetDeadline(deadline=_revocation_deadline(link), seconds=REVOCATION_SECONDS)


def _revocation_deadline(link: Link) -> fx.RevocationDeadline:
    return fx.RevocationDeadline(channel_id=link.channel_id)


def _check_pubnonce(field: str, pubnonce: bytes) -> None:
    if not is_pubnonce(pubnonce):
        raise _bad_pubnonce(field, pubnonce)


def _bad_pubnonce(field: str, pubnonce: bytes) -> PeerViolation:
    return PeerViolation(field, expected="two points", received=pubnonce)
