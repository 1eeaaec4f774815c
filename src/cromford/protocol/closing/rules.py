"""What both roles ask of a cooperative close: heights, feerates, and the state of a channel."""

from collections.abc import Sequence
from typing import Final

from cromford import told
from cromford.channel.terms import Party
from cromford.factory.close import CloseScope
from cromford.protocol.closing.restored import (
    NOT_COMPARED,
    can_close_though_ended,
)
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import POISONS_HELD
from cromford.watch.feerates import MOST_SAT_PER_KW, OwnFees
from cromford.watch.remaining import is_cut_off
from cromford.wire.messages import N_CLOSE_OPTIONS_MAX

# No partial signature later: who then waits in vain for the others still leaves in time.
LATEST_BLOCKS: Final = 144
# A close must replace a root that waits (BIP 125, rules 3 and 4), and get into every mempool.
TREE_FACTOR: Final = (3, 2)
MEMPOOL_FACTOR: Final = 2
ADVANCE_OPEN: Final = "an advance of its leaf is under way"
NOT_NOW: Final = "its channel cannot be closed now"
NEVER_LATE: Final = 0  # A height for a client that moved out: it leaves by no exit.


def least_feerate_sat_per_kw(*, tree_feerate_sat_per_kw: int, fees: OwnFees) -> int:
    """Return the least that a close pays: 1.5 times the tree's, twice our mempool's minimum.

    Args:
        tree_feerate_sat_per_kw: What the factory's transactions pay.
        fees: What one's own node says.
    """
    numerator, denominator = TREE_FACTOR
    by_tree = -(-numerator * tree_feerate_sat_per_kw // denominator)
    return max(by_tree, MEMPOOL_FACTOR * fees.mempool_min_sat_per_kw)


def problem_with_feerates(
    feerates_sat_per_kw: Sequence[int], *, least_sat_per_kw: int
) -> tuple[str, str, int] | None:
    """Return what is wrong with a close's feerates: a field, what is expected, what is there.

    At most two, ascending, each from the least up to what Core takes for no mistake. What is
    expected is told in sat/vB.
    """
    n_options = len(feerates_sat_per_kw)
    if not 1 <= n_options <= N_CLOSE_OPTIONS_MAX:
        return "options", f"1..{N_CLOSE_OPTIONS_MAX} feerates", n_options
    before = 0
    for feerate in feerates_sat_per_kw:
        if feerate < least_sat_per_kw:
            return "feerate_sat_per_kw", f"at least {told.feerate(least_sat_per_kw)}", feerate
        if feerate > MOST_SAT_PER_KW:
            return "feerate_sat_per_kw", f"at most {told.feerate(MOST_SAT_PER_KW)}", feerate
        if feerate <= before:
            return "feerate_sat_per_kw", f"above {told.feerate(before)}, the one before", feerate
        before = feerate
    return None


def problem_on_chain(scope: CloseScope, chain: KnownChain) -> str | None:
    """Return why an output cannot be spent now: it is in no block, or spent in one; else None."""
    if chain.depth(scope.outpoint.txid) == 0:
        return f"{scope.name}: its output is not on chain"
    spender = chain.spends.get(scope.outpoint)
    return None if spender is None else f"{scope.name}: its output was spent by {spender.txid}"


def problem_with_height(link: Link, chain: KnownChain, *, height: int) -> str | None:
    """Return why it is too late to sign a channel's close; None if it is not, or never will be.

    Args:
        link: The channel.
        chain: What is known of the chain.
        height: The highest that is known of.
    """
    deadline = link.remaining(chain).exit_deadline_height
    if deadline is None or height < deadline - LATEST_BLOCKS:
        return None
    return f"too late: expected a height below {deadline - LATEST_BLOCKS}, received {height}"


def problem_with_channel(link: Link, chain: KnownChain, *, height: int) -> str | None:
    """Return why a close may not end a channel as it is; None if it may.

    It is neither over nor about to be, not frozen by another close, in time, without an HTLC, not
    about to move onto another funding, and nothing of it is on its way. That a store was restored
    ends updates, and not this. Of an HTLC a restored client cannot know that it is still there: it
    is for the LSP to say.

    Args:
        link: The channel.
        chain: What is known of the chain.
        height: The highest that is known of.
    """
    if link.failure is not None and not can_close_though_ended(link):
        return f"the channel failed: {link.failure}"
    if is_frozen(link.closes, chain):
        return "another close of it is finished already"
    is_spent = link.funding_on(chain).outpoint in chain.spends
    if is_spent or is_cut_off(link.path_on(chain), chain.spends):
        return "its output, or one above it, was spent otherwise"
    late = problem_with_height(link, chain, height=height)
    if late is not None:
        return late
    if link.takes_updates and link.next is not None and link.next.stage >= POISONS_HELD:
        return ADVANCE_OPEN  # Where no update can follow, it will never be moved.
    if link.is_balance_unknown:
        if link.me is Party.ACCEPTER:
            return None
        if link.peer_is_behind:
            return NOT_COMPARED
    if link.state.htlcs:
        return "an HTLC is pending"
    if not link.state.is_quiet:
        return "an update is on its way"
    return None


def due_msat(link: Link) -> int:
    """Return what a channel without an HTLC owes its client."""
    return link.state.accepter_msat
