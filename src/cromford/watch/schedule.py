"""Until when a transaction has to be in a block, and what is offered for it today.

Only what hurries pays more than a day's rate: an HTLC, an older state that may come next, or the
exit deadline gives a deadline. Else a stranger who has nothing to lose could make everybody pay in
a fee spike.
"""

from collections.abc import Iterable
from typing import Final

from cromford.factory.exit_path import ExitStep
from cromford.factory.kinds import BLOCKS_PER_TX
from cromford.factory.vertices import TreeNode
from cromford.watch.feerates import (
    SWEEP_BLOCKS,
    OwnFees,
    blocks_left,
    is_last_day,
    path_budget_sat,
    risen_sat_per_kw,
)
from cromford.watch.race import race_of

MARGIN_BLOCKS: Final = 6  # Before an older state may confirm, or a peer may take an HTLC.


def scheduled_sat_per_kw(
    fees: OwnFees, *, deadline_height: int | None, first_height: int, height: int
) -> int:
    """Return the feerate to offer now: the estimate for the blocks left, a day's at most.

    What nothing hurries today does not pay a day's that nobody should believe: it offers the
    lowest.

    Args:
        fees: Our own node's.
        deadline_height: The block in which it has to confirm at the latest; None for no hurry.
        first_height: The tip at its first broadcast, from where on it rises near the deadline.
        height: The tip.
    """
    if deadline_height is None or not is_last_day(deadline_height, height=height):
        return fees.believed_within(SWEEP_BLOCKS)
    return risen_sat_per_kw(
        fees.within(blocks_left(deadline_height=deadline_height, height=height)),
        first_height=first_height,
        height=height,
        deadline_height=deadline_height,
    )


def scheduled_budget_sat(
    stake_sat: int, fees: OwnFees, *, deadline_height: int | None, height: int
) -> int:
    """Return what may be paid for it today: half of what is at stake, or more once it is late.

    Args:
        stake_sat: What is lost if it is in no block in time.
        fees: Our own node's.
        deadline_height: As in `scheduled_sat_per_kw`.
        height: The tip.
    """
    if deadline_height is None or not is_last_day(deadline_height, height=height):
        return unhurried_budget_sat(stake_sat, fees)
    return path_budget_sat(stake_sat, is_late=height >= deadline_height)


def unhurried_budget_sat(stake_sat: int, fees: OwnFees) -> int:
    """Return what may be paid for what nothing is lost without today.

    Nothing while our node's mempool asks for more than anybody should believe: whoever means
    satoshi a byte, and writes it where bitcoin per 1000 bytes are asked for, has such a node.
    """
    return 0 if fees.is_shut else path_budget_sat(stake_sat)


def step_deadline_height(later: Iterable[ExitStep], *, end_height: int) -> int:
    """Return when a step of an exit has to confirm, so that all that follows has its share.

    Args:
        later: The steps after it.
        end_height: When the commitment has to confirm.
    """
    share = sum(step.delay_blocks + BLOCKS_PER_TX for step in later)
    return end_height - share - BLOCKS_PER_TX  # The commitment's own.


def state_deadline_height(
    state: ExitStep | TreeNode, *, kickoff_height: int, step_blocks: int
) -> int | None:
    """Return when a state has to confirm before an older one may; None if there is no older one.

    Args:
        state: The newest signed state of its vertex.
        kickoff_height: Where its kickoff confirmed.
        step_blocks: How much longer the delay of the state before is.
    """
    race = race_of(state, kickoff_height=kickoff_height, step_blocks=step_blocks)
    return None if race is None else race.rival_height - MARGIN_BLOCKS
