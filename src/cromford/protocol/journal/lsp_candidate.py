"""One funding transaction while it is being signed: who gave what, and who signs what.

The journal holds no transaction but the funding. Session k of a client's branch takes nonce k of
its pool, session k of the whole tree nonce k of the LSP's. First commitments take nonces of both
channel pools: 0 the LSP's, 1 the client's. Of a ladder's next candidate the sessions begin where
those of the one before end, in the pools of the factory keys; each has channel pools of its own.
Pools are fresh for every attempt, so no index is taken twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cromford.channel.terms import Party
from cromford.effects import SignRequest
from cromford.factory.branch import SignedBranch, branch_of, signed_branch_of
from cromford.factory.shape import LSP_INDEX
from cromford.factory.tree import SignedTree
from cromford.protocol.journal.lsp_blueprint import LspBlueprint
from cromford.signing.nonces import PublicPool
from cromford.signing.round import (
    FaultyContribution,
    SigningRound,
    SigningSession,
    aggregate_nonces,
)
from cromford.wire import messages as m


@dataclass(frozen=True, kw_only=True)
class LspCandidate:
    """A blueprint and the pools it is signed with: every signing session of its ceremony."""

    blueprint: LspBlueprint
    joins: tuple[m.Join, ...]
    factory_pool: PublicPool
    channel_pools: tuple[PublicPool, ...]

    @property
    def pool_ids(self) -> tuple[bytes, ...]:
        """The ids of every pool of ours, the factory key's first."""
        return tuple(pool.pool_id for pool in (self.factory_pool, *self.channel_pools))

    @cached_property
    def sessions(self) -> dict[str, SigningSession]:
        """Every signing session by transaction name, depth first.

        Raises:
            FaultyContribution: If a client's public nonce is malformed.
        """
        n_seen = [self._first_index(i) for i in range(len(self.joins) + 1)]
        pools = [
            self.factory_pool.pubnonces,
            *(join.factory_pool.pubnonces for join in self.joins),
        ]
        pubkeys = self.blueprint.factory_pubkeys
        sessions: dict[str, SigningSession] = {}
        for node in self.blueprint.tree.nodes:
            pubnonces: dict[bytes, bytes] = {}
            for signer in node.signers:
                # Depth first, a client meets the transactions of its own branch in order.
                pubnonces[pubkeys[signer]] = pools[signer][n_seen[signer]]
                n_seen[signer] += 1
            sessions[node.name] = SigningSession(
                task=node.task, pubnonces=pubnonces, aggnonce=aggregate_nonces(pubnonces)
            )
        return sessions

    def _first_index(self, participant: int) -> int:
        """Return the index in a factory pool from which on this candidate takes nonces.

        Each candidate's tree has the same transactions, and each of them the same signers.
        """
        rung, tree = self.blueprint.rung, self.blueprint.tree
        if not rung:
            return 0
        nodes = tree.nodes if participant == LSP_INDEX else branch_of(tree, participant).nodes
        return rung * len(nodes)

    @cached_property
    def commitment_sessions(self) -> dict[tuple[int, Party], SigningSession]:
        """The signing session of every first commitment, by client and holder.

        Raises:
            FaultyContribution: If a client's public nonce is malformed.
        """
        sessions: dict[tuple[int, Party], SigningSession] = {}
        for (client, holder), commitment in self.blueprint.first_commitments.items():
            own, theirs = (
                self.channel_pools[client - 1],
                self.joins[client - 1].candidates[self.blueprint.rung].pool,
            )
            pubnonces = {pool.pubkey: pool.pubnonces[holder] for pool in (own, theirs)}
            sessions[client, holder] = SigningSession(
                task=commitment.signing_task,
                pubnonces=pubnonces,
                aggnonce=aggregate_nonces(pubnonces),
            )
        return sessions

    def proposal_for(self, client: int) -> m.CandidateProposal:
        """Return what is proposed to one client: its own branch and channel."""
        branch = self.blueprint.branch(client)
        return m.CandidateProposal(
            funding_tx=self.blueprint.funding_tx.serialize(),
            vertices=tuple(
                m.BranchVertex(
                    kickoff_tx=b"" if vertex.is_static else vertex.first.tx.serialize(),
                    state_tx=vertex.last.tx.serialize(),
                )
                for vertex in branch.vertices
            ),
            nonces=tuple(
                m.NonceUse(index=i, aggnonce=self.sessions[node.name].aggnonce)
                for i, node in enumerate(branch.nodes, start=self._first_index(client))
            ),
            channel=self.blueprint.channels[client - 1],
            commitment_nonces=tuple(
                m.NonceUse(
                    index=int(holder),
                    aggnonce=self.commitment_sessions[client, holder].aggnonce,
                )
                for holder in Party
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
        pool_id = self.factory_pool.pool_id  # The hash of all its nonces.
        return tuple(
            SignRequest(
                pool_id=pool_id,
                nonce_index=i,
                task=session.task,
                aggnonce=session.aggnonce,
            )
            for i, (name, session) in enumerate(
                self.sessions.items(), start=self._first_index(LSP_INDEX)
            )
            if (name == self.blueprint.root_name) is root
        )

    def below_round(
        self, partial_sigs: Mapping[int, tuple[bytes, ...]], own: Mapping[str, bytes]
    ) -> SigningRound:
        """Return the round below the root: each client's part in its branch's order, and ours.

        Raises:
            FaultyContribution: If a partial signature is malformed.
        """
        below = (node.name for node in self.blueprint.tree.nodes_below_root)
        sessions = {name: self.sessions[name] for name in below}
        pubkeys = self.blueprint.factory_pubkeys
        contributions = [(pubkeys[LSP_INDEX], {name: own[name] for name in sessions})]
        for client, theirs in partial_sigs.items():
            names = [node.name for node in self.blueprint.branch(client).nodes_below_root]
            contributions.append((pubkeys[client], dict(zip(names, theirs, strict=True))))
        return SigningRound(sessions=sessions).with_contributions(contributions)

    def commitment_round(
        self, partial_sigs: Mapping[int, bytes], own: Mapping[str, bytes]
    ) -> SigningRound:
        """Return the round of our own first commitments: each client's half and ours.

        Raises:
            FaultyContribution: If a partial signature is malformed.
        """
        sessions = {
            client: session
            for (client, holder), session in self.commitment_sessions.items()
            if holder is Party.OPENER
        }
        contributions: list[tuple[bytes, Mapping[str, bytes]]] = []
        for client, session in sessions.items():
            name, (lsp_pubkey, client_pubkey) = session.task.name, session.pubnonces
            contributions.append((client_pubkey, {name: partial_sigs[client]}))
            contributions.append((lsp_pubkey, {name: own[name]}))
        by_name = {session.task.name: session for session in sessions.values()}
        return SigningRound(sessions=by_name).with_contributions(contributions)

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
        return self.blueprint.factory_pubkeys.index(fault.signer)

    def root_round(
        self, partial_sigs: Mapping[int, bytes], own: Mapping[str, bytes]
    ) -> SigningRound:
        """Return the round of the root: each client's part and ours.

        Raises:
            FaultyContribution: If a partial signature is malformed.
        """
        root = self.blueprint.root_name
        pubkeys = self.blueprint.factory_pubkeys
        contributions = [
            (pubkeys[client], {root: partial_sig}) for client, partial_sig in partial_sigs.items()
        ]
        signing_round = SigningRound(sessions={root: self.sessions[root]})
        return signing_round.with_contributions([*contributions, (pubkeys[LSP_INDEX], own)])


@dataclass(frozen=True, kw_only=True)
class SignaturesBelow:
    """Every signature below the root and of the first commitments.

    Attributes:
        blueprint: What was signed.
        signatures: Of the tree below the root, depth first.
        commitment_signatures: Of our own first commitments, one per client.
        commitment_partial_sigs: Our halves of the clients', one per client.
    """

    blueprint: LspBlueprint
    signatures: tuple[bytes, ...]
    commitment_signatures: tuple[bytes, ...]
    commitment_partial_sigs: tuple[bytes, ...]

    @cached_property
    def by_name(self) -> dict[str, bytes]:
        """The signatures by transaction name."""
        below = [node.name for node in self.blueprint.tree.nodes_below_root]
        return dict(zip(below, self.signatures, strict=True))

    def for_client(self, client: int) -> m.BranchSignatures:
        """Return one client's share: its branch below the root, our half of its commitment."""
        return m.BranchSignatures(
            signatures=tuple(
                self.by_name[node.name] for node in self.blueprint.branch(client).nodes_below_root
            ),
            commitment_partial_sig=self.commitment_partial_sigs[client - 1],
        )


@dataclass(frozen=True, kw_only=True)
class SignedCandidate:
    """A candidate with every signature: everybody can exit once it is funded."""

    below: SignaturesBelow
    root_signature: bytes

    @property
    def blueprint(self) -> LspBlueprint:
        """What was signed."""
        return self.below.blueprint

    @cached_property
    def tree(self) -> SignedTree:
        """The tree with every signature.

        Raises:
            InvalidSignature: If one does not verify.
        """
        return self.blueprint.tree.with_signatures(self.by_name)

    @property
    def by_name(self) -> dict[str, bytes]:
        """The signatures by transaction name."""
        return {**self.below.by_name, self.blueprint.root_name: self.root_signature}

    def branch(self, client: int) -> SignedBranch:
        """Return one client's branch with every signature: what we publish to exit it."""
        return signed_branch_of(self.tree, client)
