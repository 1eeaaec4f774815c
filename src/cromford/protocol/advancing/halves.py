"""The peer's half of our latest commitment on a next funding: asked for, checked, held."""

from cromford import effects as fx
from cromford.channel.errors import PeerViolation
from cromford.channel.finished import finish_commitment
from cromford.crypto.musig2 import InvalidContribution, is_partial_sig, nonce_agg
from cromford.protocol import events as ev
from cromford.protocol.advancing.making import own_latest
from cromford.protocol.channels.signing import bad_pubnonce
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import NextFunding
from cromford.wire import messages as m
from cromford.wire.selling import NextHalf


def finish_half(
    link: Link,
    following: NextFunding,
    halves: tuple[NextHalf, ...],
    message: m.AdvanceCommit | m.AdvanceSign,
) -> fx.FinishNext | None:
    """Return the wish to finish our latest commitment on the next funding with the peer's half.

    None where we hold it already, and nothing was to come.

    Raises:
        PeerViolation: If a half is missing, not for our latest, not awaited, or malformed.
    """
    number = link.state.own_signed
    is_held = following.own is not None and following.own.number == number
    if not halves:
        if following.is_dual or is_held:
            return None
        raise PeerViolation("half", expected=f"for commitment {number}", received="none")
    (half,) = halves
    if is_held:
        return None
    if half.number != number:
        raise PeerViolation("half.number", expected=number, received=half.number)
    own = following.own_nonces.get(number)
    if own is None or not (following.is_dual or following.is_agreed):
        raise PeerViolation("half", expected="our nonce first", received="one")
    try:
        aggnonce = nonce_agg([own.pubnonce, half.pubnonce])
    except InvalidContribution as error:
        raise bad_pubnonce("half.pubnonce", half.pubnonce) from error
    if not is_partial_sig(half.partial_sig):
        raise PeerViolation(
            "half.partial_sig", expected="a scalar below the group order", received=half.partial_sig
        )
    return fx.FinishNext(
        channel_id=link.channel_id,
        attempt_id=link.attempt_id,
        advance_id=following.advance_id,
        key=link.key,
        pool_id=own.pool_id,
        nonce_index=own.index,
        aggnonce=aggnonce,
        commitment=own_latest(link),
        half=half,
        message=message,
    )


def held_next(event: ev.NextHalfMade) -> ar.NextCommitmentHeld:
    """Return the record that we hold our latest commitment on the next funding.

    Raises:
        PeerViolation: If a signature of the peer's is missing, or not valid.
    """
    asked = event.asked
    session = asked.commitment.signing_task.session(asked.aggnonce)
    finished = finish_commitment(
        asked.commitment,
        signature=session.partial_sig_agg([asked.half.partial_sig, event.partial_sig]),
        htlc_signatures=asked.half.htlc_signatures,
    )
    return ar.NextCommitmentHeld(
        channel_id=asked.channel_id,
        number=asked.commitment.content.number,
        signature=finished.signature,
        htlc_signatures=finished.htlc_signatures,
    )


def still_awaits(link: Link, event: ev.NextHalfMade) -> bool:
    """Say whether a finished half is of our latest commitment still, on the same funding."""
    following = link.next
    if following is None or following.advance_id != event.asked.advance_id:
        return False
    number = event.asked.commitment.content.number
    is_held = following.own is not None and following.own.number >= number
    return number == link.state.own_signed and not is_held
