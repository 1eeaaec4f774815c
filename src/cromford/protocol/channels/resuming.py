"""A channel in a new connection: what is told, what the peer tells, what is sent again (BOLT 2).

While its funding is being replaced both sides also tell how far they are with that: what the peer
lacks of a next funding goes first, then what BOLT 2 sends again.
"""

from typing import Final

from cromford import effects as fx
from cromford.channel.errors import FallenBehind, PeerViolation
from cromford.channel.messages import CommitmentDue, Outgoing, RevocationDue
from cromford.channel.reestablish import (
    claims_lost_state,
    disconnect,
    receive_reestablish,
    reestablish_message,
)
from cromford.channel.secret_store import N_COMMITMENTS_MAX
from cromford.protocol import events as ev
from cromford.protocol.channels.failing import fail
from cromford.protocol.channels.next_signing import (
    check_next_stage,
    hand_in_latest,
    is_void,
    next_stage,
)
from cromford.protocol.channels.signing import (
    check_pubnonce,
    covered_updates,
    parts_of,
    revocation,
    set_revocation_deadline,
    sign,
)
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.encoding import decoded, reestablish_of
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import POISONS_HELD, NextFunding
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
VOID: Final = "the leaf's old state is on chain, and its poisons were given away"


def prepare(turn: AnyTurn, link: Link) -> None:
    """Begin with a link in this connection: a fresh nonce, then `channel_reestablish`.

    Even where the channel is over: a peer that lost state must learn it, or it would publish a
    commitment that it has revoked (BOLT 2).
    """
    if link.pool_id is None:
        turn.ask(
            fx.PrepareNonce(channel_id=link.channel_id, key=link.key, n_next=len(link.next_numbers))
        )


def on_nonce_prepared(turn: AnyTurn, event: ev.NoncePrepared) -> None:
    """Tell the peer where we believe the channel stands."""
    pool = event.pool
    link = turn.link(event.asked.channel_id)
    early = link.early_reestablish
    if len(pool.pubnonces) != 1 + len(link.next_numbers):
        # What is under way became another while the signer was asked.
        turn.ask(fx.DropPools(pool_ids=(pool.pool_id,)))
        prepare(turn, link)
        return
    turn.remember(
        cr.ChannelPrepared(
            channel_id=event.asked.channel_id,
            pool_id=pool.pool_id,
            pubnonce=pool.pubnonces[0],
            next_pubnonces=pool.pubnonces[1:],
            is_void=is_void(link, turn.chain),
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
            advance=next_stage(link),
        ),
    )
    if early and link.failure is None:
        try:
            on_reestablish(turn, link, decoded(early, m.ChannelReestablish))
        except PeerViolation as violation:
            fail(turn, link, str(violation))


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


def on_reestablish(turn: AnyTurn, link: Link, message: m.ChannelReestablish) -> None:
    """Hear where the peer believes that the channel stands.

    Raises:
        PeerViolation: If what it says cannot be.
    """
    if link.awaits_nonce and not link.early_reestablish:
        data = encode_message(message)
        turn.remember(cr.NonceAwaited(channel_id=link.channel_id, reestablish=data))
    if link.pool_id is None or link.state.is_connected:
        return
    if turn.facts.unmarkable is not None:
        return  # What would go again is not marked either. The daemon begins connections anew.
    check_pubnonce("next_pubnonce", message.next_pubnonce)
    for told in message.advance:
        for one in told.nonces:
            check_pubnonce("advance.nonces", one.pubnonce)
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
    check_next_stage(link, message)
    turn.remember(
        cr.ChannelReestablished(
            channel_id=link.channel_id,
            message=encode_message(message),
            own_point=own_point or b"",
        )
    )
    link = turn.link(link.channel_id)
    following = link.next
    if following is not None and _is_void_for_both(following, message):
        if following.stage >= POISONS_HELD or link.state.rebase is not None:
            fail(turn, link, VOID)
            return
        turn.remember(ar.NextFundingVoid(channel_id=link.channel_id))
        link = turn.link(link.channel_id)
    if link.state.awaits_revocation:
        # Its answer may be what was lost, and then our signature does not go again.
        turn.ask(set_revocation_deadline(link))
    hand_in_latest(turn, link, message)
    _resend(turn, link, resumption.resend)


def _is_void_for_both(following: NextFunding, message: m.ChannelReestablish) -> bool:
    """Say whether both sides said, in this connection, that the old state is six deep.

    Whatever the peer says of an advance was checked to be of this one.
    """
    return following.said_void and bool(message.advance) and bool(message.advance[0].is_void)


def _resend(turn: AnyTurn, link: Link, resend: tuple[Outgoing, ...]) -> None:
    """Send again what the peer may lack, in the order in which it was first sent.

    Updates that no signature covers yet are left: they travel with the next one.

    Raises:
        PeerViolation: If the peer gave no nonce for what it lacks.
        DoubleSigning: If it would be another sighash than before.
    """
    before: list[m.Message] = []
    due: CommitmentDue | None = None
    after: list[m.Message] = []
    for outgoing in resend:
        match outgoing:
            case RevocationDue():
                (before if due is None else after).append(revocation(link))
            case CommitmentDue():
                due = outgoing
                before += covered_updates(link)
            case _:
                continue
    if due is None:
        for message in before:
            turn.send(link.node_id, message)
        return
    parts = parts_of(link, due)
    number = due.content.number
    if parts is None:
        raise PeerViolation("nonces", expected=f"one for commitment {number}", received="none")
    known = [link.signed_sighash]
    if link.next is not None:
        known.append(link.next.given.get(number, b""))
    if any(part.commitment.signing_task.sighash not in known for part in parts):
        raise DoubleSigning(f"commitment {number} of {link.channel_id.hex()}")
    sign(turn, link, parts, due, before=tuple(before), after=tuple(after))
