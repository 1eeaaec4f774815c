"""One channel with a peer, as a value: its state, what we hold of it, and the nonces in use.

The channel's own rules are in the channel room, which knows no messages, signatures or factory.
A link adds them: it is the fold of a channel's records.
"""

from dataclasses import dataclass, replace

from cromford.bitcoin.tx import Tx
from cromford.changed import computed
from cromford.channel.commitment import Commitment, Funding, build_commitment
from cromford.channel.content import CommitmentContent
from cromford.channel.errors import PeerViolation
from cromford.channel.finished import FinishedCommitment
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.first_commitments import ChannelSetting
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.next_funding import (
    POISONS_HELD,
    STATE_HELD,
    NextFunding,
    OwnNonce,
)
from cromford.signing.keychain import ChannelKey
from cromford.watch.coverage import Fullest
from cromford.watch.landed import PeerCommitment
from cromford.watch.remaining import PathStep, Remaining, remaining_of


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
        path: The transactions above its present funding, root first.
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
        pool_id: The pool of our nonce for our next commitment, in this connection.
        nonce_index: Its place there.
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
        quiet_for: The close, or the advance, that is being agreed on, in this connection; else
            empty.
        mark: That our store was put back from a backup, and what is known since; else None.
        publishes_stale: Whether the operator takes the risk that our commitment is revoked.
        next: The funding that takes the place of the present one, while that is under way.
        superseded: The fundings that were so replaced, oldest first: on them all is revoked.
        fullest: The LSP's fullest commitment that was signed for the present funding; None where a
            store of before did not count.
        fullest_superseded: The same of each that was replaced.
        archived_below: Below which number the HTLCs of the peer's revoked commitments are archived
            by themselves: the opener's, then the accepter's. Each party's come in their order.
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
    nonce_index: int = 0
    next: NextFunding | None = None
    superseded: tuple[Funding, ...] = ()
    fullest: Fullest | None = None
    fullest_superseded: tuple[Fullest | None, ...] = ()
    archived_below: tuple[int, int] = (0, 0)

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
    def is_balance_unknown(self) -> bool:
        """Whether our store may lack state, and nobody compared it with the peer's."""
        return self.may_lack_state and (self.mark is None or self.mark.agreed_msat is None)

    @property
    def withholds_commitment(self) -> bool:
        """Whether our commitment is not published, because we may have revoked it.

        Where the peer proved that we did, it is not the operator's to decide.
        """
        return self.is_behind or (self.mark is not None and not self.publishes_stale)

    @property
    def has_session(self) -> bool:
        """Whether anything of it ends with the peer's connection."""
        is_prepared = bool(self.pool_ids) or self.awaits_nonce
        return self.state.is_connected or is_prepared or bool(self.quiet_for)

    def remaining(self, chain: KnownChain) -> Remaining:
        """Return how long bringing it on chain takes now, and until when that must begin."""
        return remaining_of(
            self.path_on(chain),
            expiry_height=self.expiry_height,
            confirmed=chain.confirmed,
            tip_height=chain.height,
        )

    def path_on(self, chain: KnownChain) -> tuple[PathStep, ...]:
        """Return the transactions above the channel, as the chain shows them.

        While it has commitments for two states, the slower one, the present: unless the next one is
        in a block.
        """
        step = None if self.next is None else self.next.step
        if step is None:
            return self.path
        spender = chain.spends.get(step.outpoint)
        is_landed = spender is not None and spender.txid == step.txid
        return (*self.path[:-1], step) if is_landed else self.path

    def landed(self, chain: KnownChain) -> Funding | None:
        """Return the funding that a block has; None where none is."""
        state = chain.spends.get(self.path[-1].outpoint)
        if state is None:
            return None
        found = (one for one in self.fundings if one.outpoint.txid == state.txid)
        return next(found, None) or self._forgotten_in(state)

    def _forgotten_in(self, state: Tx) -> Funding | None:
        """Return where the channel is in a state that a restored store lacks.

        Its script never changes, and nothing else pays to it.
        """
        script = self.present.txout.script_pubkey
        return next(
            (
                replace(self.present, outpoint=state.outpoint(vout), capacity_sat=txout.amount_sat)
                for vout, txout in enumerate(state.outputs)
                if txout.script_pubkey == script
            ),
            None,
        )

    def funding_on(self, chain: KnownChain) -> Funding:
        """Return the funding that counts: the one in a block, else the newest state's.

        The newest that is signed: until we hold that signature, the one before.
        """
        landed = self.landed(chain)
        if landed is not None:
            return landed
        is_signed = self.next is not None and self.next.stage >= STATE_HELD
        return self.next.funding if is_signed and self.next is not None else self.present

    def is_poisoned(self, chain: KnownChain) -> bool:
        """Say whether a state is in a block that was replaced: it is taken apart, and over.

        At the latest from the rebase on, and as soon as its client may hold the poisons.
        """
        landed, following = self.landed(chain), self.next
        is_held = following is not None and following.stage >= POISONS_HELD
        return (is_held and landed == self.present) or landed in self.superseded

    def is_settled(self, chain: KnownChain) -> bool:
        """Say whether its output is on chain for good: then the factory's expiry is not its own."""
        return self.remaining(chain).exit_deadline_height is None

    @property
    def me(self) -> Party:
        """Which party we are."""
        return self.state.me

    @property
    def present(self) -> Funding:
        """The funding that holds until both sides are rebased onto another."""
        return self.setting.funding

    @property
    def fundings(self) -> tuple[Funding, ...]:
        """Every funding that may be on chain, oldest first: at most one of them ever is."""
        following = () if self.next is None else (self.next.funding,)
        return (*self.superseded, self.present, *following)

    def fundings_of(self, content: CommitmentContent) -> tuple[Funding, ...]:
        """Return the fundings that a commitment with this content is signed for now."""
        if self.next is None or not (self.next.is_dual or content.is_rebased):
            return (self.present,)
        return (self.next.funding,) if content.is_rebased else (self.present, self.next.funding)

    @computed
    def finished(self) -> FinishedCommitment:
        """Our latest commitment, ready to be published once its funding is on chain.

        While it is for two fundings, that on the present one.
        """
        content = self.state.content(self.me, Edition.SIGNED)
        return FinishedCommitment(
            commitment=self.commitment(content, self.own_point, self.fundings_of(content)[0]),
            signature=self.signature,
            htlc_signatures=self.htlc_signatures,
        )

    def finished_on(self, funding: Funding) -> FinishedCommitment | None:
        """Return our latest commitment on a funding; None where there we have revoked all."""
        content = self.state.content(self.me, Edition.SIGNED)
        if funding == self.present:
            return None if content.is_rebased else self.finished
        if self.next is None or funding != self.next.funding or self.next.own is None:
            return None
        if self.next.own.number != content.number:
            return None
        return FinishedCommitment(
            commitment=self.commitment(content, self.own_point, funding),
            signature=self.next.own.signature,
            htlc_signatures=self.next.own.htlc_signatures,
        )

    @computed
    def peer_commitments(self) -> tuple[PeerCommitment, ...]:
        """The peer's commitments on the present funding that are not revoked.

        The latest, and perhaps the one before.
        """
        return self._peer_commitments_on(self.present)

    def peer_commitments_on(self, funding: Funding) -> tuple[PeerCommitment, ...]:
        """Return the peer's commitments on a funding that are not revoked, the latest last."""
        if funding == self.present:
            return self.peer_commitments  # Asked for at every block, and made once.
        return self._peer_commitments_on(funding)

    @property
    def peer_contents(self) -> tuple[tuple[CommitmentContent, bytes], ...]:
        """What the peer's unrevoked commitments say, the latest last, each with its point."""
        state = self.state
        latest = state.content(state.peer, Edition.SIGNED)
        if self.peer_unrevoked is None or state.peer_next_point is None:
            return ((latest, state.peer_point),)
        return (self.peer_unrevoked, state.peer_point), (latest, state.peer_next_point)

    def _peer_commitments_on(self, funding: Funding) -> tuple[PeerCommitment, ...]:
        if funding in self.superseded:
            return ()
        return tuple(
            PeerCommitment(
                commitment=self.commitment(content, point, funding), per_commitment_point=point
            )
            for content, point in self.peer_contents
            if not (content.is_rebased and funding == self.present)
        )

    def commitment(
        self,
        content: CommitmentContent,
        per_commitment_point: bytes,
        funding: Funding | None = None,
    ) -> Commitment:
        """Return the commitment with this content on a funding, or else on the present one.

        Raises:
            UnpayableFee: If the opener's balance does not carry fee and anchor.
            NegativeBalance: If the accepter's is below 0.
        """
        return build_commitment(
            content,
            funding=funding or self.present,
            terms=self.setting.terms,
            keys=self.setting.keys,
            per_commitment_point=per_commitment_point,
        )

    def own_nonce(self, funding: Funding, number: int) -> OwnNonce | None:
        """Return our nonce for our commitment of a number on a funding, in this connection."""
        if self.next is not None and funding == self.next.funding:
            return self.next.own_nonces.get(number)
        if self.pool_id is None:
            return None
        return OwnNonce(pool_id=self.pool_id, index=self.nonce_index, pubnonce=self.pubnonce)

    @property
    def pool_ids(self) -> tuple[bytes, ...]:
        """The pools of its nonces, in this connection."""
        own = () if self.pool_id is None else (self.pool_id,)
        following = () if self.next is None else sorted(self.next.pool_ids)
        return tuple(dict.fromkeys((*own, *following)))

    @property
    def is_still(self) -> bool:
        """Whether both sides said that they are quiet, until the next funding carries the same.

        Of a client, until its word that it signed has left.
        """
        following = self.next
        if following is None:
            return False
        return following.is_leaving or (following.is_agreed and not following.is_dual)

    def check_may_act(self, message: str) -> None:
        """Check that the peer does not speak of updates where it said that it is quiet.

        Raises:
            PeerViolation: If it does.
        """
        if self.is_still:
            raise PeerViolation(message, expected="none: an advance is under way", received="one")

    @property
    def next_numbers(self) -> tuple[int, ...]:
        """The numbers of our commitments on the next funding that may come next.

        The latest, too, as long as it is not on it.
        """
        if self.next is None:
            return ()
        latest, own = self.state.own_signed, self.next.own
        lacks_latest = own is None or own.number < latest
        return (latest, latest + 1) if lacks_latest else (latest + 1,)

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
