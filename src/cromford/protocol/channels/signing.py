"""`commitment_signed` and `revoke_and_ack` with the peer of a link (BOLT 2).

Every step remembers before it speaks. An update travels together with the `commitment_signed`
that covers it; a commitment is finished and remembered before the one before is revoked. While the
funding is being replaced a commitment is signed for both outpoints, and one revocation is for both.
"""

from typing import Final

from cromford import effects as fx
from cromford.channel.commitment import Funding
from cromford.channel.commits import has_changes, next_own_content, next_signing_due
from cromford.channel.content import CommitmentContent
from cromford.channel.errors import PeerViolation
from cromford.channel.finished import FinishedCommitment, finish_commitment
from cromford.channel.messages import CommitmentDue, Rebase, UpdateAdd, UpdateFulfill
from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.crypto.musig2 import InvalidContribution, is_partial_sig, is_pubnonce, nonce_agg
from cromford.protocol import events as ev
from cromford.protocol.channels.failing import fail
from cromford.protocol.channels.next_signing import check_further_nonce
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.encoding import journalled, message_of
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.revoked import has_many_htlcs
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m

UNMARKED: Final = "no channel can be updated now"
STALE: Final = "the chain is stale: no funding is left now"
OLD_STATE_LANDED: Final = "the leaf's old state is on chain: its channel is not rebased any more"

# BOLT 2 names no bound. Every honest answer takes a round trip; what is added meanwhile waits.
REVOCATION_SECONDS: Final = 30


def covered_updates(link: Link) -> list[m.Message]:
    """Return our updates that the outstanding signature covers, as they were sent before it."""
    covered = link.state.unacked[: link.state.n_signed_updates]
    return [message_of(link.channel_id, update) for update in covered]


def sign_if_due(turn: AnyTurn, link: Link) -> None:
    """Sign the peer's next commitment if there is anything new, and the peer can take it."""
    state = link.state
    if not link.is_open or state.awaits_revocation:
        return
    if is_frozen(link.closes, turn.chain) or link.is_still:
        return
    if _is_finishing(turn, link):
        return  # Our revocation leaves first, so what it acknowledges has to be in what we sign.
    if turn.facts.unmarkable is not None:
        return  # What a mark does not cover may be forgotten: it stays owed.
    if not has_changes(state, state.peer) or _waits_for_fresh_chain(turn, link):
        return
    due = next_signing_due(state)
    parts = parts_of(link, due)
    if parts is None:
        return
    sighashes = [part.commitment.signing_task.sighash for part in parts]
    turn.remember(
        cr.CommitmentIntended(
            channel_id=link.channel_id,
            number=due.content.number,
            sighash=sighashes[0],
            next_sighash=b"".join(sighashes[1:]),
        )
    )
    link = turn.link(link.channel_id)
    sign(turn, link, parts, due, before=tuple(covered_updates(link)), after=())


def _is_finishing(turn: AnyTurn, link: Link) -> bool:
    """Say whether our own next commitment is being finished: we sign once that is answered."""
    return any(
        isinstance(asked.effect, fx.FinishCommitment) and asked.effect.channel_id == link.channel_id
        for asked in turn.asked
    )


def _waits_for_fresh_chain(turn: AnyTurn, link: Link) -> bool:
    """Say whether the next signature would carry what must not be said while the chain is stale.

    That is what was decided when it was fresh, and could not leave: a preimage of an invoice of
    ours, which shows it for the first time, an HTLC that we add, or a rebase, after which the old
    funding is nobody's. It holds up the channel, but never a preimage that is passed back.
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
    return any(isinstance(update, UpdateAdd | Rebase) for update in unsigned)


def parts_of(link: Link, due: CommitmentDue) -> tuple[fx.CommitmentPart, ...] | None:
    """Return the peer's commitment on each funding that it is for, the present one first.

    None where the peer gave no nonce for one of them.
    """
    parts = []
    for funding in link.fundings_of(due.content):
        pubnonce = link.peer_pubnonce
        if link.next is not None and funding == link.next.funding:
            pubnonce = link.next.peer_nonces.get(due.content.number)
        if pubnonce is None:
            return None
        commitment = link.commitment(due.content, due.per_commitment_point, funding)
        parts.append(fx.CommitmentPart(commitment=commitment, pubnonce=pubnonce))
    return tuple(parts)


def sign(
    turn: AnyTurn,
    link: Link,
    parts: tuple[fx.CommitmentPart, ...],
    due: CommitmentDue,
    *,
    before: tuple[m.Message, ...],
    after: tuple[m.Message, ...],
) -> None:
    """Ask for our halves of the peer's commitment; what it says was remembered before."""
    turn.ask(
        fx.SignCommitment(
            channel_id=link.channel_id,
            key=link.key,
            per_commitment_point=due.per_commitment_point,
            parts=parts,
            before=before,
            after=after,
        )
    )


def on_commitment_made(turn: AnyTurn, event: ev.CommitmentMade) -> None:
    """Send the updates, our half of the peer's commitment, and what goes after it."""
    link = turn.link(event.asked.channel_id)
    if not link.is_open:
        return
    first, *others = event.parts
    fundings = [part.commitment.funding for part in event.asked.parts[1:]]
    signed = m.CommitmentSigned(
        channel_id=link.channel_id,
        pubnonce=first.pubnonce,
        partial_sig=first.partial_sig,
        htlc_signatures=first.htlc_signatures,
        further=tuple(
            m.FurtherPart(
                funding_txid=funding.outpoint.txid,
                pubnonce=part.pubnonce,
                partial_sig=part.partial_sig,
                htlc_signatures=part.htlc_signatures,
            )
            for funding, part in zip(fundings, others, strict=True)
        ),
    )
    for message in (*event.asked.before, signed, *event.asked.after):
        turn.send(link.node_id, message)
    turn.ask(set_revocation_deadline(link))


def on_commitment_signed(turn: AnyTurn, link: Link, message: m.CommitmentSigned) -> None:
    """Take the peer's halves of our next commitment: on every funding that it is for, or on none.

    Raises:
        PeerViolation: If it must not sign now, or a part is missing, too many, or malformed.
    """
    if not link.state.is_connected or link.pool_id is None:
        return
    if turn.facts.unmarkable is not None:
        # To take it is to revoke the commitment before. In a later connection it comes again.
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=UNMARKED, is_ours=True))
        return
    link.check_may_act("commitment_signed")
    content = next_own_content(link.state)
    if content.is_rebased and not link.state.content(link.me, Edition.SIGNED).is_rebased:
        if not turn.facts.is_fresh:
            turn.ask(fx.Disconnect(node_id=link.node_id, reason=STALE, is_ours=True))
            return
        check_may_rebase(turn, link)
    turn.ask(
        fx.FinishCommitment(
            channel_id=link.channel_id,
            key=link.key,
            parts=_own_parts(link, content, message),
            message=message,
            after=link.pool_id,
            n_nonces=_n_nonces_after(link, content),
        )
    )


def check_may_rebase(turn: AnyTurn, link: Link) -> None:
    """Check that the old state is not what confirmed, before the last claim on it is given away.

    Raises:
        PeerViolation: If it is; nobody broke a rule, but the channel cannot go on.
    """
    if link.present.outpoint.txid in turn.chain.confirmed:
        raise PeerViolation("update_rebase", expected="none any more", received=OLD_STATE_LANDED)


def _own_parts(
    link: Link, content: CommitmentContent, message: m.CommitmentSigned
) -> tuple[fx.OwnPart, ...]:
    fundings = link.fundings_of(content)
    awaited = [funding.outpoint.txid for funding in fundings[1:]]
    received = [part.funding_txid for part in message.further]
    if received != awaited:
        raise PeerViolation(
            "further",
            expected=[txid.hex() for txid in awaited],
            received=[txid.hex() for txid in received],
        )
    halves = ((message.pubnonce, message.partial_sig), *_further_halves(message))
    return tuple(
        _own_part(link, content, funding, half)
        for funding, half in zip(fundings, halves, strict=True)
    )


def _further_halves(message: m.CommitmentSigned) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((part.pubnonce, part.partial_sig) for part in message.further)


def _own_part(
    link: Link, content: CommitmentContent, funding: Funding, half: tuple[bytes, bytes]
) -> fx.OwnPart:
    pubnonce, partial_sig = half
    own = link.own_nonce(funding, content.number)
    if own is None:
        raise PeerViolation("commitment_signed", expected="our nonce first", received="none")
    try:
        aggnonce = nonce_agg([own.pubnonce, pubnonce])
    except InvalidContribution as error:
        raise bad_pubnonce("pubnonce", pubnonce) from error
    if not is_partial_sig(partial_sig):
        raise PeerViolation(
            "partial_signature_with_nonce",
            expected="a scalar below the group order",
            received=partial_sig,
        )
    return fx.OwnPart(
        pool_id=own.pool_id,
        nonce_index=own.index,
        aggnonce=aggnonce,
        commitment=link.commitment(content, link.own_next_point, funding),
    )


def _n_nonces_after(link: Link, content: CommitmentContent) -> int:
    """Return how many fundings our commitment after this one may be for.

    The LSP, which offered the rebase, is over with it as it revokes what was before.
    """
    is_over = content.is_rebased and link.me is Party.OPENER
    return 1 if link.next is None or not link.next.is_dual or is_over else 2


def on_half_made(turn: AnyTurn, event: ev.HalfMade) -> None:
    """Finish our new commitment, remember it, and revoke the one before."""
    link = turn.link(event.asked.channel_id)
    if not link.is_open:
        turn.ask(fx.DropPools(pool_ids=(event.pool.pool_id,)))
        return
    try:
        held = _finished(event)
    except PeerViolation as violation:
        turn.ask(fx.DropPools(pool_ids=(event.pool.pool_id,)))
        fail(turn, link, str(violation))
        return
    following = held[1] if len(held) > 1 else None
    turn.remember(
        cr.CommitmentFinished(
            channel_id=link.channel_id,
            signature=held[0].signature,
            htlc_signatures=held[0].htlc_signatures,
            secret=event.secret,
            next_point=event.next_point,
            pool_id=event.pool.pool_id,
            pubnonce=event.pool.pubnonces[0],
            next_signature=b"" if following is None else following.signature,
            next_htlc_signatures=() if following is None else following.htlc_signatures,
            next_pubnonce=b"".join(event.pool.pubnonces[1:]),
        )
    )
    before, link = link, turn.link(link.channel_id)
    used_up = tuple(pool_id for pool_id in before.pool_ids if pool_id not in link.pool_ids)
    turn.ask(fx.DropPools(pool_ids=used_up))
    turn.send(link.node_id, revocation(link))


def _finished(event: ev.HalfMade) -> list[FinishedCommitment]:
    asked, message = event.asked, event.asked.message
    theirs = [
        (message.partial_sig, message.htlc_signatures),
        *((part.partial_sig, part.htlc_signatures) for part in message.further),
    ]
    finished = []
    for part, own, (partial_sig, htlc_signatures) in zip(
        asked.parts, event.partial_sigs, theirs, strict=True
    ):
        session = part.commitment.signing_task.session(part.aggnonce)
        signature = session.partial_sig_agg([own, partial_sig])
        finished.append(
            finish_commitment(part.commitment, signature=signature, htlc_signatures=htlc_signatures)
        )
    return finished


def revocation(link: Link) -> m.RevokeAndAck:
    """Return what revokes our commitment before the latest, with our nonces for what comes next."""
    if link.last_secret is None:
        raise AssertionError("nothing was revoked")
    return m.RevokeAndAck(
        channel_id=link.channel_id,
        per_commitment_secret=link.last_secret,
        next_per_commitment_point=link.own_next_point,
        next_pubnonce=link.pubnonce,
        further=_further_nonces(link),
    )


def _further_nonces(link: Link) -> tuple[m.FurtherNonce, ...]:
    following = link.next
    if following is None or not following.is_dual:
        return ()
    own = following.own_nonces.get(link.state.own_signed + 1)
    if own is None:
        return ()
    funding_txid = following.funding.outpoint.txid
    return (m.FurtherNonce(funding_txid=funding_txid, pubnonce=own.pubnonce),)


def on_revoke_and_ack(turn: AnyTurn, link: Link, message: m.RevokeAndAck) -> None:
    """Take the peer's revocation of its commitment before the latest.

    Raises:
        PeerViolation: If nothing was to be revoked, or it brings a wrong secret, point or nonce.
    """
    if not link.state.is_connected:
        return
    check_pubnonce("next_pubnonce", message.next_pubnonce)
    for further in message.further:
        check_pubnonce("further.pubnonce", further.pubnonce)
    check_further_nonce(link, message)
    revoked = cr.RevocationReceived(
        channel_id=link.channel_id,
        message=journalled(message),
        names_htlcs=link.peer_unrevoked is not None and has_many_htlcs(link.peer_unrevoked),
    )
    turn.remember(revoked)
    turn.ask(fx.ClearDeadline(deadline=_revocation_deadline(link)))


def on_revocation_deadline(turn: AnyTurn, deadline: fx.RevocationDeadline) -> None:
    """Hang up on a peer that does not answer our signature: what it carries would wait for ever.

    In the next connection both sides tell where the channel stands, and the signature goes again.
    Where there is none as long again, HTLCs that wait behind it are taken back. They never left, so
    their payers wait no longer for a peer that may never come back; once for each of these times,
    however often it comes and goes.
    """
    link = turn.book.links.get(deadline.channel_id)
    if link is None or not (link.takes_updates and link.state.awaits_revocation):
        return
    if link.is_open:
        reason = f"no revoke_and_ack for {REVOCATION_SECONDS} seconds"
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=reason))
        turn.ask(set_revocation_deadline(link))
    elif link.unsent:
        first_id = link.unsent[0].htlc.htlc_id
        turn.remember(
            cr.AddsTakenBack(channel_id=link.channel_id, htlc_id=first_id, waits_again=True)
        )


def set_revocation_deadline(link: Link) -> fx.SetDeadline:
    """Return the wish to hang up if the peer does not answer our signature in time."""
    return fx.SetDeadline(deadline=_revocation_deadline(link), seconds=REVOCATION_SECONDS)


def _revocation_deadline(link: Link) -> fx.RevocationDeadline:
    return fx.RevocationDeadline(channel_id=link.channel_id)


def check_pubnonce(field: str, pubnonce: bytes) -> None:
    """Check that a peer's public nonce is one.

    Raises:
        PeerViolation: If it is not.
    """
    if not is_pubnonce(pubnonce):
        raise bad_pubnonce(field, pubnonce)


def bad_pubnonce(field: str, pubnonce: bytes) -> PeerViolation:
    """Return the violation of a public nonce that is none."""
    return PeerViolation(field, expected="two points", received=pubnonce)
