"""Two machines of one channel, joined by two queues that lose everything when they break.

What the machines name is really built: every `commitment_signed` carries what its signer would
sign, and its receiver compares it with its own, byte for byte.
"""

from collections import deque
from dataclasses import dataclass, field

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
    HtlcUpdate,
    Outgoing,
    Rebase,
    Reestablish,
    RevocationDue,
    UpdateAdd,
    UpdateFail,
    UpdateFulfill,
)
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
    """`commitment_signed`: what was signed, for each funding."""

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


Message = UpdateAdd | UpdateFulfill | UpdateFail | Signed | Revoked | Ready | Reestablish


def two_fundings() -> tuple[Funding, Funding]:
    return (
        specimen.funding(),
        specimen.funding(specimen.CAPACITY_SAT + 25_000, vout=1),
    )


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
    logs: dict[Party, list[HtlcUpdate]] = field(default_factory=lambda: {one: [] for one in Party})
    covered: dict[tuple[Party, int], dict[Party, int]] = field(
        default_factory=lambda: {(party, 0): dict.fromkeys(Party, 0) for party in Party}
    )
    opened_msat: dict[Party, int] = field(default_factory=dict)

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

    def post(self, party: Party, message: HtlcUpdate) -> None:
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
        self.states[party], due = sign_commitment(before)
        assert due.content == before.content(party.other, Edition.NEXT)
        # The holder's own updates are on it as far as this party revoked what was before them.
        self.covered[party.other, due.content.number] = {
            party: len(self.logs[party]),
            party.other: self.covered[party, before.own_revoked][party.other],
        }
        assert due.content == self.replayed(party.other, due.content.number)
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
            if not isinstance(update, UpdateAdd):
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

    def build(self, content: CommitmentContent, point: bytes) -> list[Commitment]:
        return [
            build_commitment(
                content,
                funding=funding,
                terms=self.terms,
                keys=specimen.KEYS,
                per_commitment_point=point,
            )
            for funding in two_fundings()
        ]

    def signed(self, content: CommitmentContent, point: bytes) -> Signed:
        built = self.build(content, point)
        return Signed(
            sighashes=tuple(one.signing_task.sighash for one in built),
            htlc_sighashes=tuple(tx.peer_sighash for one in built for tx in htlc_txs(one)),
        )

    def send(self, party: Party, outgoing: Outgoing) -> None:
        message: Message
        match outgoing:
            case CommitmentDue(content=content, per_commitment_point=point):
                assert point == specimen.point(content.holder, content.number)
                message = self.signed(content, point)
                key = (content.holder, content.number)
                # One number, one content: a second one could never be revoked.
                assert self.sighashes.setdefault(key, message) == message
                self.contents[key] = content
            case RevocationDue(number=number):
                message = Revoked(
                    secret=specimen.secret(party, number),
                    next_point=specimen.point(party, outgoing.next_number),
                )
            case Rebase():
                raise AssertionError("no duet rebases yet")
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
                assert content == self.contents[party, content.number]
                assert content.number > self.received[party]
                self.received[party] = content.number
                assert self.signed(content, specimen.point(party, content.number)) == message
            case Revoked(secret=secret, next_point=point):
                state = receive_revocation(state, secret=secret, next_point=point).state
                number = state.peer_revoked - 1
                assert state.peer_secrets.secret_of(number) == specimen.secret(party.other, number)
            case Reestablish():
                state = self.resume(party, state, message)
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
