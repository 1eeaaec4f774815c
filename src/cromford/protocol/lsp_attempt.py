"""One attempt to build a factory, as the LSP remembers it: who gave what, and what is complete.

Everything is computed from the terms, the keys and the pools; the journal holds no transaction
but the funding. Session k of a client's branch takes nonce k of its pool, session k of the whole
tree nonce k of the LSP's. First commitments take nonces of both channel pools: 0 the LSP's, 1 the
client's. Pools are fresh for every attempt, so no index is taken twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.commitment import Commitment
from cromford.channel.held import HeldCommitment, hold
from cromford.channel.terms import Party
from cromford.effects import SignRequest
from cromford.factory.branch import Branch, SignedBranch, branch_of
from cromford.factory.shape import LSP_INDEX
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import FACTORY_VOUT, SignedTree, Tree, build_tree
from cromford.factory.vertices import ChannelFundingPubkeys
from cromford.protocol.first_commitments import ChannelSetting, channel_setting
from cromford.signing.nonces import PublicPool
from cromford.signing.round import (
    FaultyContribution,
    SigningRound,
    SigningSession,
    aggregate_nonces,
)
from cromford.wire import messages as m

ROOT = "kickoff_root"


@dataclass(frozen=True, slots=True, kw_only=True)
class LspSeat:
    """A client's seat: who, and the keys and pools it joined with."""

    node_id: bytes
    join: m.Join


@dataclass(frozen=True, kw_only=True)
class LspAttempt:
    """What the LSP remembers of one attempt."""

    attempt_id: bytes
    key_attempt: int
    terms: FactoryTerms
    seats: tuple[LspSeat, ...]
    reasons: tuple[str, ...]  # why each client has its seat
    factory_pool: PublicPool
    channels: tuple[m.ChannelOffer, ...]
    channel_pools: tuple[PublicPool, ...]
    funding_tx: Tx
    below_partials: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)
    commitment_partials: Mapping[int, bytes] = field(default_factory=dict)  # of our own, by client
    below_signatures: tuple[bytes, ...] = ()
    commitment_signatures: tuple[bytes, ...] = ()  # of our own, one per client
    commitment_partial_sigs: tuple[bytes, ...] = ()  # our halves of the clients'
    root_partials: Mapping[int, bytes] = field(default_factory=dict)
    root_signature: bytes | None = None
    acknowledged: frozenset[int] = frozenset()
    signed_funding_tx: Tx | None = None
    aborted: str | None = None
    culprits: tuple[bytes, ...] = ()
    ready_sent: bool = False
    ready_received: frozenset[bytes] = frozenset()

    @property
    def phase(self) -> str:
        """Where the ceremony stands, in one word."""
        if self.aborted is not None:
            return "aborted"
        if self.signed_funding_tx is not None:
            return "funding"
        if self.root_signature is not None:
            return "acknowledging"
        if self.below_signatures:
            return "signing_root"
        return "signing_below"

    @property
    def is_open(self) -> bool:
        """Whether the ceremony is under way."""
        return self.aborted is None and self.signed_funding_tx is None

    @property
    def holdouts(self) -> tuple[int, ...]:
        """The clients whose contribution the present phase waits for."""
        done: frozenset[int]
        match self.phase:
            case "signing_below":
                done = frozenset(self.below_partials)
            case "signing_root":
                done = frozenset(self.root_partials)
            case "acknowledging":
                done = self.acknowledged
            case _:
                return ()
        return tuple(i for i in range(1, len(self.seats) + 1) if i not in done)

    def client_of(self, node_id: bytes) -> int | None:
        """Return a client's participant index, or None."""
        for i, seat in enumerate(self.seats, start=1):
            if seat.node_id == node_id:
                return i
        return None

    @property
    def factory_pubkeys(self) -> tuple[bytes, ...]:
        """One per participant, the LSP's first."""
        return (
            self.factory_pool.pubkey,
            *(seat.join.factory_pool.pubkey for seat in self.seats),
        )

    @property
    def pool_ids(self) -> tuple[bytes, ...]:
        """The ids of every pool of ours, the factory key's first."""
        return tuple(pool.pool_id for pool in (self.factory_pool, *self.channel_pools))

    @property
    def funding_outpoint(self) -> OutPoint:
        """What kickoff_root spends."""
        return self.funding_tx.outpoint(FACTORY_VOUT)

    @cached_property
    def tree(self) -> Tree:
        """The whole tree."""
        return build_tree(
            self.terms,
            factory_pubkeys=self.factory_pubkeys,
            channels=[
                ChannelFundingPubkeys(
                    client_funding_pubkey=seat.join.candidates[0].channel.funding_pubkey,
                    lsp_funding_pubkey=channel.funding_pubkey,
                )
                for seat, channel in zip(self.seats, self.channels, strict=True)
            ],
            funding_outpoint=self.funding_outpoint,
        )

    @cached_property
    def watched_txids(self) -> frozenset[Txid]:
        """The funding transaction and every tree transaction."""
        return frozenset({self.funding_tx.txid, *(node.tx.txid for node in self.tree.nodes)})

    @cached_property
    def sessions(self) -> dict[str, SigningSession]:
        """Every signing session by transaction name, depth first.

        Raises:
            FaultyContribution: If a client's public nonce is malformed.
        """
        n_seen = [0] * (len(self.seats) + 1)
        pools = [
            self.factory_pool.pubnonces,
            *(seat.join.factory_pool.pubnonces for seat in self.seats),
        ]
        pubkeys = self.factory_pubkeys
        sessions: dict[str, SigningSession] = {}
        for node in self.tree.nodes:
            pubnonces: dict[bytes, bytes] = {}
            for signer in node.signers:
                # Depth first, a client meets the transactions of its own branch in order.
                pubnonces[pubkeys[signer]] = pools[signer][n_seen[signer]]
                n_seen[signer] += 1
            sessions[node.name] = SigningSession(
                task=node.task, pubnonces=pubnonces, aggnonce=aggregate_nonces(pubnonces)
            )
        return sessions

    @cached_property
    def settings(self) -> tuple[ChannelSetting, ...]:
        """Every client's channel."""
        settings: list[ChannelSetting] = []
        for client, (seat, offer) in enumerate(zip(self.seats, self.channels, strict=True), 1):
            branch = self.branch(client)
            settings.append(
                channel_setting(
                    self.terms,
                    outpoint=branch.channel_outpoint,
                    capacity_sat=branch.channel.amount_sat,
                    lsp=offer,
                    client=seat.join.candidates[0].channel,
                )
            )
        return tuple(settings)

    def setting(self, client: int) -> ChannelSetting:
        """Return one client's channel."""
        return self.settings[client - 1]

    @cached_property
    def first_commitments(self) -> dict[tuple[int, Party], Commitment]:
        """Every first commitment, by client and holder."""
        return {
            (client, holder): setting.first_commitment(holder)
            for client, setting in enumerate(self.settings, start=1)
            for holder in Party
        }

    @cached_property
    def commitment_sessions(self) -> dict[tuple[int, Party], SigningSession]:
        """The signing session of every first commitment, by client and holder.

        Raises:
            FaultyContribution: If a client's public nonce is malformed.
        """
        sessions: dict[tuple[int, Party], SigningSession] = {}
        for (client, holder), commitment in self.first_commitments.items():
            own, theirs = (
                self.channel_pools[client - 1],
                self.seats[client - 1].join.candidates[0].pool,
            )
            pubnonces = {pool.pubkey: pool.pubnonces[holder] for pool in (own, theirs)}
            sessions[client, holder] = SigningSession(
                task=commitment.signing_task,
                pubnonces=pubnonces,
                aggnonce=aggregate_nonces(pubnonces),
            )
        return sessions

    @cached_property
    def _first_held(self) -> dict[int, HeldCommitment]:
        return {}

    def first_held(self, client: int) -> HeldCommitment:
        """Return our first commitment of one client's channel, ready to be published.

        Raises:
            PeerViolation: If its signature is not valid.
            ValueError: If we do not hold it yet.
        """
        if not self.commitment_signatures:
            raise ValueError(f"attempt {self.attempt_id.hex()}: no commitment is held")
        if client not in self._first_held:
            self._first_held[client] = hold(
                self.first_commitments[client, Party.OPENER],
                signature=self.commitment_signatures[client - 1],
            )
        return self._first_held[client]

    @cached_property
    def _signed_branches(self) -> dict[int, SignedBranch]:
        return {}

    def signed_branch(self, client: int) -> SignedBranch:
        """Return one client's branch with every signature: what we publish to leave it.

        Raises:
            KeyError: If a signature is missing.
        """
        if client not in self._signed_branches:
            signed = self.branch(client).with_signatures(self.signatures)
            self._signed_branches[client] = signed
        return self._signed_branches[client]

    def branch(self, client: int) -> Branch:
        """Return one client's branch."""
        return branch_of(self.tree, client)

    def proposal_for(self, client: int) -> m.Propose:
        """Return what is proposed to one client: the terms and its own branch."""
        branch = self.branch(client)
        pubkeys = self.factory_pubkeys
        return m.Propose(
            factory_pubkey=pubkeys[client],
            attempt_id=self.attempt_id,
            terms_hash=self.terms.terms_hash,
            terms=self.terms.encode(),
            client=client,
            candidates=(
                m.CandidateProposal(
                    funding_tx=self.funding_tx.serialize(),
                    vertices=tuple(
                        m.BranchVertex(
                            signers=tuple(pubkeys[i] for i in vertex.kickoff.signers),
                            kickoff_tx=vertex.kickoff.tx.serialize(),
                            state_tx=vertex.state.tx.serialize(),
                        )
                        for vertex in branch.vertices
                    ),
                    nonces=tuple(
                        m.NonceUse(index=i, aggnonce=self.sessions[node.name].aggnonce)
                        for i, node in enumerate(branch.nodes)
                    ),
                    channel=self.channels[client - 1],
                    commitment_nonces=tuple(
                        m.NonceUse(
                            index=int(holder),
                            aggnonce=self.commitment_sessions[client, holder].aggnonce,
                        )
                        for holder in Party
                    ),
                ),
            ),
        )

    def own_commitment_requests(self) -> tuple[SignRequest, ...]:
        """Return the requests for the LSP's halves of every first commitment."""
        return tuple(
            SignRequest(
                pool_id=self.channel_pools[client - 1].pool_id,
                nonce_index=int(holder),
                task=session.task,
                aggnonce=session.aggnonce,
            )
            for (client, holder), session in self.commitment_sessions.items()
        )

    def own_requests(self, *, root: bool) -> tuple[SignRequest, ...]:
        """Return the requests for the LSP's own partial signatures, of the root or below it."""
        return tuple(
            SignRequest(
                pool_id=self.factory_pool.pool_id,
                nonce_index=i,
                task=session.task,
                aggnonce=session.aggnonce,
            )
            for i, (name, session) in enumerate(self.sessions.items())
            if (name == ROOT) is root
        )

    def below_round(self, own: Mapping[str, bytes]) -> SigningRound:
        """Return the round below the root with all that has arrived and our own part.

        Raises:
            FaultyContribution: If a partial signature is malformed.
        """
        sessions = {name: s for name, s in self.sessions.items() if name != ROOT}
        signing_round = SigningRound(sessions=sessions)
        for client, partial_sigs in self.below_partials.items():
            names = [node.name for node in self.branch(client).nodes_below_root]
            signing_round = signing_round.with_contribution(
                self.factory_pubkeys[client], dict(zip(names, partial_sigs, strict=True))
            )
        own_below = {name: own[name] for name in sessions}
        return signing_round.with_contribution(self.factory_pubkeys[LSP_INDEX], own_below)

    def commitment_round(self, own: Mapping[str, bytes]) -> SigningRound:
        """Return the round of our own first commitments: each client's half and ours.

        Raises:
            FaultyContribution: If a partial signature is malformed.
        """
        sessions = {
            client: session
            for (client, holder), session in self.commitment_sessions.items()
            if holder is Party.OPENER
        }
        signing_round = SigningRound(sessions={s.task.name: s for s in sessions.values()})
        for client, session in sessions.items():
            name, (lsp_pubkey, client_pubkey) = session.task.name, session.pubnonces
            signing_round = signing_round.with_contribution(
                client_pubkey, {name: self.commitment_partials[client]}
            ).with_contribution(lsp_pubkey, {name: own[name]})
        return signing_round

    def blamed(self, fault: FaultyContribution) -> int:
        """Return the client who spoiled a session, of a tree transaction or of a commitment.

        Raises:
            AssertionError: If the bad contribution is our own.
        """
        if fault.signer in {pool.pubkey for pool in (self.factory_pool, *self.channel_pools)}:
            raise AssertionError(f"our own contribution: {fault}")
        for (client, _), session in self.commitment_sessions.items():
            if session.task.name == fault.session_name:
                return client
        return self.factory_pubkeys.index(fault.signer)

    def root_round(self, own: Mapping[str, bytes]) -> SigningRound:
        """Return the round of kickoff_root with all that has arrived and our own part.

        Raises:
            FaultyContribution: If a partial signature is malformed.
        """
        signing_round = SigningRound(sessions={ROOT: self.sessions[ROOT]})
        for client, partial_sig in self.root_partials.items():
            signing_round = signing_round.with_contribution(
                self.factory_pubkeys[client], {ROOT: partial_sig}
            )
        return signing_round.with_contribution(self.factory_pubkeys[LSP_INDEX], own)

    @cached_property
    def signatures(self) -> dict[str, bytes]:
        """Every finished signature so far, by transaction name."""
        below = [name for name in self.sessions if name != ROOT] if self.below_signatures else []
        signatures = dict(zip(below, self.below_signatures, strict=True))
        if self.root_signature is not None:
            signatures[ROOT] = self.root_signature
        return signatures

    def signed_below_for(self, client: int) -> m.SignedBelow:
        """Return the finished signatures of one client's branch below the root."""
        return m.SignedBelow(
            attempt_id=self.attempt_id,
            terms_hash=self.terms.terms_hash,
            candidates=(
                m.BranchSignatures(
                    signatures=tuple(
                        self.signatures[node.name] for node in self.branch(client).nodes_below_root
                    ),
                    commitment_partial_sig=self.commitment_partial_sigs[client - 1],
                ),
            ),
        )

    def signed_root(self) -> m.SignedRoot:
        """Return the finished kickoff_root for the clients.

        Raises:
            ValueError: If it is not signed.
        """
        if self.root_signature is None:
            raise ValueError("kickoff_root is not signed")
        return m.SignedRoot(
            attempt_id=self.attempt_id,
            terms_hash=self.terms.terms_hash,
            signatures=(self.root_signature,),
        )

    @property
    def signed_tree(self) -> SignedTree:
        """The tree with every signature.

        Raises:
            KeyError: If one is missing.
        """
        return self.tree.with_signatures(self.signatures)
