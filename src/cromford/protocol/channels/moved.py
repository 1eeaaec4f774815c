"""When nothing of a client is left in a channel, and all it has is in a newer one."""

from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.protocol.channels.htlc_rules import is_alive
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link

# What is due to a client below this has no output anywhere.
LEFT_BEHIND_MSAT: Final = P2TR_DUST_SAT * MSAT_PER_SAT


def due_msat(link: Link) -> int:
    """Return the most that any commitment of a channel which is not revoked owes its client.

    In msat, HTLCs not counted.
    """
    return max(link.state.content(holder, Edition.SIGNED).accepter_msat for holder in Party)


def is_at_rest(link: Link) -> bool:
    """Say whether a channel has no HTLC, and each side has one commitment that is not revoked.

    On one funding: while another takes its place, there are commitments on both.
    """
    return _is_irrevocable(link) and not link.state.htlcs


def is_left(link: Link) -> bool:
    """Say whether nothing of the client is in a channel, whichever commitment came on chain.

    Less than 330 sat on both sides' only commitments, and no HTLC; and no state was lost, nor may
    have been by a store that was restored, for then these would not be the commitments that count.
    """
    return link.mark is None and is_known_to_be_left(link)


def is_known_to_be_left(link: Link) -> bool:
    """Say the same of a channel in which nothing changed any more before the store was restored."""
    has_lost_state = link.is_behind or link.peer_is_behind
    return is_at_rest(link) and not has_lost_state and due_msat(link) < LEFT_BEHIND_MSAT


def has_moved_out(old: Link, new: Link | None, chain: KnownChain, *, min_depth: int) -> bool:
    """Say whether nothing of a client is left in its old channel, and all it has is in the new one.

    The new one is alive, nothing in it is under way, and its funding is deep enough. Whoever this
    is said of loses nothing with the old factory's keys.

    Args:
        old: The channel in the factory that dies.
        new: The client's channel in a later factory; None if it has none.
        chain: What is known of the chain.
        min_depth: At which depth the new one may be paid through, by what it holds.
    """
    if new is None or new.channel_id == old.channel_id or not is_alive(new, chain):
        return False
    depth = chain.depth(new.path[0].outpoint.txid)
    return is_left(old) and _is_irrevocable(new) and depth >= min_depth


def _is_irrevocable(link: Link) -> bool:
    return link.state.is_quiet and link.peer_unrevoked is None and link.next is None
