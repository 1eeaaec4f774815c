"""Every transaction of a tree is made here: a vertex's kickoff and state, or its static one.

A txid does not cover witnesses, so each transaction can name its unsigned parent: one walk from
the root towards the leaves makes them all. The LSP walks to every leaf, a client to its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cromford.bitcoin.script import is_p2tr
from cromford.bitcoin.timelock import NSEQUENCE_FINAL, nsequence_of_delay
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxIn
from cromford.changed import changed, computed
from cromford.crypto.musig2 import KeyAgg
from cromford.factory.key_path import KeyPathTx
from cromford.factory.kinds import VertexKind
from cromford.factory.outputs import (
    OutputKind,
    SignersOutput,
    TreeOutput,
    anchor_output,
    channel_output,
    expiry_tapleaf,
    lstock_tapleaf,
)
from cromford.factory.shape import LSP_INDEX, PlannedTx, PlannedVertex, ShapeVertex
from cromford.factory.terms import GeneralTerms

STATE_VOUT: Final = 0  # A kickoff has exactly one child output, its own state's.
# At the opening no state has been replaced: every index is 0.
OPENING_STATES: Final[Mapping[tuple[int, ...], int]] = MappingProxyType({})
NOTHING_GIVEN: Final[Mapping[tuple[int, ...], bytes]] = MappingProxyType({})


class NodeKind(StrEnum):
    """What a tree transaction is. The value begins its name, and stands in exports and intents."""

    KICKOFF = "kickoff"  # Starts the clock of its state. Confirms at once, is never replaced.
    STATE = "state"  # Pays the children or the channels, after a delay that newer ones shorten.
    STATIC = "static"  # Pays the children. Confirms at once, is never replaced.


@dataclass(frozen=True, kw_only=True)
class TreeNode(KeyPathTx):
    """One pre-signed transaction: what it spends, who signs, what it pays."""

    kind: NodeKind
    shape: ShapeVertex
    tx: Tx
    spends: SignersOutput
    input_amount_sat: int
    outputs: tuple[TreeOutput, ...]
    fee_sat: int
    delay_blocks: int = 0
    state_index: int | None = None  # Which version of a state; None for what has no versions.

    @computed
    def name(self) -> str:
        """Its name within the factory: `kickoff_root`, `state_0`, `static_0_1` and so on.

        A state that replaced another says which version it is: `state_0 v1`.
        """
        version = f" v{self.state_index}" if self.state_index else ""
        return f"{self.kind.value}_{self.shape.name}{version}"

    @property
    def layer(self) -> int:
        """The layer of its vertex; 0 is nearest the funding output."""
        return len(self.shape.path)

    @property
    def signers(self) -> tuple[int, ...]:
        """The participant indices of all who sign, the LSP first."""
        return (LSP_INDEX, *self.shape.clients)

    def without_signers(self, *, but: SignersOutput) -> "TreeNode":
        """Return the same transaction, of which it is not known with which keys they sign.

        Args:
            but: What it pays to whom stays known.
        """
        spends = self.spends.without_signers
        bare = changed(
            self,
            spends=spends,
            outputs=tuple(
                output
                if output.signers_output is None or output.signers_output is but
                else changed(output, signers_output=output.signers_output.without_signers)
                for output in self.outputs
            ),
        )
        # What is signed is the same, to the byte.
        bare.__dict__["task"] = changed(self.task, key_agg=spends.spending_key_agg)
        return bare


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """Transactions of the same signers: a kickoff and the state that spends it, or a static one.

    `first` spends what the parent pays to the vertex, `last` pays its children or channels. Of a
    static vertex both are the same.
    """

    first: TreeNode
    last: TreeNode

    @property
    def is_static(self) -> bool:
        """Whether it is one transaction."""
        return self.first.kind is NodeKind.STATIC

    @property
    def nodes(self) -> tuple[TreeNode, ...]:
        """Its transactions, in the order in which they are published."""
        return (self.first,) if self.is_static else (self.first, self.last)

    def without_signers(self, *, but: SignersOutput) -> "Vertex":
        """Return the same transactions, of which it is not known with which keys they sign.

        Args:
            but: What its last one pays to whom stays known.
        """
        first = self.first.without_signers(but=but)
        return Vertex(
            first=first, last=first if self.is_static else self.last.without_signers(but=but)
        )


@dataclass(frozen=True, kw_only=True)
class ChannelFundingPubkeys:
    """The two funding keys of one client's channel."""

    client_funding_pubkey: bytes
    lsp_funding_pubkey: bytes


def funding_output_of(factory_pubkeys: Sequence[bytes], terms: GeneralTerms) -> SignersOutput:
    """Return the factory's output on chain: all signers, or the LSP after the expiry.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If two participants hold one key.
    """
    return SignersOutput(
        key_agg=KeyAgg(factory_pubkeys),
        tapleaf=expiry_tapleaf(factory_pubkeys[LSP_INDEX], terms.expiry_height),
    )


def build_vertices(
    planned: Iterable[PlannedVertex],
    *,
    terms: GeneralTerms,
    factory_pubkeys: Sequence[bytes],
    channels: Mapping[int, ChannelFundingPubkeys | SignersOutput | bytes],
    spends: SignersOutput,
    outpoint: OutPoint,
    state_indices: Mapping[tuple[int, ...], int],
    given: Mapping[tuple[int, ...], bytes] = NOTHING_GIVEN,
) -> tuple[Vertex, ...]:
    """Return the transactions of these vertices, in their order.

    Args:
        planned: The vertices of a tree, or of what is below one vertex: that one first, and each
            before its children.
        terms: The agreement.
        factory_pubkeys: One per participant, the LSP's first.
        channels: What is known of each channel of a planned leaf, by its client: its funding
            keys, its output, or only its script.
        spends: What the first vertex spends: of a whole tree, the funding output.
        outpoint: Where that is.
        state_indices: By the vertex's path, which version of its state to build; those not named
            have never been replaced, and get index 0.
        given: By their paths, the scripts of child vertices that are not computed.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If two participants hold one key, there is no such version of a state, or a
            script that is given is not taproot.
        KeyError: If nothing is known of a channel.
    """
    vertices: list[Vertex] = []
    spent: dict[tuple[int, ...], tuple[SignersOutput, OutPoint]] = {}
    for vertex in planned:
        path = vertex.shape.path
        if not vertices:
            spent[path] = spends, outpoint
        own, own_outpoint = spent.pop(path)
        if vertex.is_leaf:
            outputs = leaf_outputs(
                vertex.shape,
                vertex.capacities_sat,
                vertex.lstock_sat,
                channels=channels,
                spends=own,
                lsp_pubkey=factory_pubkeys[LSP_INDEX],
                terms=terms,
            )
        else:
            outputs = _child_outputs(vertex, factory_pubkeys, terms, given)
        built = vertex_of(
            vertex.shape,
            vertex.txs,
            terms=terms,
            spends=own,
            outpoint=own_outpoint,
            paid=outputs,
            state_index=state_indices.get(path, 0),
        )
        vertices.append(built)
        for vout, (child, output) in enumerate(zip(vertex.children, outputs, strict=False)):
            if output.signers_output is not None:
                spent[child.shape.path] = output.signers_output, built.last.tx.outpoint(vout)
    return tuple(vertices)


def _child_outputs(
    planned: PlannedVertex,
    factory_pubkeys: Sequence[bytes],
    terms: GeneralTerms,
    given: Mapping[tuple[int, ...], bytes],
) -> tuple[TreeOutput, ...]:
    """Return what an inner vertex pays to its child vertices: to those given, by their script."""
    return tuple(
        child_output(
            child.shape,
            child.input_sat,
            given.get(child.shape.path) or _shared_with(child, factory_pubkeys, terms),
        )
        for child in planned.children
    )


def _shared_with(
    planned: PlannedVertex, factory_pubkeys: Sequence[bytes], terms: GeneralTerms
) -> SignersOutput:
    """Return what a vertex pays for one child vertex: to the LSP and all clients below it."""
    signers = [factory_pubkeys[LSP_INDEX], *(factory_pubkeys[i] for i in planned.shape.clients)]
    return funding_output_of(signers, terms)


def vertex_of(
    shape: ShapeVertex,
    txs: Sequence[PlannedTx],
    *,
    terms: GeneralTerms,
    spends: SignersOutput,
    outpoint: OutPoint,
    paid: tuple[TreeOutput, ...],
    state_index: int,
) -> Vertex:
    """Return a vertex's transactions: two, or the one of a static vertex.

    Args:
        shape: The vertex.
        txs: What its transactions spend, and pay as a fee.
        terms: The agreement.
        spends: What the first of them spends.
        outpoint: Where that is.
        paid: What the last of them pays, but for the anchor.
        state_index: Which version of its state, if it has one.

    Raises:
        ValueError: If there is no such version of a state, or what is paid is not as planned.
    """
    first_tx, last_tx = txs[0], txs[-1]
    anchor = anchor_output(terms.anchor_sat)
    if shape.kind is VertexKind.STATIC:
        static = TreeNode(
            kind=NodeKind.STATIC,
            shape=shape,
            tx=_tree_tx(outpoint, NSEQUENCE_FINAL, (*paid, anchor)),
            spends=spends,
            input_amount_sat=first_tx.input_sat,
            outputs=(*paid, anchor),
            fee_sat=first_tx.fee_sat,
        )
        return Vertex(first=static, last=static)
    # No expiry path: near the expiry it would let the LSP overtake the state (ADR 2).
    kickoff_output = SignersOutput(key_agg=spends.key_agg)
    kickoff_outputs = (
        TreeOutput(
            kind=OutputKind.CHILD,
            amount_sat=last_tx.input_sat,
            script_pubkey=kickoff_output.script_pubkey,
            signers_output=kickoff_output,
        ),
        anchor,
    )
    kickoff = TreeNode(
        kind=NodeKind.KICKOFF,
        shape=shape,
        tx=_tree_tx(outpoint, NSEQUENCE_FINAL, kickoff_outputs),
        spends=spends,
        input_amount_sat=first_tx.input_sat,
        outputs=kickoff_outputs,
        fee_sat=first_tx.fee_sat,
    )
    state = state_of(kickoff, terms=terms, paid=paid, state_index=state_index)
    return Vertex(first=kickoff, last=state)


def state_of(
    kickoff: TreeNode, *, terms: GeneralTerms, paid: Sequence[TreeOutput], state_index: int
) -> TreeNode:
    """Return one version of the state that spends a kickoff.

    Args:
        kickoff: What starts its clock. All versions spend the same output of it.
        terms: The agreement.
        paid: Its outputs but for the anchor.
        state_index: Which version.

    Raises:
        ValueError: If there is no such version, or outputs and fee are not what the kickoff pays.
    """
    child, delay_blocks = kickoff.outputs[STATE_VOUT], terms.odometer.delay_blocks(state_index)
    if child.signers_output is None:
        raise AssertionError(kickoff.name)
    outputs = (*paid, anchor_output(terms.anchor_sat))
    state = TreeNode(
        kind=NodeKind.STATE,
        shape=kickoff.shape,
        tx=_tree_tx(kickoff.tx.outpoint(STATE_VOUT), nsequence_of_delay(delay_blocks), outputs),
        spends=child.signers_output,
        input_amount_sat=child.amount_sat,
        outputs=outputs,
        fee_sat=terms.fee_sat(n_p2tr_outputs=len(paid)),
        delay_blocks=delay_blocks,
        state_index=state_index,
    )
    taken_sat = sum(output.amount_sat for output in outputs) + state.fee_sat
    if taken_sat != child.amount_sat:
        raise ValueError(
            f"{state.name}: outputs and fee of {child.amount_sat} sat were expected, "
            f"received {taken_sat} sat"
        )
    return state


def leaf_outputs(
    shape: ShapeVertex,
    capacities_sat: Sequence[int],
    lstock_sat: int,
    *,
    channels: Mapping[int, ChannelFundingPubkeys | SignersOutput | bytes],
    spends: SignersOutput,
    lsp_pubkey: bytes,
    terms: GeneralTerms,
) -> tuple[TreeOutput, ...]:
    """Return what a leaf's state pays, but for the anchor: its channels, and then the L-stock.

    Args:
        shape: The leaf.
        capacities_sat: Of its channels.
        lstock_sat: Of its L-stock; 0 where that is used up.
        channels: As `build_vertices` takes them.
        spends: What is spent by the leaf's signers.
        lsp_pubkey: The LSP's factory key.
        terms: The agreement.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If a channel's script is not taproot.
        KeyError: If nothing is known of a channel.
    """
    paid = tuple(_channel_outputs(shape, capacities_sat, channels))
    return (*paid, *_lstock_output(lstock_sat, spends, lsp_pubkey, terms))


def _lstock_output(
    lstock_sat: int, spends: SignersOutput, lsp_pubkey: bytes, terms: GeneralTerms
) -> tuple[TreeOutput, ...]:
    """Return a leaf's L-stock output, or nothing where the L-stock is used up."""
    if lstock_sat == 0:
        return ()
    output = SignersOutput(
        key_agg=spends.key_agg, tapleaf=lstock_tapleaf(lsp_pubkey, terms.lstock_csv_blocks)
    )
    return (
        TreeOutput(
            kind=OutputKind.LSTOCK,
            amount_sat=lstock_sat,
            script_pubkey=output.script_pubkey,
            signers_output=output,
        ),
    )


def child_output(shape: ShapeVertex, amount_sat: int, known: SignersOutput | bytes) -> TreeOutput:
    """Return an inner vertex's output to a child vertex.

    Args:
        shape: The child.
        amount_sat: What it holds.
        known: Whose it is, or only its script.

    Raises:
        ValueError: If the script is not taproot.
    """
    output, script_pubkey = _known_script(known, f"child {shape.name}")
    return TreeOutput(
        kind=OutputKind.CHILD,
        amount_sat=amount_sat,
        script_pubkey=script_pubkey,
        signers_output=output,
    )


def _known_script(known: SignersOutput | bytes, name: str) -> tuple[SignersOutput | None, bytes]:
    """Return whose an output is, as far as that is known, and its script.

    Raises:
        ValueError: If the script is not taproot.
    """
    if isinstance(known, SignersOutput):
        return known, known.script_pubkey
    # Any other script could make a whole transaction too odd for a mempool, and so keep everybody
    # who needs it from leaving.
    if not is_p2tr(known):
        raise ValueError(f"{name}: expected a taproot script, received {known.hex()}")
    return None, known


def _channel_outputs(
    shape: ShapeVertex,
    capacities_sat: Sequence[int],
    channels: Mapping[int, ChannelFundingPubkeys | SignersOutput | bytes],
) -> Iterator[TreeOutput]:
    """Yield a leaf's channels."""
    for client, amount_sat in zip(shape.clients, capacities_sat, strict=True):
        known = channels[client]
        if isinstance(known, ChannelFundingPubkeys):
            known = channel_output((known.client_funding_pubkey, known.lsp_funding_pubkey))
        output, script_pubkey = _known_script(known, f"channel {client}")
        yield TreeOutput(
            kind=OutputKind.CHANNEL,
            amount_sat=amount_sat,
            script_pubkey=script_pubkey,
            signers_output=output,
            client=client,
        )


def _tree_tx(outpoint: OutPoint, nsequence: int, outputs: Sequence[TreeOutput]) -> Tx:
    return Tx(
        version=TRUC_VERSION,
        inputs=(TxIn(outpoint=outpoint, nsequence=nsequence),),
        outputs=tuple(output.txout for output in outputs),
    )
