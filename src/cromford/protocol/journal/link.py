"""One channel with a peer, as a value: its state, what we hold of it, and the nonces in use.

The channel's own rules are in the channel room, which knows no messages, signatures or factory.
A link adds them: it is the fold of a channel's records.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from cromford.changed import changed
from cromford.channel.commitment import Commitment, build_commitment
from cromford.channel.commits import (
    Settlement,
    receive_commitment,
    receive_revocation,
    revoke,
    sign_commitment,
)
from cromford.channel.content import CommitmentContent
from cromford.channel.finished import FinishedCommitment
from cromford.channel.messages import Update, UpdateAdd, UpdateFail, UpdateFulfill
from cromford.channel.reestablish import disconnect, receive_reestablish
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.channel.updates import (
    propose_add,
    propose_fail,
    propose_fulfill,
    receive_update,
    take_back_adds,
)
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.encoding import decoded, reestablish_of
from cromford.protocol.journal.first_commitments import ChannelSetting
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.mark import StoreMark
from cromford.signing.keychain import ChannelKey
from cromford.watch.landed import PeerCommitment
from cromford.watch.remaining import PathStep, Remaining, remaining_of
from cromford.wire import messages as m


@dataclass(frozen=True, kw_only=True)
class Link:
    """A channel that both sides found ready, or will.

    Attributes:
        channel_id: Its name.
        node_id: The peer.
        attempt_id: The factory.
        client: The client's participant index in it.
        key: Names our keys.
        setting: Terms, keys and funding.
        path: The transactions above it, root first.
        expiry_height: The factory's.
        exit_blocks: How long bringing it on chain may take while nothing of its path is there.
        exit_deadline_height: The exit deadline by that.
        max_cltv_blocks: How far ahead an HTLC's expiry may lie.
        exit_cost_sat: The most that is not worth bringing it on chain for, whatever feerates are.
        state: The channel's state.
        own_point: Our per-commitment point of our latest commitment.
        own_next_point: Of the one after.
        signature: Of our latest commitment, finished.
        htlc_signatures: The peer's, for its HTLC transactions.
        last_secret: What revoked our commitment before the latest; None if there was none.
        signed_sighash: Of the peer's latest commitment, as we signed it; empty for its first.
        peer_unrevoked: What the peer's commitment before its latest says, until it revokes it.
        pool_id: Our nonce for our next commitment, in this connection.
        awaits_nonce: Whether there was no room for one, in this connection.
        early_reestablish: The peer's, if it came meanwhile; else empty.
        pubnonce: Its public half.
        peer_pubnonce: The peer's for its next commitment, in this connection.
        failure: Why no more updates are possible.
        failed_height: The chain's height when that began.
        is_behind: Whether the peer proved that we lost state.
        peer_is_behind: Whether the peer lost state, or says so.
        breach: What a commitment says that the peer had revoked and published all the same.
        closes: The cooperative closes that its client signed, or may have signed.
        quiet_for: The close that is being agreed on, in this connection; else empty.
        mark: That our store was put back from a backup, and what is known since; else None.
        publishes_stale: Whether the operator takes the risk that our commitment is revoked.
    """

    channel_id: bytes
    node_id: bytes
    attempt_id: bytes
    client: int
    key: ChannelKey
    setting: ChannelSetting
    path: tuple[PathStep, ...]
    expiry_height: int
    exit_blocks: int
    exit_deadline_height: int
    max_cltv_blocks: int
    exit_cost_sat: int
    state: ChannelState
    own_point: bytes
    own_next_point: bytes
    signature: bytes
    htlc_signatures: tuple[bytes, ...] = ()
    last_secret: bytes | None = None
    signed_sighash: bytes = b""
    peer_unrevoked: CommitmentContent | None = None
    pool_id: bytes | None = None
    awaits_nonce: bool = False
    early_reestablish: bytes = b""
    pubnonce: bytes = b""
    peer_pubnonce: bytes | None = None
    failure: str | None = None
    failed_height: int | None = None
    is_behind: bool = False
    peer_is_behind: bool = False
    breach: CommitmentContent | None = None
    closes: tuple[SignedClose, ...] = ()
    quiet_for: bytes = b""
    mark: StoreMark | None = None
    publishes_stale: bool = False

    @property
    def is_open(self) -> bool:
        """Whether updates may flow now."""
        return self.state.is_connected and self.takes_updates

    @property
    def takes_updates(self) -> bool:
        """Whether updates may ever flow again: it did not fail, and its store is our newest."""
        return self.failure is None and self.mark is None

    @property
    def may_lack_state(self) -> bool:
        """Whether our store may lack what came later: it was restored, or the peer proved it."""
        return self.is_behind or self.mark is not None

    @property
    def withholds_commitment(self) -> bool:
        """Whether our commitment is not published, because we may have revoked it.

        Where the peer proved that we did, it is not the operator's to decide.
        """
        return self.is_behind or (self.mark is not None and not self.publishes_stale)

    @property
    def has_session(self) -> bool:
        """Whether anything of it ends with the peer's connection."""
        is_prepared = self.pool_id is not None or self.awaits_nonce
        return self.state.is_connected or is_prepared or bool(self.quiet_for)

    def remaining(self, chain: KnownChain) -> Remaining:
        """Return how long bringing it on chain takes now, and until when that must begin."""
        return remaining_of(
            self.path,
            expiry_height=self.expiry_height,
            confirmed=chain.confirmed,
            tip_height=chain.height,
        )

    def is_settled(self, chain: KnownChain) -> bool:
        """Say whether its output is on chain for good: then the factory's expiry is not its own."""
        return self.remaining(chain).exit_deadline_height is None

    @property
    def me(self) -> Party:
        """Which party we are."""
        return self.state.me

    @cached_property
    def finished(self) -> FinishedCommitment:
        """Our latest commitment, ready to be published."""
        content = self.state.content(self.me, Edition.SIGNED)
        return FinishedCommitment(
            commitment=self.commitment(content, self.own_point),
            signature=self.signature,
            htlc_signatures=self.htlc_signatures,
        )

    @cached_property
    def peer_commitments(self) -> tuple[PeerCommitment, ...]:
        """The peer's commitments that are not revoked: the latest, and perhaps the one before."""
        state = self.state
        latest = state.content(state.peer, Edition.SIGNED)
        if self.peer_unrevoked is None or state.peer_next_point is None:
            return (self._peer_commitment(latest, state.peer_point),)
        return (
            self._peer_commitment(self.peer_unrevoked, state.peer_point),
            self._peer_commitment(latest, state.peer_next_point),
        )

    def _peer_commitment(self, content: CommitmentContent, point: bytes) -> PeerCommitment:
        commitment = self.commitment(content, point)
        return PeerCommitment(commitment=commitment, per_commitment_point=point)

    def commitment(self, content: CommitmentContent, per_commitment_point: bytes) -> Commitment:
        """Return the commitment with this content on the present funding output.

        Raises:
            UnpayableFee: If the opener's balance does not carry fee and anchor.
        """
        return build_commitment(
            content,
            funding=self.setting.funding,
            terms=self.setting.terms,
            keys=self.setting.keys,
            per_commitment_point=per_commitment_point,
        )

    @property
    def unsent(self) -> tuple[LiveHtlc, ...]:
        """The HTLCs that we offered, and that wait for the signature they will leave with."""
        return tuple(
            live
            for live in self.state.htlcs
            if live.htlc.offered_by is self.me and live.stage is HtlcStage.ADD_PROPOSED
        )

    def incoming(self, htlc_id: int) -> LiveHtlc | None:
        """Return an HTLC that the peer offered, if it is locked in and waits for our answer."""
        live = self.state.find(self.state.peer, htlc_id)
        return live if live is not None and live.stage is HtlcStage.LOCKED_IN else None


def disconnected(link: Link) -> Link:
    """Return the link after its connection ended: nonces and unsigned updates are gone."""
    return changed(
        link,
        state=disconnect(link.state),
        pool_id=None,
        awaits_nonce=False,
        early_reestablish=b"",
        pubnonce=b"",
        peer_pubnonce=None,
        quiet_for=b"",
    )


def applied(link: Link, record: cr.StepRecord) -> tuple[Link, Settlement | None]:
    """Return the link after a record, and what a revocation made final."""
    match record:
        case cr.ChannelPrepared(pool_id=pool_id, pubnonce=pubnonce):
            taken_up = changed(link, awaits_nonce=False, early_reestablish=b"")
            return changed(taken_up, pool_id=pool_id, pubnonce=pubnonce), None
        case cr.NonceAwaited(reestablish=data):
            return changed(link, awaits_nonce=True, early_reestablish=data), None
        case cr.ChannelReestablished(message=data, own_point=own_point):
            message = decoded(data, m.ChannelReestablish)
            resumption = receive_reestablish(
                link.state, reestablish_of(message), own_point=own_point or None
            )
            return (
                changed(link, state=resumption.state, peer_pubnonce=message.next_pubnonce),
                None,
            )
        case cr.AddsTakenBack(htlc_id=htlc_id):
            return changed(link, state=take_back_adds(link.state, htlc_id)), None
        case cr.CommitmentIntended():
            return _with_intended(link, record), None
        case cr.CommitmentFinished():
            return _with_held(link, record)
        case cr.RevocationReceived(message=data):
            return _with_revocation(link, decoded(data, m.RevokeAndAck))
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


def with_update(link: Link, update: Update, *, is_ours: bool) -> Link:
    """Return the link after an update that we propose, or received."""
    state = link.state
    after = _with_proposed(state, update) if is_ours else receive_update(state, update)
    return changed(link, state=after)


def _with_proposed(state: ChannelState, update: Update) -> ChannelState:
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


def _with_intended(link: Link, record: cr.CommitmentIntended) -> Link:
    state, due = sign_commitment(link.state)
    if record.number != due.content.number:
        raise DoubleSigning(f"commitment {record.number}, expected {due.content.number}")
    before = link.state.content(link.state.peer, Edition.SIGNED)
    return changed(link, state=state, signed_sighash=record.sighash, peer_unrevoked=before)


def _with_held(link: Link, record: cr.CommitmentFinished) -> tuple[Link, Settlement]:
    signed, _ = receive_commitment(link.state)
    settlement, _ = revoke(signed)
    after = changed(
        link,
        state=settlement.state,
        own_point=link.own_next_point,
        own_next_point=record.next_point,
        signature=record.signature,
        htlc_signatures=record.htlc_signatures,
        last_secret=record.secret,
        pool_id=record.pool_id,
        pubnonce=record.pubnonce,
    )
    return after, settlement


def _with_revocation(link: Link, message: m.RevokeAndAck) -> tuple[Link, Settlement]:
    settlement = receive_revocation(
        link.state,
        secret=message.per_commitment_secret,
        next_point=message.next_per_commitment_point,
    )
    after = changed(
        link,
        state=settlement.state,
        peer_pubnonce=message.next_pubnonce,
        peer_unrevoked=None,
    )
    return after, settlement
