"""What is paid for a transaction that one party signs alone: a child, a penalty, a sweep, a claim.

A counterparty's number never prices one's own defence: one's own node does. Only a deadline makes a
fee rise beyond what the node estimates, and a budget always ends it.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import vsize_of

SWEEP_BLOCKS: Final = 144  # A day: what only we can take does not run away.
RISING_BLOCKS: Final = 36  # Before a deadline, a fee rises with every block.
RISE: Final = Fraction(5, 4)
LAST_BLOCKS: Final = 6  # Of a penalty: what is not spent then, the cheater may take.
FALLBACK_SAT_PER_KW: Final = 500  # 2 sat/vB, where the operator names nothing else.
# 10,000 sat/vB: above it Core's `sendrawtransaction` takes a mistake for one, and refuses.
MOST_SAT_PER_KW: Final = 2_500_000
# 1,000 sat/vB: no day was ever so dear, so a node that says more errs. What has a deadline within a
# day pays it all the same, within its budget; what can wait does.
BELIEVED_SAT_PER_KW: Final = 250_000
LOWEST_BLOCKS: Final = 1008  # A week: the most that Core estimates for.
FLOOR_FACTOR: Final = 2  # Without an estimate, how far above the mempool's minimum.


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFeerate:
    """What one's own node and its operator say of feerates, in satoshi per 1000 weight units.

    Attributes:
        estimate_sat_per_kw: The node's, for the blocks that are left; None where it has none.
        mempool_min_sat_per_kw: What its mempool asks for today.
        fallback_sat_per_kw: The operator's, for a node without an estimate.
    """

    estimate_sat_per_kw: int | None
    mempool_min_sat_per_kw: int
    fallback_sat_per_kw: int

    @property
    def sat_per_kw(self) -> int:
        """The estimate, or the larger of twice the minimum and the fallback.

        Never below the minimum; an estimate never above what the node would take.
        """
        if self.estimate_sat_per_kw is None:
            return max(FLOOR_FACTOR * self.mempool_min_sat_per_kw, self.fallback_sat_per_kw)
        return max(min(self.estimate_sat_per_kw, MOST_SAT_PER_KW), self.mempool_min_sat_per_kw)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFees:
    """What one's own node said last of feerates, all in satoshi per 1000 weight units.

    Attributes:
        estimates: The node's, each with the blocks it is for, the fewest first; none on regtest.
        mempool_min_sat_per_kw: What its mempool asks for today.
        min_relay_sat_per_kw: What an empty one asks for.
        incremental_sat_per_kw: What a replacement pays for its own weight on top.
        fallback_sat_per_kw: The operator's, for a node without an estimate.
    """

    estimates: tuple[tuple[int, int], ...] = ()
    mempool_min_sat_per_kw: int = MIN_RELAY_SAT_PER_KW
    min_relay_sat_per_kw: int = MIN_RELAY_SAT_PER_KW
    incremental_sat_per_kw: int = MIN_RELAY_SAT_PER_KW
    fallback_sat_per_kw: int = FALLBACK_SAT_PER_KW

    def within(self, n_blocks: int) -> int:
        """Return what to pay to confirm within a number of blocks.

        By the estimate for the most blocks that are not more; what confirms sooner is in time.
        """
        soon_enough = [rate for target, rate in self.estimates if target <= n_blocks]
        soonest = [rate for _, rate in self.estimates[:1]]
        estimates = soon_enough or soonest
        return OwnFeerate(
            estimate_sat_per_kw=estimates[-1] if estimates else None,
            mempool_min_sat_per_kw=self.mempool_min_sat_per_kw,
            fallback_sat_per_kw=self.fallback_sat_per_kw,
        ).sat_per_kw

    def believed_within(self, n_blocks: int) -> int:
        """Return the same for what nothing is lost without today.

        The lowest, where that is more than anybody should believe.
        """
        feerate = self.within(n_blocks)
        return feerate if feerate <= BELIEVED_SAT_PER_KW else self.lowest_sat_per_kw

    @property
    def is_shut(self) -> bool:
        """Whether the mempool asks for more than anybody should believe: what can wait does."""
        return self.mempool_min_sat_per_kw > BELIEVED_SAT_PER_KW

    @property
    def day_sat_per_kw(self) -> int | None:
        """What to pay for what nothing takes away: the rule of `within` for a day.

        None where that is more than anybody should believe. A sweep has no budget but all that it
        takes, so it waits for a better day, or another node.
        """
        feerate = self.within(SWEEP_BLOCKS)
        return feerate if feerate <= BELIEVED_SAT_PER_KW else None

    @property
    def lowest_sat_per_kw(self) -> int:
        """What to pay for what can wait: the estimate for a week, at least what is relayed at all.

        Without that estimate the least that is relayed, and not the rule of `within`, which rather
        pays too much: what nothing takes away waits for the cheapest day, and must not be left
        behind because a node is young, or errs. Nor is what is relayed believed at any height: a
        node that refuses all says so, once something is published.
        """
        patient = [rate for target, rate in self.estimates if target >= LOWEST_BLOCKS]
        believed = (rate for rate in patient if rate <= BELIEVED_SAT_PER_KW)
        relayed = self.min_relay_sat_per_kw
        least = relayed if relayed <= BELIEVED_SAT_PER_KW else MIN_RELAY_SAT_PER_KW
        return max(min(believed, default=0), least)


def blocks_left(*, deadline_height: int, height: int) -> int:
    """Return the target of an estimate: the blocks before the deadline, 1 when it has come."""
    return max(1, deadline_height - height)


def is_last_day(deadline_height: int, *, height: int) -> bool:
    """Say whether a deadline is no more than a day away: before, what it is for can wait."""
    return deadline_height - height <= SWEEP_BLOCKS


def risen_sat_per_kw(
    own_sat_per_kw: int, *, first_height: int, height: int, deadline_height: int
) -> int:
    """Return the feerate of today: a quarter more for each block in vain near the deadline.

    Args:
        own_sat_per_kw: What one's own node says today.
        first_height: The tip at the first broadcast of what is bumped.
        height: The tip.
        deadline_height: The block in which it has to confirm at the latest.
    """
    rises_from = max(first_height, deadline_height - RISING_BLOCKS)
    n_rises = min(max(0, height - rises_from), RISING_BLOCKS)
    return ceil(own_sat_per_kw * RISE**n_rises)


def path_budget_sat(stake_sat: int, *, is_late: bool = False) -> int:
    """Return what all bumps of a path may cost together: half of what is at stake.

    Once a step is late, all of it but dust: what is not spent then may be lost with the rest. Else
    who pins two steps, each for less than half, would have the other half.

    Args:
        stake_sat: What is at stake.
        is_late: Whether the deadline of the step has come.
    """
    return max(0, stake_sat - P2TR_DUST_SAT) if is_late else stake_sat // 2


def penalty_budget_sat(stake_sat: int, *, blocks_left: int) -> int:
    """Return what a penalty may cost, out of the cheater's own outputs.

    Half of them; in the last blocks before the cheater may take them, all but dust.

    Args:
        stake_sat: The outputs that the penalty takes.
        blocks_left: Until the cheater may spend one of them.
    """
    if blocks_left <= LAST_BLOCKS:
        return max(0, stake_sat - P2TR_DUST_SAT)
    return stake_sat // 2


def racing_fee_sat(
    vsize: int,
    *,
    fees: OwnFees,
    budget_sat: int,
    first_height: int,
    height: int,
    rival_height: int,
) -> int | None:
    """Return the fee of what has to confirm before a rival may take it; None beyond the budget.

    It rises with every block, by no less than what a node asks for to replace the one before, and
    ends at what a node takes at all: one that is refused wins no race. Until the last day before
    the rival none that nobody should believe is paid.

    Args:
        vsize: Of the signed transaction.
        fees: One's own node's.
        budget_sat: What it may cost.
        first_height: The tip at its first broadcast.
        height: The tip.
        rival_height: The first block in which the rival may take it.
    """
    left = blocks_left(deadline_height=rival_height, height=height)
    can_wait = not is_last_day(rival_height, height=height)
    if can_wait and fees.is_shut:
        return None
    feerate = risen_sat_per_kw(
        fees.believed_within(left) if can_wait else fees.within(left),
        first_height=first_height,
        height=height,
        deadline_height=rival_height,
    )
    again_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=fees.incremental_sat_per_kw)
    n_before = max(0, height - first_height)
    most_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=MOST_SAT_PER_KW)
    return fee_to_offer_sat(
        fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate) + n_before * again_sat,
        least_sat=fee_sat_of(vsize=vsize, feerate_sat_per_kw=fees.mempool_min_sat_per_kw),
        budget_sat=min(budget_sat, most_sat),
    )


def child_fee_sat(
    weight: int, *, parent: FeeAndWeight, feerate_sat_per_kw: int, mempool_min_sat_per_kw: int
) -> int:
    """Return what a child pays so that its parent and it pay this feerate together.

    At least the mempool's minimum for itself: a parent that waits already does not help it in.

    Args:
        weight: Of the child.
        parent: What it bumps.
        feerate_sat_per_kw: What both should pay.
        mempool_min_sat_per_kw: What its node's mempool asks for today.
    """
    vsize = vsize_of(weight)
    together_sat = fee_sat_of(
        vsize=vsize_of(parent.weight) + vsize, feerate_sat_per_kw=feerate_sat_per_kw
    )
    alone_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=mempool_min_sat_per_kw)
    return max(together_sat - parent.fee_sat, alone_sat)


def fee_to_offer_sat(wanted_sat: int, *, least_sat: int, budget_sat: int) -> int | None:
    """Return the fee to sign with now, or None where the budget does not reach.

    Args:
        wanted_sat: What today's feerate comes to.
        least_sat: What the node takes: the minimum of its mempool, or what it costs to replace what
            waits there (`replacement_fee_sat`, or BIP 125, rules 3 and 4).
        budget_sat: What may be spent on it, as a whole.
    """
    if least_sat > budget_sat:
        return None
    return min(max(wanted_sat, least_sat), budget_sat)
