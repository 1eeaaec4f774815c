"""One party's view of a channel, as a value: balances, HTLCs, commitment numbers.

It knows no funding outpoint and no secret of ours. Its balances are those that no pending update
can change any more; what a commitment says follows from them and from each HTLC's stage.
"""

from dataclasses import dataclass
from typing import Any, Final

from cromford.changed import changed
from cromford.channel.content import CommitmentContent
from cromford.channel.messages import Update
from cromford.channel.secret_store import EMPTY_STORE, SecretStore
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc, LiveRebase, UpdateStep
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms, Party

PAYLOAD_SIZE_MAX: Final = 4096  # An onion of 1,366 bytes (BOLT 4) and room for what goes along.


# Without slots: it is made anew many times a payment, and a dict is copied at once.
@dataclass(frozen=True, kw_only=True)
class ChannelState:
    """A channel as one party sees it. Make it with `open_channel`; change it by transitions.

    Attributes:
        me: Which party this is.
        terms: What was agreed.
        opener_msat: The opener's settled balance: HTLCs that are not GONE are not deducted.
        accepter_msat: The accepter's.
        htlcs: Every HTLC that is not GONE, in the order of their adding.
        next_ids: The id of the next HTLC that each party offers, opener first.
        own_signed: The number of our latest commitment.
        own_revoked: How many of our commitments we revoked.
        peer_signed: The number of the peer's latest commitment that we signed.
        peer_secrets: Every per-commitment secret that the peer has revealed.
        peer_point: The peer's per-commitment point of its oldest unrevoked commitment.
        peer_next_point: Of the one after; None until `channel_ready`.
        unacked: Our updates that the peer has not acknowledged, in the order they were sent.
        n_signed_updates: How many of those the outstanding `commitment_signed` covers.
        is_revocation_last: Whether our last revocation went out after our last signing.
        is_connected: Whether updates may flow.
        rebase: The move onto the next funding that is under way.
        reserved_msat: What the accepter keeps for such a move, until it is on a commitment.
    """

    me: Party
    terms: ChannelTerms
    opener_msat: int
    accepter_msat: int
    peer_point: bytes
    peer_next_point: bytes | None = None
    htlcs: tuple[LiveHtlc, ...] = ()
    next_ids: tuple[int, int] = (0, 0)
    own_signed: int = 0
    own_revoked: int = 0
    peer_signed: int = 0
    peer_secrets: SecretStore = EMPTY_STORE
    unacked: tuple[Update, ...] = ()
    n_signed_updates: int = 0
    is_revocation_last: bool = False
    is_connected: bool = True
    rebase: LiveRebase | None = None
    reserved_msat: int = 0

    @property
    def peer(self) -> Party:
        """The other party."""
        return self.me.other

    @property
    def capacity_sat(self) -> int:
        """What the channel holds, rounded down."""
        return (self.opener_msat + self.accepter_msat) // MSAT_PER_SAT

    @property
    def peer_revoked(self) -> int:
        """How many of its commitments the peer revoked."""
        return self.peer_secrets.n_secrets

    @property
    def owes_revocation(self) -> bool:
        """Whether we hold a new commitment and have not revoked the one before."""
        return self.own_signed > self.own_revoked

    @property
    def awaits_revocation(self) -> bool:
        """Whether the peer has not yet revoked the commitment before the one we signed."""
        return self.peer_signed > self.peer_revoked

    @property
    def is_quiet(self) -> bool:
        """Whether both commitments say the same and nothing is on its way."""
        is_moving = self.owes_revocation or self.awaits_revocation or self.rebase is not None
        return not (is_moving or self.unacked) and all(
            live.stage is HtlcStage.LOCKED_IN for live in self.htlcs
        )

    def reserved_msat_of(self, party: Party, edition: Edition) -> int:
        """Return what a party may not offer, besides its reserve: what a rebase will cost it.

        Once the rebase is on the peer's commitment, it is paid there.
        """
        if party is not Party.ACCEPTER:
            return 0
        is_paid = self._rebase_on(party.other, edition) is not None
        return 0 if is_paid else self.reserved_msat

    def _rebase_on(self, holder: Party, edition: Edition) -> LiveRebase | None:
        rebase = self.rebase
        return rebase if rebase is not None and rebase.is_on(holder, edition) else None

    def content(self, holder: Party, edition: Edition) -> CommitmentContent:
        """Return what a commitment says: the latest signed of this holder, or its next."""
        latest = self.own_signed if holder is self.me else self.peer_signed
        balances = [self.opener_msat, self.accepter_msat]  # By party.
        on_it = []
        for live in self.htlcs:
            offered_by = live.htlc.offered_by
            if live.is_on(holder, edition):
                balances[offered_by] -= live.htlc.amount_msat
                on_it.append(live.htlc)
            paid_msat = live.paid_msat_on(holder, edition)
            balances[offered_by] -= paid_msat
            balances[offered_by.other] += paid_msat
        rebase = self._rebase_on(holder, edition)
        if rebase is not None:
            balances[Party.OPENER] += rebase.growth_msat + rebase.price_msat
            balances[Party.ACCEPTER] -= rebase.price_msat
        return CommitmentContent(
            holder=holder,
            number=latest if edition is Edition.SIGNED else latest + 1,
            opener_msat=balances[Party.OPENER],
            accepter_msat=balances[Party.ACCEPTER],
            htlcs=tuple(sorted(on_it, key=lambda htlc: (htlc.offered_by, htlc.htlc_id))),
            is_rebased=rebase is not None,
        )

    def find(self, offered_by: Party, htlc_id: int) -> LiveHtlc | None:
        """Return an HTLC that is not GONE, or None."""
        for live in self.htlcs:
            if live.htlc.offered_by is offered_by and live.htlc.htlc_id == htlc_id:
                return live
        return None

    def next_id(self, party: Party) -> int:
        """Return the id of the next HTLC that a party offers."""
        return self.next_ids[party]

    def with_added(self, live: LiveHtlc) -> "ChannelState":
        """Return the state with one HTLC more, and its offerer's next id."""
        next_ids = list(self.next_ids)
        next_ids[live.htlc.offered_by] += 1
        return changed(self, htlcs=(*self.htlcs, live), next_ids=(next_ids[0], next_ids[1]))

    def with_changed(self, after: LiveHtlc) -> "ChannelState":
        """Return the state with one HTLC in another stage."""
        return changed(
            self, htlcs=tuple(after if live.htlc == after.htlc else live for live in self.htlcs)
        )

    def moved(self, step: UpdateStep, by: Party, **changes: Any) -> "ChannelState":  # noqa: ANN401 - as `changed`
        """Return the state after a party took a step; what is GONE is settled and dropped.

        So is a rebase that is LOCKED_IN. `changes` are what else the step changes, as `changed`
        takes them.
        """
        opener_msat, accepter_msat = self.opener_msat, self.accepter_msat
        if self.rebase is not None:
            rebase = self.rebase.moved(step, by)
            changes["rebase"] = rebase
            if rebase.stage is HtlcStage.LOCKED_IN:
                opener_msat += rebase.growth_msat + rebase.price_msat
                accepter_msat -= rebase.price_msat
                changes |= {"rebase": None, "reserved_msat": 0}
        remaining = []
        for live in self.htlcs:
            after = live.moved(step, by)
            if after.stage is not HtlcStage.GONE:
                remaining.append(after)
            elif after.is_paid:
                sign = -1 if live.htlc.offered_by is Party.OPENER else 1
                opener_msat += sign * live.htlc.amount_msat
                accepter_msat -= sign * live.htlc.amount_msat
        return changed(
            self,
            opener_msat=opener_msat,
            accepter_msat=accepter_msat,
            htlcs=tuple(remaining),
            **changes,
        )


def open_channel(
    *,
    me: Party,
    terms: ChannelTerms,
    opener_msat: int,
    accepter_msat: int,
    peer_point: bytes,
    peer_next_point: bytes | None = None,
) -> ChannelState:
    """Return a new channel with commitment 0 on both sides.

    Args:
        me: Which party this is.
        terms: What was agreed.
        opener_msat: The opener's balance.
        accepter_msat: The accepter's.
        peer_point: The peer's first per-commitment point.
        peer_next_point: Its second, where it is known before `channel_ready`.

    Raises:
        ValueError: If a balance is negative, or the opener's below its reserve: it could not
            pay for the largest commitment.
    """
    if accepter_msat < 0:
        raise ValueError(f"a negative balance of {accepter_msat} msat")
    state = ChannelState(
        me=me,
        terms=terms,
        opener_msat=opener_msat,
        accepter_msat=accepter_msat,
        peer_point=peer_point,
        peer_next_point=peer_next_point,
    )
    reserve_sat = terms.reserve_sat(Party.OPENER, capacity_sat=state.capacity_sat)
    if opener_msat < reserve_sat * MSAT_PER_SAT:
        raise ValueError(f"the opener has {opener_msat} msat, its reserve is {reserve_sat} sat")
    return state
