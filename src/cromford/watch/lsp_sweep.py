"""What an LSP takes alone of a factory that is on chain, and when.

From the expiry on, the funding's output, or at whatever level the tree has reached each child
output, is the LSP's by the timeout path; an L-stock is some blocks after its leaf's state
confirmed. A kickoff's output has no such path (ADR 2): there the LSP publishes the state, and goes
on below it. All of it follows from the tree and from what the chain shows, so a restart forgets
nothing.

Only what the tree itself pays is looked at. Its states are the latest that were signed; what any
other state pays is not for the LSP to take.

Each output is said with the transaction that takes it alone. What several factories have to give is
for their house to join (`joint_sweep`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.timelocked import LockKind, Timelock
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.factory.tree import TimelockedOutput, Tree
from cromford.factory.vertices import NodeKind, TreeNode
from cromford.watch.channel_exit import LeftBehind
from cromford.watch.feerates import OwnFees
from cromford.watch.race import first_height
from cromford.watch.sweep import BLANK_SIGNATURE, SWEEP_VERSION


@dataclass(frozen=True, kw_only=True)
class LspOutput(TimelockedOutput):
    """An output on chain that the LSP alone may take once its timelock is over.

    Attributes:
        height: The first block that can hold its spend.
    """

    height: int

    @property
    def is_expiring(self) -> bool:
        """Whether it is the factory's expiry that ends its timelock."""
        return self.tapleaf.lock.kind is LockKind.AFTER


@dataclass(frozen=True, kw_only=True)
class SweepTx:
    """Sign this transaction by the LSP's path and broadcast it: it can be in the next block."""

    name: str
    output: LspOutput
    tx: Tx

    @property
    def prevout(self) -> TxOut:
        """What its one input spends."""
        return self.output.prevout

    @property
    def lock(self) -> Timelock:
        """The timelock of the script, which with the LSP's key is all of it."""
        return self.output.tapleaf.lock

    def signed(self, signature: bytes) -> Tx:
        """Return the transaction with its 64-byte signature, which is not checked here."""
        return self.tx.with_witnesses(
            (signature, self.output.tapleaf.script, self.output.signers.control_block)
        )

    @cached_property
    def vsize(self) -> int:
        """The virtual bytes of the signed transaction."""
        return self.signed(BLANK_SIGNATURE).vsize

    @property
    def fee_sat(self) -> int:
        """What it pays."""
        return self.prevout.amount_sat - self.tx.outputs[0].amount_sat


@dataclass(frozen=True, kw_only=True)
class PublishState:
    """Broadcast this state, the latest that was signed: its kickoff is on chain.

    An older one must not come first; and nothing below it is the LSP's before.
    """

    node: TreeNode


@dataclass(frozen=True, kw_only=True)
class FactoryOnChain:
    """A factory as its LSP sees it on the chain.

    Attributes:
        tree: Each of its states is the latest that was signed.
        spends: By outpoint, the confirmed transaction that spends it.
        heights: Where transactions confirmed.
        tip_height: The height of the chain's tip.
        payout_script: The LSP's wallet's, a taproot output.
        fees: The LSP's own node's.
    """

    tree: Tree
    spends: Mapping[OutPoint, Tx]
    heights: Mapping[Txid, int]
    tip_height: int
    payout_script: bytes
    fees: OwnFees

    @property
    def is_expired(self) -> bool:
        """Whether the next block can hold what its expiry allows."""
        return self.tip_height >= self.tree.terms.expiry_height


def lsp_outputs(factory: FactoryOnChain) -> Iterator[LspOutput]:
    """Yield what is in blocks and is the LSP's sooner or later, spent or not, parents first."""
    for one in factory.tree.timelocked_outputs:
        height = factory.heights.get(one.outpoint.txid)
        if height is not None:
            yield LspOutput(
                name=one.name,
                outpoint=one.outpoint,
                prevout=one.prevout,
                signers=one.signers,
                tapleaf=one.tapleaf,
                rival=one.rival,
                height=one.tapleaf.lock.first_height(height),
            )


def lsp_actions(factory: FactoryOnChain) -> tuple[SweepTx | PublishState, ...]:
    """Return what the LSP signs or publishes now; nothing once all is taken.

    What is not worth its fee today waits, and `not_worth_its_fee` lists it.
    """
    sweeps = (sweep for output in _due(factory) if (sweep := _sweep(factory, output)) is not None)
    return (*sweeps, *_states_due(factory))


def not_worth_its_fee(factory: FactoryOnChain) -> tuple[LeftBehind, ...]:
    """Return what could be taken now, and would leave less than dust at today's feerate."""
    return tuple(
        LeftBehind(name=output.name, outpoint=output.outpoint, amount_sat=output.prevout.amount_sat)
        for output in _due(factory)
        if _sweep(factory, output) is None
    )


def awaited(factory: FactoryOnChain) -> tuple[LspOutput, ...]:
    """Return what will be taken: unspent, and expired, or an L-stock on chain."""
    return tuple(
        output
        for output in lsp_outputs(factory)
        if output.outpoint not in factory.spends and (factory.is_expired or not output.is_expiring)
    )


def taken(factory: FactoryOnChain) -> tuple[tuple[LspOutput, Tx], ...]:
    """Return what was taken in place of the tree, each with the transaction that did it.

    After the expiry, or of an L-stock, that is the LSP; before, all signers did it together.
    """
    return tuple(
        (output, spender)
        for output in lsp_outputs(factory)
        if (spender := factory.spends.get(output.outpoint)) is not None
        and (output.rival is None or spender.txid != output.rival.tx.txid)
    )


def sweep_tx(output: LspOutput, *, payout_script: bytes, fee_sat: int) -> SweepTx:
    """Return the transaction that takes one output to one script.

    Version 2, for what it spends is confirmed; the timelock stands in its nLockTime (BIP 65) or its
    nSequence (BIP 68).

    Args:
        output: What is taken.
        payout_script: Who gets it, a taproot output.
        fee_sat: What it pays; less than the output holds.
    """
    lock = output.tapleaf.lock
    kind = "expiry_sweep" if output.is_expiring else "lstock_sweep"
    return SweepTx(
        name=f"{kind} {output.name}",
        output=output,
        tx=Tx(
            version=SWEEP_VERSION,
            inputs=(TxIn(outpoint=output.outpoint, nsequence=lock.nsequence),),
            outputs=(
                TxOut(amount_sat=output.prevout.amount_sat - fee_sat, script_pubkey=payout_script),
            ),
            nlocktime=lock.nlocktime,
        ),
    )


def rival_of(sweep: SweepTx) -> FeeAndWeight | None:
    """Return what the transaction of the tree pays that spends the same output, if one does."""
    rival = sweep.output.rival
    if rival is None:
        return None
    return FeeAndWeight(rival.fee_sat, rival.tx.with_witnesses((BLANK_SIGNATURE,)).weight)


def _due(factory: FactoryOnChain) -> Iterator[LspOutput]:
    for output in lsp_outputs(factory):
        if output.outpoint not in factory.spends and factory.tip_height + 1 >= output.height:
            yield output


def _sweep(factory: FactoryOnChain, output: LspOutput) -> SweepTx | None:
    """Return what takes an output at today's feerate.

    None if it would leave less than dust, or nobody should believe that feerate.
    """
    draft = sweep_tx(output, payout_script=factory.payout_script, fee_sat=0)
    fee_sat = _fee_sat(factory.fees, draft)
    if fee_sat is None or output.prevout.amount_sat - fee_sat < P2TR_DUST_SAT:
        return None
    return sweep_tx(output, payout_script=factory.payout_script, fee_sat=fee_sat)


def _fee_sat(fees: OwnFees, draft: SweepTx) -> int | None:
    """Return the day's rate, and never less than what replaces a waiting transaction of the tree.

    A client that comes too late leaves its root in the mempools, perhaps for good. With a child
    that pays more, it wins.
    """
    feerate = fees.day_sat_per_kw
    if feerate is None:
        return None
    own_sat = fee_sat_of(vsize=draft.vsize, feerate_sat_per_kw=feerate)
    rival = rival_of(draft)
    if rival is None:
        return own_sat
    replacing_sat = replacement_fee_sat(
        draft.signed(BLANK_SIGNATURE).weight,
        parent=None,
        rival=rival,
        incremental_sat_per_kw=fees.incremental_sat_per_kw,
    )
    return max(own_sat, replacing_sat)


def _states_due(factory: FactoryOnChain) -> Iterator[PublishState]:
    for node in factory.tree.nodes:
        kickoff = node.tx.inputs[0].outpoint
        height = factory.heights.get(kickoff.txid)
        if node.kind is not NodeKind.STATE or height is None or kickoff in factory.spends:
            continue
        if factory.tip_height + 1 >= first_height(height, node.delay_blocks):
            yield PublishState(node=node)
