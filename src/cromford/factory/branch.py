"""One client's part of the tree: the transactions from the root down to its channel.

A client never takes a transaction from anybody. It rebuilds its own branch from the terms and
the keys, and signs the bytes it computed. What leads to other clients, the scripts of child
vertices beside its own and its neighbours' channels in its own leaf, is taken as given if it is
taproot: it can only harm their owners.

Once all of it is signed a client needs of other clients' keys no more than what they add up to. So
what it keeps grows with the length of its branch, and not with the factory: `known_vertices` says
what that is, and `known_branch` is the branch again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from cromford.bitcoin.tx import MAX_MONEY_SAT, OutPoint, Tx, TxOut
from cromford.changed import computed
from cromford.crypto.musig2 import AggregateKey, KeyAgg
from cromford.factory.kinds import VertexKind
from cromford.factory.outputs import OutputKind, SignersOutput, TreeOutput, expiry_tapleaf
from cromford.factory.shape import LSP_INDEX, ShapeVertex, plan_of, planned_txs, shape_of
from cromford.factory.terms import BranchTerms, FactoryTerms, GeneralTerms
from cromford.factory.tree import SignedTree, Tree
from cromford.factory.vertices import (
    NOTHING_GIVEN,
    OPENING_STATES,
    ChannelFundingPubkeys,
    TreeNode,
    Vertex,
    build_vertices,
    child_output,
    funding_output_of,
    leaf_outputs,
    vertex_of,
)


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A client's vertices, root first, unsigned."""

    terms: GeneralTerms
    client: int
    funding_output: SignersOutput
    funding_outpoint: OutPoint
    funding_amount_sat: int
    vertices: tuple[Vertex, ...]

    @computed
    def nodes(self) -> tuple[TreeNode, ...]:
        """The transactions in the order they are published."""
        return tuple(node for vertex in self.vertices for node in vertex.nodes)

    @property
    def nodes_below_root(self) -> tuple[TreeNode, ...]:
        """Every transaction but the root: what is signed first."""
        return self.nodes[1:]

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
            if output.client == self.client:
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

    def as_kept(self, terms: BranchTerms) -> "Branch":
        """Return what `known_branch` makes of what is kept of it, without computing it again.

        Args:
            terms: What is kept of the agreement.
        """
        *above, leaf = self.vertices
        own = leaf.first.spends
        return Branch(
            terms=terms,
            client=self.client,
            funding_output=self.funding_output.without_signers if above else own,
            funding_outpoint=self.funding_outpoint,
            funding_amount_sat=self.funding_amount_sat,
            vertices=(*(vertex.without_signers(but=own) for vertex in above), leaf),
        )

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
    path = tree.root.path_to(client)
    return Branch(
        terms=tree.terms,
        client=client,
        funding_output=tree.funding_output,
        funding_outpoint=tree.funding_outpoint,
        funding_amount_sat=tree.funding_amount_sat,
        vertices=tuple(tree.vertex_by_path[planned.shape.path] for planned in path),
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
    sibling_scripts: Mapping[tuple[int, ...], bytes] = NOTHING_GIVEN,
    funding_outpoint: OutPoint,
) -> Branch:
    """Return a client's branch, rebuilt from what that client knows.

    Args:
        terms: The agreement.
        client: Its participant index.
        factory_pubkeys: One per participant, the LSP's first.
        channel_keys: The funding keys of its own channel.
        neighbour_scripts: The channel scripts of the other clients of its leaf, by index.
        sibling_scripts: Those of child vertices beside its own, by path; what is not here is
            computed.
        funding_outpoint: What the root spends.

    Raises:
        InvalidTerms: If the shape does not fit the terms' own limits.
        InvalidContribution: If a pubkey is not a point.
        ValueError: If two participants hold one key, a list has the wrong length, or a script that
            is given is not taproot.
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
            given=sibling_scripts,
        ),
    )


class KnownVertex(NamedTuple):
    """What a client keeps of a vertex of its branch.

    Attributes:
        internal_key: What the keys of its signers add up to, x-only.
        paid: What its last transaction pays, but for the anchor. A script that follows from the
            rest is empty: that of the next vertex, of its own channel, and of the L-stock.
    """

    internal_key: bytes
    paid: tuple[TxOut, ...]


def known_vertices(branch: Branch) -> tuple[KnownVertex, ...]:
    """Return what a client keeps of the vertices of its own branch, as it was opened."""
    own = [*_places([one.first.shape for one in branch.vertices]), branch.channel_outpoint.vout]
    return tuple(
        KnownVertex(
            internal_key=vertex.first.spends.key_agg.internal_key,
            paid=tuple(
                TxOut(
                    amount_sat=output.amount_sat,
                    script_pubkey=b""
                    if vout == place or output.kind is OutputKind.LSTOCK
                    else output.script_pubkey,
                )
                for vout, output in enumerate(vertex.last.outputs[:-1])
            ),
        )
        for vertex, place in zip(branch.vertices, own, strict=True)
    )


def known_branch(
    terms: BranchTerms,
    *,
    client: int,
    vertices: Sequence[KnownVertex],
    leaf_pubkeys: Mapping[int, bytes],
    channel_keys: ChannelFundingPubkeys,
    funding_outpoint: OutPoint,
) -> Branch:
    """Return a client's branch again, from what it kept.

    Above the leaf it is not known who signs, only what their keys add up to: enough to verify and
    to publish.

    Args:
        terms: What was kept of the agreement.
        client: Its participant index.
        vertices: Root first.
        leaf_pubkeys: The factory keys of the LSP and of its leaf's clients, by participant index.
        channel_keys: The funding keys of its own channel.
        funding_outpoint: What the root spends.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If this is no branch: a list has the wrong length, amounts do not add up or
            are none, a script is not taproot, or the keys of the leaf are others.
        KeyError: If a key of the leaf is missing.
    """
    shape = shape_of(terms.n_clients, leaf_arity=terms.leaf_arity, inner=terms.inner_levels)
    path = shape.path_to(client)
    shared = _shared_outputs(path, vertices, terms=terms, leaf_pubkeys=leaf_pubkeys)
    places, built, outpoint = _places(path), list[Vertex](), funding_outpoint
    for layer, (vertex, known) in enumerate(zip(path, vertices, strict=True)):
        if vertex.children:
            paid = _inner_paid(vertex, known, places[layer], shared[layer + 1])
        else:
            paid = _leaf_paid(
                vertex,
                known,
                channels={client: channel_keys},
                spends=shared[layer],
                lsp_pubkey=leaf_pubkeys[LSP_INDEX],
                terms=terms,
            )
        txs = planned_txs(vertex.kind, [output.amount_sat for output in paid], terms)
        _check_is_money(vertex, (*(output.amount_sat for output in paid), txs[0].input_sat))
        one = vertex_of(
            vertex,
            txs,
            terms=terms,
            spends=shared[layer],
            outpoint=outpoint,
            paid=paid,
            state_index=0,
        )
        built.append(one)
        if vertex.children:
            outpoint = one.last.tx.outpoint(places[layer])
    _check_amounts(built, places)
    return Branch(
        terms=terms,
        client=client,
        funding_output=shared[0],
        funding_outpoint=funding_outpoint,
        funding_amount_sat=built[0].first.input_amount_sat,
        vertices=tuple(built),
    )


def _shared_outputs(
    path: Sequence[ShapeVertex],
    vertices: Sequence[KnownVertex],
    *,
    terms: BranchTerms,
    leaf_pubkeys: Mapping[int, bytes],
) -> list[SignersOutput]:
    """Return what each vertex spends, root first.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If there are too many vertices or too few, or the keys of the leaf are others.
        KeyError: If a key of the leaf is missing.
    """
    if len(path) != len(vertices):
        raise ValueError(f"vertices: expected {len(path)}, received {len(vertices)}")
    leaf = KeyAgg([leaf_pubkeys[LSP_INDEX], *(leaf_pubkeys[one] for one in path[-1].clients)])
    if leaf.internal_key != vertices[-1].internal_key:
        raise ValueError(
            f"{path[-1].name}: expected keys that add up to {vertices[-1].internal_key.hex()}, "
            f"received {leaf.internal_key.hex()}"
        )
    keys = [*(AggregateKey(vertex.internal_key) for vertex in vertices[:-1]), leaf]
    tapleaf = expiry_tapleaf(leaf_pubkeys[LSP_INDEX], terms.expiry_height)
    return [SignersOutput(key_agg=key, tapleaf=tapleaf) for key in keys]


def _check_is_money(vertex: ShapeVertex, amounts_sat: Sequence[int]) -> None:
    """Check that a transaction can hold what a vertex takes and pays.

    Raises:
        ValueError: If it cannot; names the vertex, with the amount.
    """
    for amount_sat in amounts_sat:
        if not 0 <= amount_sat <= MAX_MONEY_SAT:
            raise ValueError(
                f"{vertex.name}: expected amounts of 0..{MAX_MONEY_SAT} sat, received {amount_sat}"
            )


def _check_amounts(vertices: Sequence[Vertex], places: Sequence[int]) -> None:
    """Check that each vertex spends what the one before pays to it.

    Raises:
        ValueError: If one does not; names it, with both amounts.
    """
    for (above, below), place in zip(pairwise(vertices), places, strict=True):
        paid_sat = above.last.outputs[place].amount_sat
        if below.first.input_amount_sat != paid_sat:
            raise ValueError(
                f"{below.first.name}: expected an input of {below.first.input_amount_sat} sat, "
                f"received {paid_sat} sat"
            )


def _places(path: Sequence[ShapeVertex]) -> list[int]:
    """Return of each inner vertex which of its outputs leads on to the next."""
    return [vertex.path[-1] for vertex in path[1:]]


def _inner_paid(
    vertex: ShapeVertex, known: KnownVertex, place: int, own: SignersOutput
) -> tuple[TreeOutput, ...]:
    return tuple(
        child_output(child, txout.amount_sat, own if vout == place else txout.script_pubkey)
        for vout, (child, txout) in enumerate(zip(vertex.children, known.paid, strict=True))
    )


def _leaf_paid(
    vertex: ShapeVertex,
    known: KnownVertex,
    *,
    channels: Mapping[int, ChannelFundingPubkeys],
    spends: SignersOutput,
    lsp_pubkey: bytes,
    terms: BranchTerms,
) -> tuple[TreeOutput, ...]:
    n_channels = len(vertex.clients)
    if len(known.paid) not in {n_channels, n_channels + 1}:
        raise ValueError(
            f"{vertex.name}: expected {n_channels} channels and at most an L-stock, received "
            f"{len(known.paid)} outputs"
        )
    scripts = {
        client: txout.script_pubkey
        for client, txout in zip(vertex.clients, known.paid, strict=False)
    }
    return leaf_outputs(
        vertex,
        [txout.amount_sat for txout in known.paid[:n_channels]],
        sum(txout.amount_sat for txout in known.paid[n_channels:]),
        channels={**scripts, **channels},
        spends=spends,
        lsp_pubkey=lsp_pubkey,
        terms=terms,
    )
