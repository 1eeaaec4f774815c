"""The race of a vertex's states: the newest has to confirm before the one that it replaced may.

All versions of a state spend the same output of one kickoff. Once that confirms, each waits out its
own delay, and the newest has the shortest (BIP 68).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cromford.factory.exit_path import ExitStep
from cromford.factory.terms import LOOK_ON_CHAIN_BLOCKS
from cromford.factory.vertices import TreeNode, Vertex


def first_height(parent_height: int, delay_blocks: int) -> int:
    """Return the first block that can hold a transaction published after its parent confirmed.

    BIP 68 counts from the parent's block, so a delay of 0 allows that very block; whoever waits
    until the parent is in one comes a block later.
    """
    return parent_height + max(delay_blocks, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The newest state of a vertex against the one before it, whose delay is a step longer.

    States still older come later by more steps.

    Attributes:
        kickoff_height: Where the kickoff confirmed.
        delay_blocks: Of the newest state.
        step_blocks: How much longer the delay of the state before it is.
    """

    kickoff_height: int
    delay_blocks: int
    step_blocks: int

    @property
    def first_height(self) -> int:
        """The first block that can hold the newest state, for whoever waits for the kickoff."""
        return first_height(self.kickoff_height, self.delay_blocks)

    @property
    def rival_height(self) -> int:
        """The first block that can hold the state before it."""
        return self.kickoff_height + self.delay_blocks + self.step_blocks

    def published_height(self, look_blocks: int) -> int:
        """Return the highest tip at which somebody who sees the chain that often has published it.

        Whoever saw the kickoff looks every six blocks from then on.

        Args:
            look_blocks: How often the chain is seen at least.
        """
        often = min(look_blocks, LOOK_ON_CHAIN_BLOCKS)
        return max(self.kickoff_height + look_blocks - 1, self.first_height + often - 2)

    def blocks_to_win(self, look_blocks: int) -> int:
        """Return how many blocks can hold the newest state, once published, and not the one before.

        One participant that looks that often is enough, whoever else is asleep. With half a step
        between two looks, half a step is left at least.

        Args:
            look_blocks: How often the chain is seen at least.
        """
        return self.rival_height - 1 - self.published_height(look_blocks)


def race_of(state: ExitStep | TreeNode, *, kickoff_height: int, step_blocks: int) -> Race | None:
    """Return the race that a state's kickoff has started; None if there is no older state.

    Args:
        state: The newest signed state of its vertex.
        kickoff_height: Where its kickoff confirmed.
        step_blocks: How much longer the delay of the state before is.
    """
    if not state.state_index:
        return None
    return Race(
        kickoff_height=kickoff_height, delay_blocks=state.delay_blocks, step_blocks=step_blocks
    )


def first_difference(
    older: Iterable[Vertex], newer: Iterable[Vertex]
) -> tuple[TreeNode, TreeNode] | None:
    """Return the two states that race where a client's path was advanced; None where it was not.

    They spend one kickoff. What is above them is the same in both, and of what is below only that
    of the winner can ever confirm, so this one race decides.

    Args:
        older: The vertices from the root to a leaf, with the states before some advances.
        newer: The same after them.
    """
    for before, after in zip(older, newer, strict=True):
        if before.last.tx.txid != after.last.tx.txid:
            return before.last, after.last
    return None
