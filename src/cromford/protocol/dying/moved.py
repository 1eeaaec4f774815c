"""What of a channel can move to another, how large that has to be, and when all of it has moved.

Nothing but functions of channels: both roles, and whoever frees what a client has left, ask here.
"""

from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms, Party
from cromford.protocol.channels.balances import balance_of, offerable_msat
from cromford.protocol.channels.forwarding import MOVED_MSAT_MIN
from cromford.protocol.channels.htlc_rules import is_alive
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link


def movable_msat(old: Link, new: Link) -> int:
    """Return what one payment can move from one channel of a client to another now, in msat.

    All of the balance, unless a limit of either channel is lower. 0 where less than 330 sat could
    move: that stays.
    """
    due_msat = balance_of(old).own_msat
    most_msat = min(
        due_msat, offerable_msat(old.state, old.me), offerable_msat(new.state, new.state.peer)
    )
    return most_msat if most_msat >= MOVED_MSAT_MIN else 0


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


def has_moved_out(old: Link, new: Link | None, chain: KnownChain, *, min_depth: int) -> bool:
    """Say whether nothing of a client is left in its old channel, and all it has is in the new one.

    The old channel has no HTLC and no update under way on either commitment, and what is due to the
    client is less than 330 sat on both. The new one is alive, nothing in it is under way, and its
    funding is deep enough. Whoever this is said of loses nothing with the old factory's keys.

    Args:
        old: The channel in the factory that dies, either end of it.
        new: The client's channel in a later factory; None if it has none.
        chain: What the new channel's factory has read of the chain.
        min_depth: At which depth its terms let it be paid through.
    """
    if new is None or new.channel_id == old.channel_id or not is_alive(new, chain):
        return False
    funding_txid = new.path[0].outpoint.txid
    return (
        _is_at_rest(old)
        and not old.is_behind
        and all(
            old.state.content(holder, Edition.SIGNED).accepter_msat < MOVED_MSAT_MIN
            for holder in Party
        )
        and _is_irrevocable(new)
        and chain.depth(funding_txid) >= min_depth
    )


def _is_at_rest(link: Link) -> bool:
    return _is_irrevocable(link) and not link.state.htlcs


def _is_irrevocable(link: Link) -> bool:
    """Say whether no commitment before the latest of either side can be published unpunished."""
    return link.state.is_quiet and link.peer_unrevoked is None
