"""Two machines of one channel, joined by two queues that lose everything when they break.

What the machines name is really built: every `commitment_signed` carries what its signer would
sign, and its receiver compares it with its own, byte for byte. While the channel moves to another
funding that is a commitment for each, and each machine knows by itself for which.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tests.channel import specimen

from cromford.channel.commitment import Commitment, Funding, build_commitment
from cromford.channel.commits import (
    has_changes,
    receive_channel_ready,
    receive_commitment,
    receive_revocation,
    revoke,
    sign_commitment,
)
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.messages import (
    CommitmentDue,
    Outgoing,
    Rebase,
    Reestablish,
    RevocationDue,
    Update,
    UpdateAdd,
    UpdateFail,
    UpdateFulfill,
)
from cromford.channel.rebase import can_pay, propose_rebase, receive_rebase, reserve
from cromford.channel.reestablish import disconnect, receive_reestablish, reestablish_message
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc
from cromford.channel.state import ChannelState, open_channel
from cromford.channel.terms import ChannelTerms, Party
from cromford.channel.updates import (
    propose_add,
    propose_fail,
    propose_fulfill,
    receive_update,
)


@dataclass(frozen=True)
class Signed:
    """`commitment_signed`: what was signed, and for which fundings."""

    places: tuple[int, ...]
    sighashes: tuple[bytes, ...]
    htlc_sighashes: tuple[bytes, ...]


@dataclass(frozen=True)
class Revoked:
    """`revoke_and_ack`."""

    secret: bytes
    next_point: bytes


@dataclass(frozen=True)
class Ready:
    """`channel_ready`."""

    second_point: bytes


Message = Update | Signed | Revoked | Ready | Reestablish
GROWTH_SAT = 25_000


def funding_at(place: int) -> Funding:
    """Return a channel's first funding, or what it was moved to so often."""
    return specimen.funding(specimen.CAPACITY_SAT + GROWTH_SAT * place, vout=place)


def build_at(place: int, content: CommitmentContent, terms: ChannelTerms) -> Commitment:
    """Return a commitment on one of a channel's fundings."""
    return build_commitment(
        content,
        funding=funding_at(place),
        terms=terms,
        keys=specimen.KEYS,
        per_commitment_point=specimen.point(content.holder, content.number),
    )


@lru_cache(maxsize=500)
def sighashes_of(
    terms: ChannelTerms, content: CommitmentContent, place: int
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return what is signed of a commitment, and of its HTLC transactions."""
    built = build_at(place, content, terms)
    return built.signing_task.sighash, tuple(tx.peer_sighash for tx in htlc_txs(built))


@dataclass
class Duet:
    """Both parties, what is on its way to each, and what must stay true."""

    terms: ChannelTerms
    accepter_msat: int = 400_000_000
    states: dict[Party, ChannelState] = field(default_factory=dict)
    inboxes: dict[Party, deque[Message]] = field(
        default_factory=lambda: {party: deque() for party in Party}
    )
    expected_msat: dict[Party, int] = field(default_factory=dict)
    sighashes: dict[tuple[Party, int], Signed] = field(default_factory=dict)
    contents: dict[tuple[Party, int], CommitmentContent] = field(default_factory=dict)
    received: dict[Party, int] = field(default_factory=lambda: dict.fromkeys(Party, 0))
    # The other way to see it: a commitment is how much of either party's log it covers.
    logs: dict[Party, list[Update]] = field(default_factory=lambda: {one: [] for one in Party})
    covered: dict[tuple[Party, int], dict[Party, int]] = field(
        default_factory=lambda: {(party, 0): dict.fromkeys(Party, 0) for party in Party}
    )
    opened_msat: dict[Party, int] = field(default_factory=dict)
    # Which funding is present to each, and who knows of one that takes its place.
    places: dict[Party, int] = field(default_factory=lambda: dict.fromkeys(Party, 0))
    is_dual: dict[Party, bool] = field(default_factory=lambda: dict.fromkeys(Party, False))
    is_bound: bool = False  # Whether anything was signed for it.

    def __post_init__(self) -> None:
        self.expected_msat = {
            Party.OPENER: specimen.CAPACITY_SAT * 1000 - self.accepter_msat,
            Party.ACCEPTER: self.accepter_msat,
        }
        self.opened_msat = dict(self.expected_msat)
        for party in Party:
            self.states[party] = open_channel(
                me=party,
                terms=self.terms,
                opener_msat=self.expected_msat[Party.OPENER],
                accepter_msat=self.expected_msat[Party.ACCEPTER],
                peer_point=specimen.point(party.other, 0),
            )
            self.inboxes[party].append(Ready(specimen.point(party.other, 1)))

    # --- what a party does ---

    def add(self, party: Party, amount_msat: int, index: int) -> UpdateAdd:
        """Offer an HTLC whose preimage is number `index`."""
        self.states[party], message = propose_add(
            self.states[party],
            amount_msat=amount_msat,
            payment_hash=specimen.payment_hash(index),
            cltv_expiry=900_000,
            payload=b"%d" % index,
        )
        self.post(party, message)
        return message

    def can_agree(self, price_msat: int) -> bool:
        """Say whether a next funding can be agreed on: both are quiet, and it can be paid."""
        return not any(self.inboxes.values()) and all(
            state.is_connected and state.is_quiet and can_pay(state, price_msat)
            for state in self.states.values()
        )

    def agree(self, price_msat: int) -> None:
        """Let both know of a next funding: from here on what they sign is for it, too."""
        for party in Party:
            self.states[party] = reserve(self.states[party], price_msat)
            self.is_dual[party] = True
        self.is_bound = False

    def give_up(self) -> None:
        """Let both forget a next funding that nothing was signed for."""
        assert not self.is_bound
        for party in Party:
            self.states[party] = reserve(self.states[party], 0)
            self.is_dual[party] = False

    def rebase(self) -> None:
        """Let the opener offer to move onto the next funding."""
        state = self.states[Party.OPENER]
        message = Rebase(
            advance_id=b"%d" % self.places[Party.OPENER],
            capacity_sat=funding_at(self.places[Party.OPENER] + 1).capacity_sat,
            price_msat=state.reserved_msat,
        )
        self.states[Party.OPENER] = propose_rebase(state, message)
        self.post(Party.OPENER, message)
        self.expected_msat[Party.OPENER] += 1000 * GROWTH_SAT + message.price_msat
        self.expected_msat[Party.ACCEPTER] -= message.price_msat

    def rebased(self, party: Party) -> None:
        """Note that a party is bound to the rebase: the funding before is superseded to it."""
        self.places[party] += 1
        self.is_dual[party] = False

    def post(self, party: Party, message: Update) -> None:
        self.logs[party].append(message)
        self.inboxes[party.other].append(message)

    def fulfill(self, party: Party, live: LiveHtlc) -> None:
        preimage = specimen.preimage(int(live.payload))
        self.states[party], message = propose_fulfill(
            self.states[party], live.htlc.htlc_id, preimage
        )
        self.post(party, message)
        self.expected_msat[party] += live.htlc.amount_msat
        self.expected_msat[party.other] -= live.htlc.amount_msat

    def fail(self, party: Party, live: LiveHtlc) -> None:
        self.states[party], message = propose_fail(self.states[party], live.htlc.htlc_id, b"no")
        self.post(party, message)

    def sign(self, party: Party) -> None:
        before = self.states[party]
        self.is_bound = True
        self.states[party], due = sign_commitment(before)
        assert due.content == before.content(party.other, Edition.NEXT)
        # The holder's own updates are on it as far as this party revoked what was before them.
        self.covered[party.other, due.content.number] = {
            party: len(self.logs[party]),
            party.other: self.covered[party, before.own_revoked][party.other],
        }
        expected = self.replayed(party.other, due.content.number)
        assert replace(due.content, is_rebased=False) == expected
        self.send(party, due)

    def replayed(self, holder: Party, number: int) -> CommitmentContent:
        """Return what a commitment must say, from the logs alone."""
        balances = dict(self.opened_msat)
        adds: dict[tuple[Party, int], Htlc] = {}
        updates = [
            (party, update)
            for party, n_covered in self.covered[holder, number].items()
            for update in self.logs[party][:n_covered]
        ]
        for party, update in updates:
            if isinstance(update, Rebase):
                balances[Party.OPENER] += 1000 * GROWTH_SAT + update.price_msat
                balances[Party.ACCEPTER] -= update.price_msat
            if isinstance(update, UpdateAdd):
                balances[party] -= update.amount_msat
                adds[party, update.htlc_id] = Htlc(
                    offered_by=party,
                    htlc_id=update.htlc_id,
                    amount_msat=update.amount_msat,
                    payment_hash=update.payment_hash,
                    cltv_expiry=update.cltv_expiry,
                )
        for party, update in updates:
            if isinstance(update, UpdateFulfill | UpdateFail):
                removed = adds.pop((party.other, update.htlc_id))
                receiver = party if isinstance(update, UpdateFulfill) else party.other
                balances[receiver] += removed.amount_msat
        return CommitmentContent(
            holder=holder,
            number=number,
            opener_msat=balances[Party.OPENER],
            accepter_msat=balances[Party.ACCEPTER],
            htlcs=tuple(adds[key] for key in sorted(adds)),
        )

    def revoke(self, party: Party) -> None:
        settlement, due = revoke(self.states[party])
        self.states[party] = settlement.state
        if settlement.rebase is not None:
            self.rebased(party)
        self.send(party, due)

    def answerable(self, party: Party) -> list[LiveHtlc]:
        """Return the peer's HTLCs that this party can remove."""
        return [
            live
            for live in self.states[party].htlcs
            if live.htlc.offered_by is party.other and live.stage is HtlcStage.LOCKED_IN
        ]

    def can_sign(self, party: Party) -> bool:
        state = self.states[party]
        return (
            state.is_connected
            and not state.awaits_revocation
            and state.peer_next_point is not None
            and has_changes(state, party.other)
        )

    def can_revoke(self, party: Party) -> bool:
        state = self.states[party]
        return state.is_connected and state.owes_revocation

    # --- the wire ---

    def places_of(self, party: Party, content: CommitmentContent) -> tuple[int, ...]:
        """Return the fundings that a commitment is for, as a party sees it."""
        present = self.places[party]
        if content.is_rebased:
            return (present + 1,)
        return (present, present + 1) if self.is_dual[party] else (present,)

    def signed(self, party: Party, content: CommitmentContent) -> Signed:
        places = self.places_of(party, content)
        said = [sighashes_of(self.terms, content, place) for place in places]
        return Signed(
            places=places,
            sighashes=tuple(sighash for sighash, _ in said),
            htlc_sighashes=tuple(sighash for _, htlcs in said for sighash in htlcs),
        )

    def send(self, party: Party, outgoing: Outgoing) -> None:
        message: Message
        match outgoing:
            case CommitmentDue(content=content, per_commitment_point=point):
                assert point == specimen.point(content.holder, content.number)
                message = self.signed(party, content)
                key = (content.holder, content.number)
                # One number, one content: a second one could never be revoked.
                assert self.sighashes.setdefault(key, message) == message
                # Said again by whoever is over with the rebase it is as any other on its funding.
                self.contents[key] = replace(content, is_rebased=False)
            case RevocationDue(number=number):
                message = Revoked(
                    secret=specimen.secret(party, number),
                    next_point=specimen.point(party, outgoing.next_number),
                )
            case _:
                message = outgoing
        self.inboxes[party.other].append(message)

    def deliver(self, party: Party) -> Message:
        """Let a party take the next message on its way to it."""
        message, state = self.inboxes[party].popleft(), self.states[party]
        match message:
            case Ready(second_point=point):
                state = receive_channel_ready(state, point)
            case Signed():
                state, content = receive_commitment(state)
                assert replace(content, is_rebased=False) == self.contents[party, content.number]
                assert content.number > self.received[party]
                self.received[party] = content.number
                assert self.signed(party, content) == message
            case Revoked(secret=secret, next_point=point):
                settlement = receive_revocation(state, secret=secret, next_point=point)
                state = settlement.state
                if settlement.rebase is not None:
                    self.rebased(party)
                number = state.peer_revoked - 1
                assert state.peer_secrets.secret_of(number) == specimen.secret(party.other, number)
            case Reestablish():
                state = self.resume(party, state, message)
            case Rebase():
                state = receive_rebase(state, message)
            case _:
                state = receive_update(state, message)
        self.states[party] = state
        return message

    def resume(self, party: Party, state: ChannelState, message: Reestablish) -> ChannelState:
        number = message.next_revocation_number - 1
        resumption = receive_reestablish(
            state, message, own_point=specimen.point(party, number) if number >= 0 else None
        )
        if resumption.resends_channel_ready:
            self.inboxes[party.other].append(Ready(specimen.point(party, 1)))
        for outgoing in resumption.resend:
            self.send(party, outgoing)
        return resumption.state

    def break_connection(self) -> None:
        """Lose everything on its way; both greet one another again."""
        for party in Party:
            self.inboxes[party].clear()
            self.states[party] = disconnect(self.states[party])
        for party in Party:
            self.inboxes[party.other].append(reestablish_message(self.states[party]))

    def settle(self) -> None:
        """Let both act until nothing is left to do."""
        is_busy = True
        while is_busy:
            is_busy = False
            for party in Party:
                while self.inboxes[party]:
                    self.deliver(party)
                    is_busy = True
                if self.can_revoke(party):
                    self.revoke(party)
                    is_busy = True
                if self.can_sign(party):
                    self.sign(party)
                    is_busy = True
