"""How one channel changes by what is remembered of it: messages, commitments, a next funding."""

from dataclasses import replace

from immutables import Map

from cromford.changed import changed
from cromford.channel.commits import (
    Settlement,
    receive_commitment,
    receive_revocation,
    revoke,
    sign_commitment,
)
from cromford.channel.content import CommitmentContent
from cromford.channel.messages import (
    HtlcUpdate,
    Rebase,
    Update,
    UpdateAdd,
    UpdateFail,
    UpdateFulfill,
)
from cromford.channel.rebase import propose_rebase, receive_rebase, reserve
from cromford.channel.reestablish import disconnect, receive_reestablish
from cromford.channel.stage import Edition
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.channel.updates import (
    propose_add,
    propose_fail,
    propose_fulfill,
    receive_update,
    take_back_adds,
)
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.encoding import decoded, reestablish_of
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import (
    SIGNED,
    UNSAID,
    HeldCommitment,
    NextFunding,
    OwnNonce,
)
from cromford.watch.coverage import fuller, fullest_in
from cromford.wire import messages as m


def disconnected(link: Link) -> Link:
    """Return the link after its connection ended: nonces and unsigned updates are gone."""
    state, following = disconnect(link.state), link.next
    if following is not None and following.stage < SIGNED:
        following = None  # Nothing of it was signed: the LSP begins with it anew.
    if following is None:
        state = reserve(state, 0)
    else:
        following = changed(
            following,
            own_nonces=Map(),
            peer_nonces=Map(),
            said_void=False,
            is_agreed=False,
            peer_stage=UNSAID,
            is_leaving=False,
            session_pool=b"",
        )
    return changed(
        link,
        state=state,
        pool_id=None,
        nonce_index=0,
        awaits_nonce=False,
        early_reestablish=b"",
        pubnonce=b"",
        peer_pubnonce=None,
        quiet_for=b"",
        next=following,
    )


def applied(link: Link, record: cr.StepRecord) -> tuple[Link, Settlement | None]:
    """Return the link after a record, and what a revocation made final."""
    match record:
        case cr.CommitmentIntended():
            return _with_intended(link, record), None
        case cr.CommitmentFinished():
            return _with_held(link, record)
        case cr.RevocationReceived(message=data, names_htlcs=names_htlcs):
            archived = _with_archived(link) if names_htlcs else link
            return _with_revocation(archived, decoded(data, m.RevokeAndAck))
        case cr.ChannelPrepared():
            return _with_prepared(link, record), None
        case cr.NonceAwaited(reestablish=data):
            return changed(link, awaits_nonce=True, early_reestablish=data), None
        case cr.ChannelReestablished(message=data, own_point=own_point):
            message = decoded(data, m.ChannelReestablish)
            resumption = receive_reestablish(
                link.state, reestablish_of(message), own_point=own_point or None
            )
            return _with_told(changed(link, state=resumption.state), message), None
        case cr.AddsTakenBack(htlc_id=htlc_id):
            return changed(link, state=take_back_adds(link.state, htlc_id)), None
        case cr.ChannelFailed(reason=reason, height=height, is_behind=is_behind):
            since = height if link.failed_height is None else link.failed_height
            failed = changed(link, failure=reason, failed_height=since, is_behind=is_behind)
            return failed, None
        case cr.PeerLostState():
            return changed(link, peer_is_behind=True), None
        case cr.BreachFound(content=content):
            return changed(link, breach=content), None
        case cr.PeerMarked(peer_hash=peer_hash):
            mark = None if link.mark is None else replace(link.mark, peer_hash=peer_hash)
            return changed(link, peer_is_behind=True, mark=mark), None
        case cr.MarksCompared(own_msat=own_msat):
            if link.mark is None:
                raise AssertionError("marks were compared on a channel that has none")
            return changed(link, mark=replace(link.mark, agreed_msat=own_msat)), None
        case cr.StaleAllowed():
            return changed(link, publishes_stale=True), None
        case ar.NextCommitmentIntended(number=number, sighash=sighash):
            given = _with_given(link, number, sighash)
            signed = link.state.content(link.state.peer, Edition.SIGNED)
            return _with_fuller_next(_with_more_said(given), signed), None
        case ar.NextCommitmentHeld():
            return _with_next_held(link, record), None
        case ar.NextFundingVoid():
            return changed(link, state=reserve(link.state, 0), next=None), None


def with_update(link: Link, update: Update, *, is_ours: bool) -> Link:
    """Return the link after an update that we propose, or received."""
    state = link.state
    if isinstance(update, Rebase):
        after = propose_rebase(state, update) if is_ours else receive_rebase(state, update)
    else:
        after = _with_proposed(state, update) if is_ours else receive_update(state, update)
    return changed(link, state=after)


def _with_proposed(state: ChannelState, update: HtlcUpdate) -> ChannelState:
    match update:
        case UpdateAdd():
            after, _ = propose_add(
                state,
                amount_msat=update.amount_msat,
                payment_hash=update.payment_hash,
                cltv_expiry=update.cltv_expiry,
                payload=update.payload,
            )
            return after
        case UpdateFulfill():
            return propose_fulfill(state, update.htlc_id, update.preimage)[0]
        case UpdateFail():
            return propose_fail(state, update.htlc_id, update.reason)[0]


def _with_prepared(link: Link, record: cr.ChannelPrepared) -> Link:
    following = link.next
    if following is not None:
        nonces = {
            number: OwnNonce(pool_id=record.pool_id, index=index, pubnonce=pubnonce)
            for index, (number, pubnonce) in enumerate(
                zip(link.next_numbers, record.next_pubnonces, strict=True), start=1
            )
        }
        following = changed(following, own_nonces=Map(nonces), said_void=record.is_void)
    return changed(
        link,
        awaits_nonce=False,
        early_reestablish=b"",
        pool_id=record.pool_id,
        nonce_index=0,
        pubnonce=record.pubnonce,
        next=following,
    )


def _with_told(link: Link, message: m.ChannelReestablish) -> Link:
    """Return the link with the peer's nonces, and what it says of an advance."""
    link = changed(link, peer_pubnonce=message.next_pubnonce)
    told = message.advance[0] if message.advance else None
    nonces = {} if told is None else {one.number: one.pubnonce for one in told.nonces}
    if told is not None and told.funding_txid == link.present.outpoint.txid:
        # We are rebased onto what is the next funding to the peer.
        pubnonce = nonces.get(message.next_commitment_number, message.next_pubnonce)
        return changed(link, peer_pubnonce=pubnonce)
    following = link.next
    if following is None:
        return link
    stage = 0
    if told is not None and told.advance_id == following.advance_id:
        stage = told.stage
        following = changed(following, peer_nonces=Map(nonces))
    following = changed(following, peer_stage=stage)
    state = link.state
    if link.me is Party.OPENER:
        if stage > 0:
            following = changed(following, is_dual=True)
            state = reserve(state, following.price_msat)  # Whatever it said in between.
        elif not following.is_dual:
            state = reserve(state, 0)  # Until it agrees again.
    return changed(link, state=state, next=following)


def _with_given(link: Link, number: int, sighash: bytes) -> Link:
    following = link.next
    if following is None:
        raise AssertionError("there is no next funding")
    if following.given.get(number, sighash) != sighash:
        raise DoubleSigning(f"commitment {number} on the next funding")
    kept = {known: digest for known, digest in following.given.items() if known >= number - 1}
    return changed(link, next=changed(following, given=Map({**kept, number: sighash})))


def _with_more_said(link: Link) -> Link:
    """Return the link once the peer may sign: what it said of its stage counts no more."""
    following = link.next
    return link if following is None else changed(link, next=changed(following, peer_stage=UNSAID))


def _with_next_held(link: Link, record: ar.NextCommitmentHeld) -> Link:
    following = link.next
    if following is None or record.number != link.state.own_signed:
        raise AssertionError(f"commitment {record.number} is not our latest on a next funding")
    own = HeldCommitment(
        number=record.number,
        signature=record.signature,
        htlc_signatures=record.htlc_signatures,
    )
    held = changed(link, next=changed(following, own=own))
    return _with_fuller_next(held, link.state.content(link.me, Edition.SIGNED))


def _with_fuller(link: Link, content: CommitmentContent) -> Link:
    """Return the link after a commitment was signed, on every funding that it is for.

    The client knows of the LSP's as it is about to sign it, the LSP as it holds it.
    """
    if content.holder is not Party.OPENER:
        return link
    fundings, terms = link.fundings_of(content), link.setting.terms
    if link.fullest is not None and link.present in fundings:
        now = fuller(link.fullest, fullest_in(content, terms), terms)
        link = changed(link, fullest=now)
    is_next = link.next is not None and link.next.funding in fundings
    return _with_fuller_next(link, content) if is_next else link


def _with_fuller_next(link: Link, content: CommitmentContent) -> Link:
    following, terms = link.next, link.setting.terms
    if following is None or content.holder is not Party.OPENER:
        return link
    now = fuller(following.fullest, fullest_in(content, terms), terms)
    return changed(link, next=changed(following, fullest=now))


def _with_intended(link: Link, record: cr.CommitmentIntended) -> Link:
    state, due = sign_commitment(link.state)
    if record.number != due.content.number:
        raise DoubleSigning(f"commitment {record.number}, expected {due.content.number}")
    before = link.state.content(link.state.peer, Edition.SIGNED)
    after = changed(
        _with_fuller(link, due.content),
        state=state,
        signed_sighash=record.sighash,
        peer_unrevoked=before,
    )
    if due.content.is_rebased:
        return _with_given(after, record.number, record.sighash)
    if record.next_sighash:
        return _with_given(after, record.number, record.next_sighash)
    return after


def _with_held(link: Link, record: cr.CommitmentFinished) -> tuple[Link, Settlement]:
    signed, content = receive_commitment(link.state)
    settlement, _ = revoke(signed)
    link = _with_fuller(link, content)
    after = changed(
        link,
        state=settlement.state,
        own_point=link.own_next_point,
        own_next_point=record.next_point,
        signature=record.signature,
        htlc_signatures=record.htlc_signatures,
        last_secret=record.secret,
        next=_next_with_held(link.next, content, record),
    )
    if settlement.rebase is not None:
        after = _rebased(after)
    with_nonce = changed(after, pool_id=record.pool_id, nonce_index=0, pubnonce=record.pubnonce)
    return with_nonce, settlement


def _next_with_held(
    following: NextFunding | None, content: CommitmentContent, record: cr.CommitmentFinished
) -> NextFunding | None:
    if following is None:
        return None
    number, nonces = content.number, following.own_nonces
    if record.next_pubnonce:
        nonce = OwnNonce(pool_id=record.pool_id, index=1, pubnonce=record.next_pubnonce)
        nonces = Map({number + 1: nonce})
    if content.is_rebased:
        signature, htlc_signatures = record.signature, record.htlc_signatures
    elif record.next_signature:
        signature, htlc_signatures = record.next_signature, record.next_htlc_signatures
    else:
        # Only the present funding's: those told for the other are for numbers that are over.
        return changed(following, own_nonces=Map())
    own = HeldCommitment(number=number, signature=signature, htlc_signatures=htlc_signatures)
    return changed(following, own=own, own_nonces=nonces)


def _with_archived(link: Link) -> Link:
    """Return the link when the HTLCs of what is revoked are archived by themselves."""
    if link.peer_unrevoked is None:
        raise AssertionError("what names its HTLCs is not known")
    below = list(link.archived_below)
    for htlc in link.peer_unrevoked.htlcs:
        below[htlc.offered_by] = max(below[htlc.offered_by], htlc.htlc_id + 1)
    opener, accepter = below
    return changed(link, archived_below=(opener, accepter))


def _with_revocation(link: Link, message: m.RevokeAndAck) -> tuple[Link, Settlement]:
    settlement = receive_revocation(
        link.state,
        secret=message.per_commitment_secret,
        next_point=message.next_per_commitment_point,
    )
    after = changed(link, state=settlement.state, peer_unrevoked=None)
    following = after.next
    if settlement.rebase is not None:
        # What comes with it is for the funding that is the peer's present one from here on.
        return changed(_rebased(after), peer_pubnonce=message.next_pubnonce), settlement
    if following is not None:
        nonces: Map[int, bytes] = Map()
        for further in message.further:
            if further.funding_txid == following.funding.outpoint.txid:
                nonces = nonces.set(settlement.state.peer_signed + 1, further.pubnonce)
        following = changed(following, peer_nonces=nonces)
    # Of a client that is not over with the funding before, what is for the present one is further.
    present = link.present.outpoint.txid
    known = (one.pubnonce for one in message.further if one.funding_txid == present)
    pubnonce = next(known, message.next_pubnonce)
    return changed(after, peer_pubnonce=pubnonce, next=following), settlement


def _rebased(link: Link) -> Link:
    """Return the link once both sides' latest commitments are for the next funding alone."""
    following = link.next
    if following is None:
        raise AssertionError("a rebase without a next funding")
    own, unrevoked = following.own_nonces.get(link.state.own_signed + 1), link.peer_unrevoked
    if unrevoked is not None:
        # By it the client was rebased, and the LSP signed another since: it is for the present now.
        link = changed(link, peer_unrevoked=replace(unrevoked, is_rebased=False))
    if own is not None:
        link = changed(link, pool_id=own.pool_id, nonce_index=own.index, pubnonce=own.pubnonce)
    return changed(
        link,
        setting=replace(link.setting, funding=following.funding),
        path=link.path if following.step is None else (*link.path[:-1], following.step),
        superseded=(*link.superseded, link.present),
        fullest=following.fullest,
        fullest_superseded=(*link.fullest_superseded, link.fullest),
        peer_pubnonce=following.peer_nonces.get(link.state.peer_signed + 1, link.peer_pubnonce),
        next=None,
    )
