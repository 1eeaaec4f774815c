"""What a client costs in a month: in a factory of some lifetime, and in a channel of its own.

Each client is lost for good with the same likelihood at any time, whatever the others do. Whoever
is lost pays for nothing any more; what it held stays locked until the factory expires. So a short
life is paid for often, and a long one locks money for nobody: between them lies the best.
"""

from dataclasses import dataclass
from math import exp, expm1, log1p

from cromford.bitcoin.fees import sat_per_vb
from cromford.planning.draft import Draft
from cromford.planning.idea import YEAR_BLOCKS, Idea
from cromford.protocol.advancing.pricing import MILLION, MONTH_BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """What it comes to for one client that is there, for a month.

    Attributes:
        vsize: What is published of it, in virtual bytes a month.
        fee_sat: What that pays, in sat a month.
        capital_sat: What the capital costs, in sat a month.
    """

    vsize: float
    fee_sat: float
    capital_sat: float

    @property
    def cost_sat(self) -> float:
        """Fees and capital, in sat a month."""
        return self.fee_sat + self.capital_sat


def hazard(idea: Idea) -> float:
    """Return how likely a client that is there is lost in the next block."""
    left_millionths = MILLION - idea.loss_millionths
    return log1p(idea.loss_millionths / left_millionths) / YEAR_BLOCKS


def share_there(idea: Idea, blocks: float) -> float:
    """Return how likely a client is still there after some blocks."""
    return exp(-hazard(idea) * blocks)


def served_blocks(idea: Idea, blocks: float) -> float:
    """Return for how many of the next blocks a client is there, as expected."""
    if not idea.loss_millionths:
        return blocks
    return -expm1(-hazard(idea) * blocks) / hazard(idea)


def all_there(draft: Draft, active_blocks: int) -> float:
    """Return how likely everybody is there when the dying period ends, to close it all at once.

    Never, where it has more clients than one close has room for.
    """
    if not draft.is_closable:
        return 0.0
    moved_blocks = active_blocks + draft.terms.dying_blocks
    return share_there(draft.idea, moved_blocks * draft.terms.n_clients)


def locked_blocks(draft: Draft, active_blocks: int) -> float:
    """Return for how many blocks a factory locks its capital, as expected.

    Until everybody has moved and it is closed, if nobody is missing; else until it has expired, and
    is swept.
    """
    moved_blocks = active_blocks + draft.terms.dying_blocks
    return moved_blocks + (1 - all_there(draft, active_blocks)) * draft.end_blocks


def in_factory(draft: Draft, active_blocks: int) -> Monthly:
    """Return what a client costs in a factory of some normal life, one following the other."""
    idea, n_clients = draft.idea, draft.terms.n_clients
    together = all_there(draft, active_blocks)
    end_vsize = together * draft.close_vsize + (1 - together) * draft.sweep_vsize
    locked_sat_blocks = draft.plan.input_sat / n_clients * locked_blocks(draft, active_blocks)
    return _shared_out(
        idea,
        vsize=(draft.funding_vsize + end_vsize) / n_clients,
        locked_sat_blocks=locked_sat_blocks,
        n_blocks=served_blocks(idea, active_blocks),
    )


def in_channel(draft: Draft, kept_blocks: int) -> Monthly:
    """Return what a client costs in a plain channel that holds as much as its part of the factory.

    Opened with a transaction of its own, and closed together after some blocks; by force as soon as
    the client is lost, which the LSP is taken to know at once.
    """
    idea = draft.idea
    there, served = share_there(idea, kept_blocks), served_blocks(idea, kept_blocks)
    close_vsize = there * draft.coop_close_vsize + (1 - there) * draft.forced_close_vsize
    return _shared_out(
        idea,
        vsize=draft.funding_vsize + close_vsize,
        locked_sat_blocks=draft.channel_sat
        * (served + (1 - there) * draft.terms.to_self_delay_lsp),
        n_blocks=served,
    )


def in_lasting_channel(draft: Draft) -> Monthly:
    """Return what a client costs in a plain channel that is kept until it is lost.

    What `in_channel` comes to the longer it is kept.
    """
    idea = draft.idea
    ends = hazard(idea)
    vsize = (draft.funding_vsize + draft.forced_close_vsize) * ends
    return _shared_out(
        idea,
        vsize=vsize,
        locked_sat_blocks=draft.channel_sat * (1 + ends * draft.terms.to_self_delay_lsp),
        n_blocks=1,
    )


def feerate_from_which_less(these: Monthly, those: Monthly) -> float | None:
    """Return the feerate from which the first cost less than the second, in sat/vB; None: never.

    Both are linear in it: what is published pays it, and capital knows none.
    """
    more_capital_sat = these.capital_sat - those.capital_sat
    less_vsize = those.vsize - these.vsize
    if less_vsize <= 0:
        return None
    return max(0.0, more_capital_sat / less_vsize)


def _shared_out(idea: Idea, *, vsize: float, locked_sat_blocks: float, n_blocks: float) -> Monthly:
    """Return for one month what some blocks with the client take in all."""
    months = n_blocks / MONTH_BLOCKS
    capital_sat = locked_sat_blocks * idea.capital_millionths / MILLION / YEAR_BLOCKS
    return Monthly(
        vsize=vsize / months,
        fee_sat=vsize * sat_per_vb(idea.feerate_sat_per_kw) / months,
        capital_sat=capital_sat / months,
    )
