"""The whole tree, as the LSP sees it, signed or not.

`Tree` has no signature and cannot be published; `SignedTree` has every one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.changed import computed
from cromford.factory.outputs import SignersOutput, Tapleaf
from cromford.factory.shape import PlannedVertex, plan_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.vertices import (
    OPENING_STATES,
    ChannelFundingPubkeys,
    TreeNode,
    Vertex,
    build_vertices,
    funding_output_of,
)

FACTORY_VOUT: Final = 0  # The factory's place in the funding transaction; change comes second.
FUNDING: Final = "funding"  # The name of what the root spends.


@dataclass(frozen=True, kw_only=True)
class TimelockedOutput:
    """An output of a factory that the LSP alone may take once a timelock is over.

    Attributes:
        name: `funding`, or the name of the transaction that pays it and its place there.
        outpoint: Where it is.
        prevout: Its amount and script.
        signers: Whose it is until then.
        tapleaf: The path of the LSP.
        rival: The transaction of the tree that spends it; None for an L-stock.
    """

    name: str
    outpoint: OutPoint
    prevout: TxOut
    signers: SignersOutput
    tapleaf: Tapleaf
    rival: TreeNode | None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Every transaction of a factory, unsigned."""

    terms: FactoryTerms
    root: PlannedVertex
    factory_pubkeys: tuple[bytes, ...]
    funding_output: SignersOutput
    funding_outpoint: OutPoint
    vertices: tuple[Vertex, ...]  # depth first

    @property
    def funding_amount_sat(self) -> int:
        """What the funding output must hold."""
        return self.root.input_sat

    @computed
    def nodes(self) -> tuple[TreeNode, ...]:
        """The transactions depth first, a kickoff before its state."""
        return tuple(node for vertex in self.vertices for node in vertex.nodes)

    @property
    def root_node(self) -> TreeNode:
        """The one transaction that opens the whole tree, signed last."""
        return self.vertices[0].first

    @property
    def nodes_below_root(self) -> tuple[TreeNode, ...]:
        """Every transaction but the root, depth first: what is signed first."""
        return self.nodes[1:]

    @cached_property
    def vertex_by_path(self) -> dict[tuple[int, ...], Vertex]:
        """The vertices by their paths."""
        return {vertex.first.shape.path: vertex for vertex in self.vertices}

    @cached_property
    def node_by_name(self) -> dict[str, TreeNode]:
        """The transactions by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def timelocked_outputs(self) -> tuple[TimelockedOutput, ...]:
        """What the LSP may take alone some day, parents first: the funding, and what nodes pay.

        Neither a kickoff's output nor a channel has a tapleaf, and an anchor is anybody's.
        """
        rivals = {node.tx.inputs[0].outpoint: node for node in self.nodes}
        funding = TxOut(
            amount_sat=self.funding_amount_sat, script_pubkey=self.funding_output.script_pubkey
        )
        paying: list[tuple[str, OutPoint, TxOut, SignersOutput | None]] = [
            (FUNDING, self.funding_outpoint, funding, self.funding_output)
        ]
        for node in self.nodes:
            paying += [
                (f"{node.name}:{vout}", node.tx.outpoint(vout), output.txout, output.signers_output)
                for vout, output in enumerate(node.outputs)
            ]
        return tuple(
            TimelockedOutput(
                name=name,
                outpoint=outpoint,
                prevout=prevout,
                signers=signers,
                tapleaf=signers.tapleaf,
                rival=rivals.get(outpoint),
            )
            for name, outpoint, prevout, signers in paying
            if signers is not None and signers.tapleaf is not None
        )

    def with_signatures(self, signatures: Mapping[str, bytes]) -> "SignedTree":
        """Return the signed tree.

        Raises:
            InvalidSignature: If one does not verify.
            KeyError: If one is missing.
        """
        return SignedTree(
            tree=self, txs={node.name: node.signed(signatures[node.name]) for node in self.nodes}
        )


@dataclass(frozen=True, kw_only=True)
class SignedTree:
    """A tree whose every transaction can be published."""

    tree: Tree
    txs: Mapping[str, Tx]


def build_tree(
    terms: FactoryTerms,
    *,
    factory_pubkeys: Sequence[bytes],
    channels: Sequence[ChannelFundingPubkeys],
    funding_outpoint: OutPoint,
) -> Tree:
    """Return the whole tree, every state at index 0.

    Args:
        terms: The agreement.
        factory_pubkeys: One per participant, the LSP's first, then clients in placement order.
        channels: The channel keys of each client, in placement order.
        funding_outpoint: What the root spends.

    Raises:
        InvalidTerms: If the shape does not fit the terms' own limits.
        InvalidContribution: If a pubkey is not a point.
        ValueError: If two participants hold one key, or a list has the wrong length.
    """
    if len(factory_pubkeys) != terms.n_clients + 1 or len(channels) != terms.n_clients:
        raise ValueError(
            f"{terms.n_clients} clients, {len(factory_pubkeys)} factory keys, "
            f"{len(channels)} channels"
        )
    root = plan_of(terms)
    funding_output = funding_output_of(factory_pubkeys, terms)
    return Tree(
        terms=terms,
        root=root,
        factory_pubkeys=tuple(factory_pubkeys),
        funding_output=funding_output,
        funding_outpoint=funding_outpoint,
        vertices=build_vertices(
            root.vertices(),
            terms=terms,
            factory_pubkeys=factory_pubkeys,
            channels=dict(enumerate(channels, start=1)),
            spends=funding_output,
            outpoint=funding_outpoint,
            state_indices=OPENING_STATES,
        ),
    )
