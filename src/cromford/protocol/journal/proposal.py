"""What would follow from a proposal: for its checks, for what is signed of it, and for nobody else.

Only keys, terms and the scripts that lead to others are taken from the message; everything else is
computed. What passed every check is kept without most of this (`kept`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from cromford.bitcoin.script import is_p2tr
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.commitment import Commitment
from cromford.channel.terms import Party
from cromford.codec.reader import MalformedBytes
from cromford.effects import SignRequest
from cromford.factory.branch import Branch, build_branch
from cromford.factory.shape import PlannedVertex, plan_of
from cromford.factory.terms import FactoryTerms, decode_terms
from cromford.factory.tree import FACTORY_VOUT
from cromford.factory.vertices import ChannelFundingPubkeys, TreeNode
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.first_commitments import ChannelSetting, channel_setting
from cromford.protocol.journal.kept import (
    KeptJoin,
    KeptProposal,
    kept_candidate,
    leaf_pubkeys_of,
)
from cromford.wire.messages import CandidateProposal, NonceUse, Propose


@dataclass(frozen=True, kw_only=True)
class ClaimedCandidate:
    """What an LSP proposes under one funding transaction, and what a client computes of it.

    `rung` is its place in the fee ladder, the lowest feerate first.
    """

    join: KeptJoin
    propose: Propose
    rung: int = 0

    @property
    def candidate(self) -> CandidateProposal:
        """What is proposed."""
        return self.propose.candidates[self.rung]

    @cached_property
    def terms(self) -> FactoryTerms:
        """The agreement."""
        return decode_terms(self.propose.terms)

    @cached_property
    def branch(self) -> Branch:
        """The client's branch, computed."""
        return branch_of_claim(
            self.propose,
            self.candidate,
            terms=self.terms,
            client_funding_pubkey=self.join.candidates[self.rung].channel.funding_pubkey,
        )

    @cached_property
    def setting(self) -> ChannelSetting:
        """The client's channel: the output at the end of its branch, both sides' keys."""
        return channel_setting(
            self.terms,
            outpoint=self.branch.channel_outpoint,
            channel=self.branch.channel,
            lsp=self.candidate.channel,
            client=self.join.candidates[self.rung].channel,
        )

    @property
    def first_commitments(self) -> tuple[Commitment, Commitment]:
        """The LSP's first commitment and the client's."""
        first = self.setting.first_commitment
        return first(Party.OPENER), first(Party.ACCEPTER)

    @cached_property
    def funding_tx(self) -> Tx:
        """The funding transaction, unsigned."""
        return Tx.parse(self.candidate.funding_tx)

    @property
    def funding_outpoint(self) -> OutPoint:
        """The factory's place in it."""
        return self.funding_tx.outpoint(FACTORY_VOUT)

    def below_requests(self) -> Iterator[SignRequest]:
        """Yield the requests for our partial signatures of all below the root, in branch order.

        Those of the LSP's first commitment, and of ours, come last.
        """
        nodes, uses = self.branch.nodes, self.candidate.nonces
        for node, use in [*zip(nodes, uses, strict=True)][1:]:
            yield self._request(node, use)
        for commitment, use in zip(
            self.first_commitments, self.candidate.commitment_nonces, strict=True
        ):
            yield SignRequest(
                pool_id=self.join.candidates[self.rung].pool.pool_id,
                nonce_index=use.index,
                task=commitment.signing_task,
                aggnonce=use.aggnonce,
            )

    @property
    def root_request(self) -> SignRequest:
        """The request for our partial signature of the root."""
        return self._request(self.branch.root_node, self.root_use)

    @property
    def root_use(self) -> NonceUse:
        """The session of the root, which is the first of the branch."""
        return self.candidate.nonces[0]

    def _request(self, node: TreeNode, use: NonceUse) -> SignRequest:
        return SignRequest(
            pool_id=self.join.factory_pool.pool_id,
            nonce_index=use.index,
            task=node.task,
            aggnonce=use.aggnonce,
        )


def claims_of(join: KeptJoin, propose: Propose) -> tuple[ClaimedCandidate, ...]:
    """Return what would follow from a proposal under each candidate; one at least."""
    n_candidates = max(1, len(propose.candidates))
    return tuple(
        ClaimedCandidate(join=join, propose=propose, rung=rung) for rung in range(n_candidates)
    )


def kept_proposal(claims: Sequence[ClaimedCandidate]) -> KeptProposal:
    """Return what is kept of what passed every check, or passed them once."""
    first = claims[0]
    return KeptProposal(
        client=first.propose.client,
        n_clients=first.terms.n_clients,
        terms=first.terms.of_branch.encode(),
        leaf_pubkeys=leaf_pubkeys_of(first.branch, first.propose.factory_pubkeys),
        candidates=tuple(
            kept_candidate(
                claim.branch,
                funding_tx=claim.candidate.funding_tx,
                channel=claim.candidate.channel,
                root=claim.root_use,
                commitment_aggnonce=claim.candidate.commitment_nonces[Party.ACCEPTER].aggnonce,
            )
            for claim in claims
        ),
    )


def branch_of_claim(
    propose: Propose,
    candidate: CandidateProposal,
    *,
    terms: FactoryTerms,
    client_funding_pubkey: bytes,
) -> Branch:
    """Return a client's branch under one candidate, computed from a proposal's terms and keys.

    Raises:
        Refusal: If a script that leads to others is missing, or is none.
    """
    path = plan_of(terms).path_to(propose.client)
    leaf, client = path[-1].shape, propose.client
    siblings: dict[tuple[int, ...], bytes] = {}
    for layer, (vertex, below) in enumerate(pairwise(path)):
        sent = _sent_last(candidate, vertex, layer)
        for vout, child in enumerate(vertex.shape.children):
            if child.path != below.shape.path:
                siblings[child.path] = _taproot_of(sent, vout)
    sent = _sent_last(candidate, path[-1], len(path) - 1)
    return build_branch(
        terms,
        client=client,
        factory_pubkeys=propose.factory_pubkeys,
        channel_keys=ChannelFundingPubkeys(
            client_funding_pubkey=client_funding_pubkey,
            lsp_funding_pubkey=candidate.channel.funding_pubkey,
        ),
        neighbour_scripts={
            other: _taproot_of(sent, vout)
            for vout, other in enumerate(leaf.clients)
            if other != client
        },
        sibling_scripts=siblings,
        funding_outpoint=Tx.parse(candidate.funding_tx).outpoint(FACTORY_VOUT),
    )


def _sent_last(candidate: CandidateProposal, vertex: PlannedVertex, layer: int) -> tuple[str, Tx]:
    """Return the name and the bytes of a vertex's last transaction, as the LSP sent it."""
    name = f"{vertex.last_label}_{vertex.shape.name}"
    return name, parse_tree_tx(name, candidate.vertices[layer].state_tx)


def _taproot_of(sent: tuple[str, Tx], vout: int) -> bytes:
    """Return a script that leads to somebody else.

    Raises:
        Refusal: If it is missing, or none that every node relays.
    """
    name, tx = sent
    script = tx.outputs[vout].script_pubkey if vout < len(tx.outputs) else b""
    if not is_p2tr(script):
        received = script.hex() or "none"
        raise Refusal(f"{name}.output[{vout}]", expected="a taproot output", received=received)
    return script


def parse_tree_tx(name: str, data: bytes) -> Tx:
    """Return a transaction the LSP sent.

    Raises:
        Refusal: Naming the transaction, if the bytes are none.
    """
    try:
        return Tx.parse(data)
    except MalformedBytes as error:
        raise Refusal(name, expected="a transaction", received=error) from error
