"""What leaving burns by a factory's terms, and how much of it an operator lets happen.

Whoever chose the feerate of the terms, what is signed together pays it for months: a commitment out
of the capacity, an HTLC transaction out of the HTLC, and a higher feerate leaves more amounts
without an output. One's own node says what such transactions are worth, and the channel what it
can bear.
"""

from dataclasses import dataclass
from typing import Final

from cromford.channel.terms import ChannelTerms
from cromford.factory.shape import PlannedVertex
from cromford.watch.feerates import OwnFees

DAY_BLOCKS: Final = 144  # The estimate that a tree's feerate is measured by.
# 1 sat/vB. An estimate below says how quiet a day is, and not the months in which somebody leaves;
# many mempools ask for so much all the time.
QUIET_SAT_PER_KW: Final = 250
TIMES_ESTIMATE: Final = 10
PERCENT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnLimit:
    """How much leaving may burn, as an operator says.

    Attributes:
        times_estimate: How many times what one's own node asks for a day a tree may pay.
        percent: How much of what a channel, or a factory, holds.
    """

    times_estimate: int = TIMES_ESTIMATE
    percent: int = PERCENT

    def feerate_max_sat_per_kw(self, fees: OwnFees) -> int:
        """Return the most that a tree may pay by this."""
        return self.times_estimate * own_sat_per_kw(fees)

    def capacity_min_sat(self, channel: ChannelTerms) -> int:
        """Return the least capacity of which leaving burns no more than the limit."""
        return -(-100 * channel_burns_sat(channel) // self.percent)

    def is_within(self, burnt_sat: int, *, of_sat: int) -> bool:
        """Say whether so much of an amount may be burnt."""
        return 100 * burnt_sat <= self.percent * of_sat


USUAL_LIMIT: Final = BurnLimit()


def own_sat_per_kw(fees: OwnFees) -> int:
    """Return what one's own node asks for a day, and no less than on days that are not quiet."""
    return max(fees.within(DAY_BLOCKS), QUIET_SAT_PER_KW)


def commitment_burns_sat(channel: ChannelTerms) -> int:
    """Return what a commitment with one HTLC takes of a channel: its fee and its anchor."""
    return channel.commitment_fee_sat(n_htlc_outputs=1) + channel.paid_anchor_sat


def channel_burns_sat(channel: ChannelTerms) -> int:
    """Return what leaving burns of a capacity with one payment in flight, at the most.

    The commitment; and the smallest HTLC that has an output, of which its transaction leaves the
    dust limit: one that is a satoshi smaller goes to the miners as a whole. Where children pay,
    nothing is said by the terms.
    """
    if channel.is_zero_fee:
        return 0
    costs_sat = (channel.htlc_tx_cost_sat(is_offered=is_offered) for is_offered in (True, False))
    dearest_sat = max(costs_sat)
    return commitment_burns_sat(channel) + dearest_sat + channel.dust_limit_sat


def capital_sat(plan: PlannedVertex) -> int:
    """Return what an LSP puts into a factory's channels and L-stocks."""
    return sum(sum(vertex.capacities_sat) + vertex.lstock_sat for vertex in plan.vertices())


def factory_burns_sat(plan: PlannedVertex, channel: ChannelTerms) -> int:
    """Return what an LSP loses if everybody leaves: the tree, and each channel's commitment."""
    n_channels = sum(len(vertex.capacities_sat) for vertex in plan.vertices())
    tree_sat = plan.input_sat - capital_sat(plan)
    return tree_sat + n_channels * commitment_burns_sat(channel)
