"""One client's part of the tree: the transactions from the root down to its channel.

A client never takes a transaction from anybody. It rebuilds its own branch from the terms and
the keys, and signs the bytes it computed. What it cannot compute, its neighbours' channel
scripts in its own leaf, is taken as given if it is taproot: it can only harm their owners.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.kinds import VertexKind
from cromford.factory.outputs import OutputKind, SignersOutput, TreeOutput
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import SignedTree, Tree
from cromford.factory.vertices import (
    OPENING_STATES,
    ChannelFundingPubkeys,
    TreeNode,
    Vertex,
    build_vertices,
    funding_output_of,
)


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A client's vertices, root first, unsigned."""

    terms: FactoryTerms
    client: int
    funding_output: SignersOutput
    funding_outpoint: OutPoint
    funding_amount_sat: int
    vertices: tuple[Vertex, ...]

    @property
    def nodes(self) -> Iterator[TreeNode]:
        """Yield the transactions in the order they are published."""
        for vertex in self.vertices:
            yield from vertex.nodes

    @property
    def nodes_below_root(self) -> Iterator[TreeNode]:
        """Yield every transaction but the root: what is signed first."""
        return (node for node in self.nodes if node is not self.root_node)

    @property
    def root_node(self) -> TreeNode:
        """The one transaction that opens the whole tree, signed last."""
        return self.vertices[0].first

    @property
    def kinds(self) -> tuple[VertexKind, ...]:
        """The kinds of its vertices, root first."""
        return tuple(vertex.first.shape.kind for vertex in self.vertices)

    @cached_property
    def channel_outpoint(self) -> OutPoint:
        """The outpoint of the client's own channel."""
        state = self.vertices[-1].last
        for vout, output in enumerate(state.outputs):
            if output.kind is OutputKind.CHANNEL and output.client == self.client:
                return state.tx.outpoint(vout)
        raise AssertionError("a branch ends in its client's channel")

    @property
    def channel(self) -> TreeOutput:
        """The client's own channel output."""
        return self.vertices[-1].last.outputs[self.channel_outpoint.vout]

    @property
    def exit_blocks(self) -> int:
        """How long leaving through this branch may take."""
        return self.terms.exit_blocks(self.kinds)

    @property
    def exit_deadline_height(self) -> int:
        """The height from which leaving may no longer finish before the expiry."""
        return self.terms.exit_deadline_height(self.kinds)

    @property
    def ready_height_max(self) -> int:
        """The last funding confirmation height at which the factory is worth using."""
        return self.terms.ready_height_max(self.kinds)

    def with_signatures(self, signatures: Mapping[str, bytes]) -> "SignedBranch":
        """Return the branch ready to be published.

        Raises:
            InvalidSignature: If one does not verify.
            KeyError: If one is missing.
        """
        return SignedBranch(
            branch=self, txs=tuple(node.signed(signatures[node.name]) for node in self.nodes)
        )


@dataclass(frozen=True, kw_only=True)
class SignedBranch:
    """A branch with every signature: the client can leave alone."""

    branch: Branch
    txs: tuple[Tx, ...]  # in the order they are published


def branch_of(tree: Tree, client: int) -> Branch:
    """Return one client's branch of a whole tree.

    Raises:
        ValueError: If the client is not in the tree.
    """
    names = {planned.shape.path for planned in tree.root.path_to(client)}
    return Branch(
        terms=tree.terms,
        client=client,
        funding_output=tree.funding_output,
        funding_outpoint=tree.funding_outpoint,
        funding_amount_sat=tree.funding_amount_sat,
        vertices=tuple(v for v in tree.vertices if v.first.shape.path in names),
    )


def signed_branch_of(signed: SignedTree, client: int) -> SignedBranch:
    """Return one client's branch of a signed tree, whose signatures were verified with it.

    Raises:
        ValueError: If the client is not in the tree.
    """
    branch = branch_of(signed.tree, client)
    txs = tuple(signed.txs[node.name] for node in branch.nodes)
    return SignedBranch(branch=branch, txs=txs)


def build_branch(
    terms: FactoryTerms,
    *,
    client: int,
    factory_pubkeys: Sequence[bytes],
    channel_keys: ChannelFundingPubkeys,
    neighbour_scripts: Mapping[int, bytes],
    funding_outpoint: OutPoint,
) -> Branch:
    """Return a client's branch, rebuilt from what that client knows.

    Args:
        terms: The agreement.
        client: Its participant index.
        factory_pubkeys: One per participant, the LSP's first.
        channel_keys: The funding keys of its own channel.
        neighbour_scripts: The channel scripts of the other clients of its leaf, by index.
        funding_outpoint: What the root spends.

    Raises:
        InvalidTerms: If the shape does not fit the terms' own limits.
        InvalidContribution: If a pubkey is not a point.
        ValueError: If two participants hold one key, a list has the wrong length, or a
            neighbour's script is not taproot.
        KeyError: If a neighbour's script is missing.
    """
    if len(factory_pubkeys) != terms.n_clients + 1:
        raise ValueError(f"{terms.n_clients} clients and {len(factory_pubkeys)} factory keys")
    root = plan_of(terms)
    funding_output = funding_output_of(factory_pubkeys, terms)
    return Branch(
        terms=terms,
        client=client,
        funding_output=funding_output,
        funding_outpoint=funding_outpoint,
        funding_amount_sat=root.input_sat,
        vertices=build_vertices(
            root.path_to(client),
            terms=terms,
            factory_pubkeys=factory_pubkeys,
            channels={**neighbour_scripts, client: channel_keys},
            spends=funding_output,
            outpoint=funding_outpoint,
            state_indices=OPENING_STATES,
        ),
    )
