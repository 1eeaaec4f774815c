"""A client's unilateral exit: the next thing to do, whatever was done before.

It depends only on what the client holds and what the chain shows, so it resumes from any
half-published state. One new transaction at a time: a child is published after its parent
confirmed (BIP 431), and after the delay its nSequence demands (BIP 68).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.factory.branch import SignedBranch
from cromford.factory.exit_path import ExitStep, exit_path
from cromford.factory.vertices import TreeNode
from cromford.watch.race import first_height


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Broadcast this transaction now; it can be in the next block."""

    step: ExitStep


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitForHeight:
    """Wait: the transaction can be in the block at `height` at the earliest."""

    step: ExitStep
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitForFunding:
    """The funding transaction has no confirmation: there is nothing to exit from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOnChain:
    """The whole path confirmed: the channel's output is on chain."""

    outpoint: OutPoint
    height: int


def swept_by(nodes: Iterable[TreeNode], spends: Mapping[OutPoint, Tx]) -> Tx | None:
    """Return what spent an output above a channel in place of the path to it, if anything did.

    After the expiry that is the LSP's sweep; before, all participants signed it together.

    Args:
        nodes: The transactions of the path, or of a whole tree.
        spends: By outpoint, the confirmed transaction that spends it.
    """
    for node in nodes:
        spender = spends.get(node.tx.inputs[0].outpoint)
        if spender is not None and spender.txid != node.tx.txid:
            return spender
    return None


ExitAction = Publish | WaitForHeight | WaitForFunding | ChannelOnChain


def next_exit_action(
    signed: SignedBranch, *, confirmed: Mapping[Txid, int], tip_height: int
) -> ExitAction:
    """Return what a client on its way out does next.

    Args:
        signed: Its branch.
        confirmed: The heights at which its transactions and the funding confirmed.
        tip_height: The height of the chain's tip.
    """
    parent_height = confirmed.get(signed.branch.funding_outpoint.txid)
    if parent_height is None:
        return WaitForFunding()
    for step in exit_path(signed):
        height = confirmed.get(step.tx.txid)
        if height is None:
            earliest = first_height(parent_height, step.delay_blocks)
            if tip_height + 1 >= earliest:
                return Publish(step=step)
            return WaitForHeight(step=step, height=earliest)
        parent_height = height
    return ChannelOnChain(outpoint=signed.branch.channel_outpoint, height=parent_height)
