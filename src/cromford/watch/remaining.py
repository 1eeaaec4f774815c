"""How long bringing a channel on chain still takes, and until when it must begin.

Whoever leaves a factory publishes its own path. What it has in common with another channel's is
done for that one, too: its exit is shorter from then on, and its output may even be on chain. All
of it is a function of the path and the chain, so a reorganisation takes back what it gave.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.factory.branch import Branch
from cromford.factory.kinds import BLOCKS_PER_TX
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.factory.vertices import TreeNode

SETTLED_DEPTH: Final = 6  # From then on a transaction of the path counts as done.


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStep:
    """One transaction above a channel: what it spends, and how long after that confirmed."""

    txid: Txid
    outpoint: OutPoint
    delay_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What is left of an exit.

    Attributes:
        exit_blocks: How long it may still take, the commitment included.
        exit_deadline_height: From where on it may no longer end before the expiry; None once the
            channel's output is settled, for then nothing about it expires.
    """

    exit_blocks: int
    exit_deadline_height: int | None


def path_of(branch: Branch) -> tuple[PathStep, ...]:
    """Return the transactions above a client's channel, root first."""
    return tuple(map(step_of, branch.nodes))


def step_of(node: TreeNode) -> PathStep:
    """Return a transaction of the tree as a step of a way out."""
    return PathStep(
        txid=node.tx.txid,
        outpoint=node.tx.inputs[0].outpoint,
        delay_blocks=node.delay_blocks,
    )


def remaining_of(
    path: tuple[PathStep, ...],
    *,
    expiry_height: int,
    confirmed: Mapping[Txid, int],
    tip_height: int,
) -> Remaining:
    """Return what is left of the exit through a path.

    Each transaction that is not `SETTLED_DEPTH` deep counts with what is left of its delay, and
    with the blocks that every transaction is given to confirm.

    Args:
        path: The transactions above the channel, root first.
        expiry_height: The factory's.
        confirmed: Where transactions confirmed.
        tip_height: The height of the chain's tip.
    """
    exit_blocks = BLOCKS_PER_TX  # The commitment's.
    parent_height: int | None = None
    is_settled = False
    for step in path:
        height = confirmed.get(step.txid)
        is_settled = height is not None and tip_height - height + 1 >= SETTLED_DEPTH
        if height is None:
            exit_blocks += _delay_left(step, parent_height, tip_height)
        if not is_settled:
            exit_blocks += BLOCKS_PER_TX
        parent_height = height
    deadline = expiry_height - exit_blocks - SAFETY_BLOCKS
    return Remaining(exit_blocks=exit_blocks, exit_deadline_height=None if is_settled else deadline)


def _delay_left(step: PathStep, parent_height: int | None, tip_height: int) -> int:
    if parent_height is None:
        return step.delay_blocks
    return max(0, parent_height + step.delay_blocks - tip_height)


def is_cut_off(path: tuple[PathStep, ...], spends: Mapping[OutPoint, Tx]) -> bool:
    """Say whether something else landed where a transaction of the path was to be.

    Then the channel's output, as its updates are signed for, cannot come into being.
    """
    return next(cut_off_by(path, spends), None) is not None


def cut_off_by(path: tuple[PathStep, ...], spends: Mapping[OutPoint, Tx]) -> Iterator[Tx]:
    """Yield what landed where a transaction of the path was to be, from above."""
    for step in path:
        spender = spends.get(step.outpoint)
        if spender is not None and spender.txid != step.txid:
            yield spender
