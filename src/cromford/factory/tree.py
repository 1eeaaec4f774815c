"""The tree of transactions: built root to leaves, signed or not.

A txid does not cover witnesses, so each transaction can name its unsigned parent. `Tree` has no
signature and cannot be published; `SignedTree` has every one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.timelock import NSEQUENCE_FINAL, nsequence_of_delay
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxIn, TxOut
from cromford.crypto.musig2 import KeyAgg
from cromford.factory.outputs import (
    OutputKind,
    SignersOutput,
    TreeOutput,
    anchor_output,
    channel_output,
    expiry_tapleaf,
    lstock_tapleaf,
)
from cromford.factory.shape import LSP_INDEX, PlannedVertex, ShapeVertex, plan_of
from cromford.factory.terms import FactoryTerms
from cromford.signing.task import SigningTask

KICKOFF_NSEQUENCE: Final = NSEQUENCE_FINAL
FACTORY_VOUT: Final = 0  # The factory's place in the funding transaction; change comes second.
STATE_VOUT: Final = 0  # A kickoff has exactly one child output, its own state's.


class InvalidSignature(ValueError):
    """A signature does not verify for the transaction it is said to sign."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: the signature does not verify")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class TreeNode:
    """One pre-signed transaction: what it spends, who signs, what it pays."""

    shape: ShapeVertex
    tx: Tx
    spends: SignersOutput
    input_amount_sat: int
    outputs: tuple[TreeOutput, ...]
    fee_sat: int

    @property
    def name(self) -> str:
        """Its name within the factory."""
        raise NotImplementedError

    @property
    def layer(self) -> int:
        """The layer of its vertex; 0 is nearest the funding output."""
        return len(self.shape.path)

    @property
    def signers(self) -> tuple[int, ...]:
        """The participant indices of all who sign, the LSP first."""
        return (LSP_INDEX, *self.shape.clients)

    @cached_property
    def task(self) -> SigningTask:
        """What has to be signed."""
        prevout = TxOut(amount_sat=self.input_amount_sat, script_pubkey=self.spends.script_pubkey)
        return SigningTask(
            name=self.name,
            sighash=taproot_sighash(self.tx, prevouts=[prevout], input_index=0),
            signers=self.spends.key_agg.pubkeys,
            merkle_root=self.spends.merkle_root,
        )

    def signed(self, signature: bytes) -> Tx:
        """Return the transaction with its witness.

        Raises:
            InvalidSignature: If the signature does not verify.
        """
        if not self.task.is_signed_by(signature, self.spends.script_pubkey[2:]):
            raise InvalidSignature(self.name)
        return self.tx.with_witnesses((signature,))


@dataclass(frozen=True, kw_only=True)
class KickoffNode(TreeNode):
    """Starts the clock of its state. It confirms at once and is never replaced."""

    @property
    def name(self) -> str:
        """Its name: `kickoff_root`, `kickoff_0` and so on."""
        return f"kickoff_{self.shape.name}"


@dataclass(frozen=True, kw_only=True)
class StateNode(TreeNode):
    """Pays the children or the channels, after a delay that newer versions shorten."""

    state_index: int
    delay_blocks: int

    @property
    def name(self) -> str:
        """Its name: `state_root`, `state_0` and so on."""
        return f"state_{self.shape.name}"


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """A kickoff and the state that spends it, signed by the same participants."""

    kickoff: KickoffNode
    state: StateNode


@dataclass(frozen=True, kw_only=True)
class ChannelKeys:
    """The two funding keys of one client's channel."""

    client_funding_pubkey: bytes
    lsp_funding_pubkey: bytes


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
        return self.root.kickoff_input_sat

    @property
    def nodes(self) -> Iterator[TreeNode]:
        """Yield the transactions depth first, a kickoff before its state."""
        for vertex in self.vertices:
            yield vertex.kickoff
            yield vertex.state

    @cached_property
    def node_by_name(self) -> dict[str, TreeNode]:
        """The transactions by name."""
        return {node.name: node for node in self.nodes}

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


def funding_output_of(factory_pubkeys: Sequence[bytes], terms: FactoryTerms) -> SignersOutput:
    """Return the factory's output on chain: all signers, or the LSP after the expiry.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If two participants hold one key.
    """
    return SignersOutput(
        key_agg=KeyAgg(factory_pubkeys),
        tapleaf=expiry_tapleaf(factory_pubkeys[LSP_INDEX], terms.expiry_height),
    )


def child_output_of(
    planned: PlannedVertex, factory_pubkeys: Sequence[bytes], terms: FactoryTerms
) -> SignersOutput:
    """Return what an inner state pays for one child vertex."""
    signers = [factory_pubkeys[LSP_INDEX], *(factory_pubkeys[i] for i in planned.shape.clients)]
    return funding_output_of(signers, terms)


def build_vertex(
    planned: PlannedVertex,
    *,
    terms: FactoryTerms,
    spends: SignersOutput,
    outpoint: OutPoint,
    state_outputs: tuple[TreeOutput, ...],
    state_index: int,
) -> Vertex:
    """Return a vertex's two transactions. Every tree transaction there is is made here."""
    kickoff_output = SignersOutput(key_agg=spends.key_agg)
    kickoff_outputs = (
        TreeOutput(
            kind=OutputKind.CHILD,
            amount_sat=planned.state_input_sat,
            script_pubkey=kickoff_output.script_pubkey,
            signers_output=kickoff_output,
        ),
        anchor_output(terms.anchor_sat),
    )
    kickoff = KickoffNode(
        shape=planned.shape,
        tx=_tree_tx(outpoint, KICKOFF_NSEQUENCE, kickoff_outputs),
        spends=spends,
        input_amount_sat=planned.kickoff_input_sat,
        outputs=kickoff_outputs,
        fee_sat=planned.kickoff_fee_sat,
    )
    delay_blocks = terms.odometer.delay_blocks(state_index)
    all_state_outputs = (*state_outputs, anchor_output(terms.anchor_sat))
    state = StateNode(
        shape=planned.shape,
        tx=_tree_tx(
            kickoff.tx.outpoint(STATE_VOUT), nsequence_of_delay(delay_blocks), all_state_outputs
        ),
        spends=kickoff_output,
        input_amount_sat=planned.state_input_sat,
        outputs=all_state_outputs,
        fee_sat=planned.state_fee_sat,
        state_index=state_index,
        delay_blocks=delay_blocks,
    )
    return Vertex(kickoff=kickoff, state=state)


def lstock_output(
    planned: PlannedVertex, spends: SignersOutput, lsp_pubkey: bytes, terms: FactoryTerms
) -> tuple[TreeOutput, ...]:
    """Return a leaf's L-stock output, or nothing where the L-stock is used up."""
    if planned.lstock_sat == 0:
        return ()
    output = SignersOutput(
        key_agg=spends.key_agg, tapleaf=lstock_tapleaf(lsp_pubkey, terms.lstock_csv_blocks)
    )
    return (
        TreeOutput(
            kind=OutputKind.LSTOCK,
            amount_sat=planned.lstock_sat,
            script_pubkey=output.script_pubkey,
            signers_output=output,
        ),
    )


def child_tree_outputs(
    planned: PlannedVertex, children: Sequence[SignersOutput]
) -> tuple[TreeOutput, ...]:
    """Return an inner state's outputs to its child vertices."""
    return tuple(
        TreeOutput(
            kind=OutputKind.CHILD,
            amount_sat=child.kickoff_input_sat,
            script_pubkey=output.script_pubkey,
            signers_output=output,
        )
        for child, output in zip(planned.children, children, strict=True)
    )


def own_channel_output(client: int, capacity_sat: int, channel_keys: ChannelKeys) -> TreeOutput:
    """Return a channel's output of which both funding keys are known.

    Raises:
        InvalidContribution: If a funding key is not a point.
        ValueError: If the two are equal.
    """
    output = channel_output((channel_keys.client_funding_pubkey, channel_keys.lsp_funding_pubkey))
    return TreeOutput(
        kind=OutputKind.CHANNEL,
        amount_sat=capacity_sat,
        script_pubkey=output.script_pubkey,
        signers_output=output,
        client=client,
    )


def build_tree(
    terms: FactoryTerms,
    *,
    factory_pubkeys: Sequence[bytes],
    channels: Sequence[ChannelKeys],
    funding_outpoint: OutPoint,
) -> Tree:
    """Return the whole tree, every state at index 0.

    Args:
        terms: The agreement.
        factory_pubkeys: One per participant, the LSP's first, then clients in placement order.
        channels: The channel keys of each client, in placement order.
        funding_outpoint: What kickoff_root spends.

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
    vertices: list[Vertex] = []

    def build(planned: PlannedVertex, spends: SignersOutput, outpoint: OutPoint) -> None:
        children = [child_output_of(child, factory_pubkeys, terms) for child in planned.children]
        if planned.is_leaf:
            outputs = (
                *(
                    own_channel_output(client, capacity_sat, channels[client - 1])
                    for client, capacity_sat in zip(
                        planned.shape.clients, planned.capacities_sat, strict=True
                    )
                ),
                *lstock_output(planned, spends, factory_pubkeys[LSP_INDEX], terms),
            )
        else:
            outputs = child_tree_outputs(planned, children)
        vertex = build_vertex(
            planned,
            terms=terms,
            spends=spends,
            outpoint=outpoint,
            state_outputs=outputs,
            state_index=0,
        )
        vertices.append(vertex)
        for vout, (child, output) in enumerate(zip(planned.children, children, strict=True)):
            build(child, output, vertex.state.tx.outpoint(vout))

    build(root, funding_output, funding_outpoint)
    return Tree(
        terms=terms,
        root=root,
        factory_pubkeys=tuple(factory_pubkeys),
        funding_output=funding_output,
        funding_outpoint=funding_outpoint,
        vertices=tuple(vertices),
    )


def _tree_tx(outpoint: OutPoint, nsequence: int, outputs: Sequence[TreeOutput]) -> Tx:
    return Tx(
        version=TRUC_VERSION,
        inputs=(TxIn(outpoint=outpoint, nsequence=nsequence),),
        outputs=tuple(output.txout for output in outputs),
    )
