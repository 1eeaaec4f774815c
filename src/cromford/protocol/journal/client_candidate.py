"""One funding transaction that is proposed to a client, and what it computes for itself of it.

Until the checks have passed this is a claim, which only they may read (`Received.claim`). What they
computed is kept: whoever accepts a branch does not build it a second time.
"""

from dataclasses import dataclass
from functools import cached_property

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.commitment import Commitment
from cromford.channel.errors import PeerViolation
from cromford.channel.finished import finish_commitment
from cromford.channel.terms import Party
from cromford.crypto.musig2 import InvalidContribution
from cromford.effects import SignRequest
from cromford.factory.branch import Branch
from cromford.factory.key_path import InvalidSignature
from cromford.factory.lifetime import Lifetime, lifetime_of
from cromford.factory.terms import FactoryTerms, decode_terms
from cromford.factory.tree import FACTORY_VOUT
from cromford.factory.vertices import TreeNode
from cromford.protocol.faults import FaultyLsp
from cromford.protocol.journal.first_commitments import ChannelSetting
from cromford.protocol.journal.proposal import own_channel, rebuild_branch
from cromford.signing.nonces import PublicPool
from cromford.wire.messages import Join, Pool, Propose


@dataclass(frozen=True, kw_only=True)
class ClientCandidate:
    """A client's branch and channel under one funding transaction, and its signing sessions.

    `rung` is its place in the fee ladder, the lowest feerate first.
    """

    join: Join
    propose: Propose
    rung: int = 0

    @cached_property
    def terms(self) -> FactoryTerms:
        """The agreement."""
        return decode_terms(self.propose.terms)

    @cached_property
    def branch(self) -> Branch:
        """The client's branch, recomputed."""
        return rebuild_branch(self.propose, terms=self.terms, join=self.join, rung=self.rung)

    @cached_property
    def lifetime(self) -> Lifetime:
        """When the client's channel dies, by its own path."""
        return lifetime_of(self.terms, self.branch.kinds)

    @cached_property
    def setting(self) -> ChannelSetting:
        """The client's channel."""
        return own_channel(self.propose, join=self.join, branch=self.branch, rung=self.rung)

    @cached_property
    def first_commitments(self) -> tuple[Commitment, Commitment]:
        """The LSP's first commitment and the client's."""
        first = self.setting.first_commitment
        return first(Party.OPENER), first(Party.ACCEPTER)

    @cached_property
    def funding_tx(self) -> Tx:
        """The agreed funding transaction, unsigned."""
        return Tx.parse(self.propose.candidates[self.rung].funding_tx)

    @property
    def funding_outpoint(self) -> OutPoint:
        """The factory's place in it."""
        return self.funding_tx.outpoint(FACTORY_VOUT)

    @cached_property
    def watched_txids(self) -> frozenset[Txid]:
        """The funding transaction and the client's own branch."""
        return frozenset({self.funding_tx.txid, *(node.tx.txid for node in self.branch.nodes)})

    @cached_property
    def branch_outpoints(self) -> frozenset[OutPoint]:
        """What the transactions of the client's branch spend."""
        return frozenset(node.tx.inputs[0].outpoint for node in self.branch.nodes)

    def request_for(self, node: TreeNode) -> SignRequest:
        """Return the request for our partial signature of one transaction."""
        position = [other.name for other in self.branch.nodes].index(node.name)
        use = self.propose.candidates[self.rung].nonces[position]
        return SignRequest(
            pool_id=pool_id_of(self.join),
            nonce_index=use.index,
            task=node.task,
            aggnonce=use.aggnonce,
        )

    def commitment_request(self, holder: Party) -> SignRequest:
        """Return the request for our half of a first commitment."""
        use = self.propose.candidates[self.rung].commitment_nonces[holder]
        return SignRequest(
            pool_id=channel_pool_id_of(self.join, self.rung),
            nonce_index=use.index,
            task=self.first_commitments[holder].signing_task,
            aggnonce=use.aggnonce,
        )

    def commitment_signature(self, *, own_partial_sig: bytes, lsp_partial_sig: bytes) -> bytes:
        """Return the finished, verified signature of our first commitment.

        Raises:
            FaultyLsp: If the LSP's half is malformed or spoils the whole.
        """
        commitment = self.first_commitments[Party.ACCEPTER]
        use = self.propose.candidates[self.rung].commitment_nonces[Party.ACCEPTER]
        session = commitment.signing_task.session(use.aggnonce)
        try:
            signature = session.partial_sig_agg([own_partial_sig, lsp_partial_sig])
            finish_commitment(commitment, signature=signature)
        except (InvalidContribution, PeerViolation) as error:
            raise FaultyLsp(f"first commitment: {error}") from error
        return signature

    def check_below(self, signatures: tuple[bytes, ...]) -> None:
        """Check the finished signatures below the root: a complete, valid exit.

        Raises:
            FaultyLsp: If one is missing or does not verify.
        """
        nodes = list(self.branch.nodes_below_root)
        if len(nodes) != len(signatures):
            raise FaultyLsp(f"{len(signatures)} signatures for {len(nodes)} transactions")
        for node, signature in zip(nodes, signatures, strict=True):
            check_signature(node, signature)

    def check_root(self, signature: bytes) -> None:
        """Check the finished root.

        Raises:
            FaultyLsp: If it does not verify.
        """
        check_signature(self.branch.root_node, signature)


def check_signature(node: TreeNode, signature: bytes) -> None:
    """Check one finished signature.

    Raises:
        FaultyLsp: If it does not verify: the LSP aggregated it and verified it, or should have.
    """
    try:
        node.signed(signature)
    except InvalidSignature as error:
        raise FaultyLsp(str(error)) from error


def pool_id_of(join: Join) -> bytes:
    """Return the id of the pool that goes with a join's factory key."""
    return _id_of(join.factory_pool)


def channel_pool_id_of(join: Join, rung: int = 0) -> bytes:
    """Return the id of the pool that goes with a join's channel funding key of one candidate."""
    return _id_of(join.candidates[rung].pool)


def pool_ids_of(join: Join) -> tuple[bytes, ...]:
    """Return the ids of every pool that was made for a join, the factory key's first."""
    return (pool_id_of(join), *(_id_of(candidate.pool) for candidate in join.candidates))


def _id_of(pool: Pool) -> bytes:
    return PublicPool(pubkey=pool.pubkey, pubnonces=pool.pubnonces).pool_id
