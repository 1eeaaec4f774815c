"""What of a channel can move to another, and how large that has to be."""

from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms, Party
from cromford.protocol.channels.balances import balance_of, offerable_msat
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT
from cromford.protocol.journal.link import Link


def movable_msat(old: Link, new: Link, *, room_msat: int | None = None) -> int:
    """Return what one payment can move from one channel of a client to another now, in msat.

    All of the balance, unless a limit of either channel is lower. 0 where less than 330 sat could
    move: that stays.

    Args:
        old: What it moves out of.
        new: Where it goes.
        room_msat: How much more is covered there, if that is a limit.
    """
    due_msat = balance_of(old).own_msat
    most_msat = min(
        due_msat, offerable_msat(old.state, old.me), offerable_msat(new.state, new.state.peer)
    )
    if room_msat is not None:
        most_msat = min(most_msat, room_msat)
    return most_msat if most_msat >= LEFT_BEHIND_MSAT else 0


def least_capacity_sat(balance_msat: int, terms: ChannelTerms) -> int:
    """Return the smallest channel that the LSP can pay a whole balance into, in sat.

    It keeps its reserve there: a hundredth of the capacity, and never less than what its largest
    commitment takes (BOLT 2, `channel_reserve_satoshis`).

    Args:
        balance_msat: What is to move.
        terms: Of the old channel; those of the new one are not known yet.
    """
    balance_sat = -(-balance_msat // MSAT_PER_SAT)
    least_sat = balance_sat + terms.reserve_sat(Party.OPENER, capacity_sat=0)
    # With c = ceil(100 b / 99), c - floor(c / 100) is at least b.
    return max(least_sat, -(-100 * balance_sat // 99))
