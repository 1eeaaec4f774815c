"""Channels of a store that was put back from a backup: they sign nothing but a close.

A marked channel shows no number of its own to a peer whose store is whole: it hears where that one
says the channel stands, and asks it to close, or to publish its commitment (BOLT 2, data loss). No
answer takes the mark away, because a peer that lies answers with the backup's own numbers.

Where both sides are marked, nobody's store is the newest for sure. Both bind themselves to what
they have, then both show it, the LSP first, and the later one is what both close at. Whoever is
ahead proves it by a signature that the other one gave; the signature itself stays hidden, because
the commitment it belongs to may be revoked, and whoever had both could publish and punish it.
"""

from dataclasses import replace
from typing import Final

from cromford.channel.commitment import Funding, UnpayableFee
from cromford.channel.content import CommitmentContent
from cromford.channel.errors import PeerViolation
from cromford.channel.secret_store import N_COMMITMENTS_MAX
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.crypto.keys import TaggedHash, is_pubkey
from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.crypto.signature_proof import is_proved, nonce_of, prove
from cromford.protocol.channels.failing import end_updates, fail
from cromford.protocol.channels.resuming import heed_lost_state, prepare, recall_point
from cromford.protocol.channels.steps import on_message
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

# Said to the operator and to the peer.
PEER_MARKED: Final = (
    "the peer's store was restored from a backup: the channel can be closed, or our commitment "
    "pays both of us"
)
HTLCS_PENDING: Final = (
    "both stores were restored from backups, and an HTLC is pending: they cannot be compared"
)
NOTHING_TO_SHOW: Final = bytes(32)  # Of a store in which an HTLC is pending.
_hash_revealed: Final = TaggedHash("cromford/mark")


def is_marked(link: Link) -> bool:
    """Say whether a channel's store was restored, and nothing but a close may be signed for it."""
    return link.mark is not None


def least_close_msat(link: Link) -> int:
    """Return the least balance, in msat, at which our store may agree to close a channel.

    What both stores found, if both were restored. Else all that may be ours by our own store: the
    balance, HTLCs that we offered unless their preimage was shown, and those that we took.
    The price of a growth is the LSP's once our own commitment pays it: no claim of ours is without.
    """
    if link.mark is not None and link.mark.agreed_msat is not None:
        return link.mark.agreed_msat
    state = link.state
    own_msat = state.opener_msat if state.me is Party.OPENER else state.accepter_msat
    for live in state.htlcs:
        if live.is_paid:
            sign = -1 if live.htlc.offered_by is state.me else 1
            own_msat += sign * live.htlc.amount_msat
    rebase = state.rebase
    if rebase is not None and rebase.is_on(state.me, Edition.SIGNED):
        own_msat -= rebase.price_msat  # Only a client's: the LSP is over with it as it has it.
    return own_msat


def begin(turn: AnyTurn, link: Link) -> None:
    """Begin with a channel in this connection.

    A marked LSP says so at once. A marked client hears its LSP first: what that one says of the
    channel then, it says without knowing that it could lie.
    """
    if link.mark is None:
        prepare(turn, link)
    elif link.me is Party.OPENER:
        _tell(turn, link, revealed(link))


def take_message(turn: AnyTurn, link: Link, message: m.ChannelMessage | m.MarkMessage) -> None:
    """Take what a peer says of a channel, marked or not."""
    try:
        match message:
            case m.StoreMarked():
                _on_store_marked(turn, link, message)
            case m.MarkRevealed():
                _on_revealed(turn, link, message)
            case _ if link.mark is None:
                on_message(turn, link, message)
            case _:
                _heed(turn, link, message)
    except PeerViolation as violation:
        _refuse(turn, link, str(violation))


def _heed(turn: AnyTurn, link: Link, message: m.ChannelMessage) -> None:
    """Hear where a peer says that a marked channel stands. No update is taken.

    A proof that we lost state counts; that nothing contradicts our store proves nothing.
    """
    match message:
        case m.ChannelReestablish():
            heed_lost_state(turn, link, message)
            recall_point(turn, link, message)
            if link.me is Party.ACCEPTER:
                _tell(turn, link, revealed(link))
        case m.ChannelFailure(reason=reason):
            end_updates(turn, link, f"the peer: {reason}", tells_peer=False)
        case _:
            return


def _on_store_marked(turn: AnyTurn, link: Link, message: m.StoreMarked) -> None:
    """Remember that a peer is marked, or says so.

    One that lies gains nothing: it could have ended the channel by a word anyway, and our
    commitment is published only where its output is on chain.
    """
    known = None if link.mark is None else link.mark.peer_hash
    if known and message.revealed_hash != known:
        # Else it could see what we reveal, and bind itself anew to what suits it.
        raise PeerViolation("revealed_hash", expected=known, received=message.revealed_hash)
    if known == b"" or not link.peer_is_behind:
        turn.remember(cr.PeerMarked(channel_id=link.channel_id, peer_hash=message.revealed_hash))
    if link.mark is None:
        _refuse(turn, turn.link(link.channel_id), PEER_MARKED)
        return
    told = revealed(link)
    if told is None or message.revealed_hash == NOTHING_TO_SHOW:
        _refuse(turn, turn.link(link.channel_id), HTLCS_PENDING)
    elif link.me is Party.ACCEPTER:
        _tell(turn, link, told)
    else:
        turn.send(link.node_id, told)


def _on_revealed(turn: AnyTurn, link: Link, message: m.MarkRevealed) -> None:
    if link.mark is None or not link.mark.peer_hash:
        return
    if hash_of(message) != link.mark.peer_hash:
        raise PeerViolation(
            "revealed_hash", expected=link.mark.peer_hash, received=hash_of(message)
        )
    if link.mark.agreed_msat is None:
        own_msat = agreed_msat(link, message)
        turn.remember(
            cr.MarksCompared(
                channel_id=link.channel_id, message=encode_message(message), own_msat=own_msat
            )
        )
    told = revealed(link) if link.me is Party.ACCEPTER else None
    if told is not None:
        turn.send(link.node_id, told)


def _refuse(turn: AnyTurn, link: Link, reason: str) -> None:
    """End the updates of a channel, or say once more that they ended."""
    if link.failure is None:
        fail(turn, link, reason)
    else:
        turn.send(link.node_id, m.ChannelFailure(channel_id=link.channel_id, reason=link.failure))


def _tell(turn: AnyTurn, link: Link, told: m.MarkRevealed | None) -> None:
    bound = NOTHING_TO_SHOW if told is None else hash_of(told)
    turn.send(link.node_id, m.StoreMarked(channel_id=link.channel_id, revealed_hash=bound))


def hash_of(told: m.MarkRevealed) -> bytes:
    """Return what binds a store to what it reveals. The proof in it is nobody's to guess."""
    return _hash_revealed(encode_message(told))


def revealed(link: Link) -> m.MarkRevealed | None:
    """Return where our store says that a channel stands; None while an HTLC is pending in it.

    The same whenever it is asked: a marked channel does not change.
    """
    content = link.finished.commitment.content
    if content.htlcs:
        return None
    told = m.MarkRevealed(
        channel_id=link.channel_id,
        commitment_number=content.number,
        peer_number=link.state.peer_signed,
        opener_msat=content.opener_msat,
        accepter_msat=content.accepter_msat,
        per_commitment_point=link.own_point,
        nonce=nonce_of(link.signature),
        proof=bytes(SIGNATURE_SIZE),
    )
    return replace(told, proof=prove(link.signature, encode_message(told)))


def agreed_msat(link: Link, told: m.MarkRevealed) -> int:
    """Return what is ours, in msat, by the later of our store and what a marked peer revealed.

    Raises:
        PeerViolation: If what it says cannot be, or neither store is the later one.
    """
    theirs = _proved(link, told)
    ours = link.finished.commitment.content
    state = link.state
    if ours.htlcs:
        raise PeerViolation("htlcs", expected="none in either store", received=len(ours.htlcs))
    # What one signed for the other, and the other one does not have, was lost with its end.
    they_lost = told.commitment_number < state.peer_signed or told.peer_number < state.own_signed
    we_lost = told.commitment_number > state.peer_signed or told.peer_number > state.own_signed
    if they_lost and we_lost:
        raise PeerViolation(
            "commitment_number",
            expected=f"one store to be the later one than {state.peer_signed}, {state.own_signed}",
            received=f"{told.commitment_number}, {told.peer_number}",
        )
    if not (they_lost or we_lost) and ours.accepter_msat != theirs.accepter_msat:
        raise PeerViolation(
            "accepter_msat", expected=ours.accepter_msat, received=theirs.accepter_msat
        )
    return (theirs if we_lost else ours).balance_msat(state.me)


def _proved(link: Link, told: m.MarkRevealed) -> CommitmentContent:
    """Return what the peer's latest commitment says, after checking that we signed it.

    Raises:
        PeerViolation: If it does not prove it.
    """
    state = link.state
    fundings = _fundings_of(link, told.opener_msat + told.accepter_msat)
    if not fundings:
        total_msat = link.present.capacity_sat * MSAT_PER_SAT
        raise PeerViolation(
            "opener_msat", expected=total_msat - told.accepter_msat, received=told.opener_msat
        )
    if told.commitment_number >= N_COMMITMENTS_MAX:
        raise PeerViolation(
            "commitment_number",
            expected=f"below {N_COMMITMENTS_MAX}",
            received=told.commitment_number,
        )
    if not is_pubkey(told.per_commitment_point):
        raise PeerViolation(
            "per_commitment_point",
            expected="a point on the curve",
            received=told.per_commitment_point,
        )
    content = CommitmentContent(
        holder=state.peer,
        number=told.commitment_number,
        opener_msat=told.opener_msat,
        accepter_msat=told.accepter_msat,
    )
    if not any(_is_proved_on(link, funding, content, told) for funding in fundings):
        raise PeerViolation(
            "proof",
            expected=f"that of our signature of commitment {told.commitment_number}",
            received=told.proof,
        )
    latest = state.content(state.peer, Edition.SIGNED)
    if content.number == latest.number and content.accepter_msat != latest.accepter_msat:
        raise PeerViolation(
            "accepter_msat", expected=latest.accepter_msat, received=told.accepter_msat
        )
    return content


def _fundings_of(link: Link, total_msat: int) -> list[Funding]:
    """Return the fundings that hold so much: the stores may be on either side of an advance."""
    return [one for one in link.fundings if one.capacity_sat * MSAT_PER_SAT == total_msat]


def _is_proved_on(
    link: Link, funding: Funding, content: CommitmentContent, told: m.MarkRevealed
) -> bool:
    try:
        commitment = link.commitment(content, told.per_commitment_point, funding)
    except UnpayableFee as error:
        raise PeerViolation(
            "opener_msat", expected="fee and anchor", received=str(error)
        ) from error
    return is_proved(
        told.proof,
        encode_message(replace(told, proof=bytes(SIGNATURE_SIZE))),
        nonce=told.nonce,
        digest=commitment.signing_task.sighash,
        xonly_pubkey=funding.key_agg.output_key,
    )
