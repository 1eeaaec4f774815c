"""One funding transaction that a client accepted: its branch, its channel, and who signed them."""

from dataclasses import dataclass
from functools import cached_property

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.errors import PeerViolation
from cromford.channel.finished import finish_commitment
from cromford.channel.terms import Party
from cromford.crypto.musig2 import InvalidContribution
from cromford.effects import SignRequest
from cromford.factory.branch import Branch, known_branch
from cromford.factory.key_path import InvalidSignature
from cromford.factory.lifetime import Lifetime, lifetime_of
from cromford.factory.shape import LSP_INDEX
from cromford.factory.terms import BranchTerms
from cromford.factory.tree import FACTORY_VOUT
from cromford.factory.vertices import ChannelFundingPubkeys, TreeNode
from cromford.protocol.faults import FaultyLsp
from cromford.protocol.journal import older
from cromford.protocol.journal.first_commitments import ChannelSetting, channel_setting
from cromford.protocol.journal.kept import (
    KeptCandidate,
    KeptJoin,
    KeptProposal,
    offer_in,
)
from cromford.protocol.journal.state_classes import Older
from cromford.wire.messages import Join


@dataclass(frozen=True, kw_only=True)
class ClientCandidate:
    """A client's branch and channel under one funding transaction.

    `rung` is its place in the fee ladder, the lowest feerate first.
    """

    join: KeptJoin
    proposal: KeptProposal
    rung: int = 0

    older = Older({"join": Join, "propose": older.OlderPropose}, older.OlderClaim)

    def take_computed(self, branch: Branch, setting: ChannelSetting) -> None:
        """Take what was computed of the proposal before it was kept, and is not computed again.

        It is what `branch` and `setting` make of what was kept, as they do after a restart.
        """
        self.__dict__.update(branch=branch, setting=setting)

    @property
    def kept(self) -> KeptCandidate:
        """What was kept of it."""
        return self.proposal.candidates[self.rung]

    @cached_property
    def terms(self) -> BranchTerms:
        """What was kept of the agreement."""
        return self.proposal.decoded_terms()

    @cached_property
    def leaf_pubkeys(self) -> dict[int, bytes]:
        """The factory keys of the LSP and of our leaf's clients, by participant index.

        A client's own key is among them, so that its place says which clients they are.
        """
        lsp, *clients = self.proposal.leaf_pubkeys
        first = self.proposal.client - clients.index(self.join.factory_pool.pubkey)
        return {LSP_INDEX: lsp, **dict(enumerate(clients, start=first))}

    @cached_property
    def branch(self) -> Branch:
        """The client's branch, as it was opened."""
        return known_branch(
            self.terms,
            client=self.proposal.client,
            vertices=[vertex.known for vertex in self.kept.vertices],
            leaf_pubkeys=self.leaf_pubkeys,
            channel_keys=ChannelFundingPubkeys(
                client_funding_pubkey=self.join.candidates[self.rung].channel.funding_pubkey,
                lsp_funding_pubkey=offer_in(self.kept.channel).funding_pubkey,
            ),
            funding_outpoint=self.funding_outpoint,
        )

    @cached_property
    def lifetime(self) -> Lifetime:
        """When the client's channel dies, by its own path."""
        return lifetime_of(self.terms, self.branch.kinds)

    @cached_property
    def setting(self) -> ChannelSetting:
        """The client's channel: the output at the end of its branch, both sides' keys."""
        return channel_setting(
            self.terms,
            outpoint=self.branch.channel_outpoint,
            channel=self.branch.channel,
            lsp=offer_in(self.kept.channel),
            client=self.join.candidates[self.rung].channel,
        )

    @cached_property
    def funding_tx(self) -> Tx:
        """The agreed funding transaction, unsigned."""
        return Tx.parse(self.kept.funding_tx)

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

    @property
    def root_request(self) -> SignRequest:
        """The request for our partial signature of the root: its nonce was bound to it before."""
        return SignRequest(
            pool_id=self.join.factory_pool.pool_id,
            nonce_index=self.kept.root.index,
            task=self.branch.root_node.task,
            aggnonce=self.kept.root.aggnonce,
        )

    def commitment_signature(self, *, own_partial_sig: bytes, lsp_partial_sig: bytes) -> bytes:
        """Return the finished, verified signature of our first commitment.

        Raises:
            FaultyLsp: If the LSP's half is malformed or spoils the whole.
        """
        commitment = self.setting.first_commitment(Party.ACCEPTER)
        session = commitment.signing_task.session(self.kept.commitment_aggnonce)
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
        nodes = self.branch.nodes_below_root
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


def pool_ids_of(join: KeptJoin) -> tuple[bytes, ...]:
    """Return the ids of every pool that was made for a join, the factory key's first."""
    return (join.factory_pool.pool_id, *(one.pool.pool_id for one in join.candidates))
