"""When an HTLC may be accepted or forwarded: the heights of a factory's channels.

Bringing a channel on chain takes its `exit_blocks`, EB, as the chain is now. An HTLC whose expiry
leaves less than that, and some blocks to act and to claim, could be lost; one that lasts too long
ties money up.
"""

from cromford.channel.errors import UpdateRefused
from cromford.channel.limits import check_cltv_expiry
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol.facts import Facts
from cromford.protocol.htlc_blocks import (
    CLAIM_BLOCKS,
    FORWARD_BLOCKS,
    GIVE_UP_BLOCKS,
    final_blocks,
    hold_blocks,
)
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.watch.remaining import is_cut_off


def is_alive(link: Link, chain: KnownChain) -> bool:
    """Say whether updates of a channel still mean something on chain.

    Until one of its parties leaves, its output is spent, its store is restored, the chain has
    something else where its path was to be, or a close of it may be on its way to a block. What
    others publish of the path only makes the rest shorter.
    """
    return (
        link.takes_updates
        and link.funding_on(chain).outpoint not in chain.spends
        and not is_cut_off(link.path_on(chain), chain.spends)
        and not is_frozen(link.closes, chain)
    )


def is_in_time(link: Link, chain: KnownChain, *, height: int) -> bool:
    """Say whether the exit deadline is ahead, or nothing about the channel expires any more."""
    deadline_height = link.remaining(chain).exit_deadline_height
    return deadline_height is None or height < deadline_height


def min_final_cltv_expiry_delta(link: Link, chain: KnownChain, *, hold_seconds: int = 0) -> int:
    """Return what an invoice asks for that is paid through this channel (BOLT 11 `c`).

    Args:
        link: The channel.
        chain: How much of its way out is on chain.
        hold_seconds: how long the payment may wait for its payee, while blocks pass.
    """
    return final_blocks(link.remaining(chain).exit_blocks) + hold_blocks(hold_seconds)


def forward_delta_blocks(incoming: Link, chain: KnownChain) -> int:
    """Return how much earlier a forwarded HTLC must expire than the one it comes from."""
    return incoming.remaining(chain).exit_blocks + FORWARD_BLOCKS


def publish_height(link: Link, cltv_expiry: int, *, chain: KnownChain) -> int:
    """Return the height at which a channel must go on chain for an HTLC that is at stake."""
    return cltv_expiry - link.remaining(chain).exit_blocks - CLAIM_BLOCKS


def acceptance_failure(
    link: Link, cltv_expiry: int, *, chain: KnownChain, height: int
) -> Failure | None:
    """Say why an HTLC that a peer offered cannot be accepted; None if it can.

    From the exit deadline on no HTLC is accepted: leaving has begun, or soon must.

    Args:
        link: The channel.
        cltv_expiry: The HTLC's.
        chain: What we have read of the chain: how much of the way out is behind us.
        height: The highest that we know of, which headers may tell before the blocks are read.
    """
    if not is_in_time(link, chain, height=height):
        return Failure.TEMPORARY_CHANNEL_FAILURE
    if is_expiry_too_near(link, cltv_expiry, chain=chain, height=height):
        return Failure.EXPIRY_TOO_SOON
    if cltv_expiry > height + link.max_cltv_blocks:
        return Failure.EXPIRY_TOO_FAR
    return None


def is_expiry_too_near(link: Link, cltv_expiry: int, *, chain: KnownChain, height: int) -> bool:
    """Say whether an HTLC expires too soon for it to be accepted at a height."""
    return cltv_expiry < _least_expiry(link, chain, height)


def is_final(failure: Failure | None, facts: Facts) -> bool:
    """Say whether an HTLC is given back for this, whatever may be in blocks that were not read.

    An HTLC that lasts too long by an old height may be just right by the world's.
    """
    return failure is not None and (facts.is_fresh or failure is not Failure.EXPIRY_TOO_FAR)


def _least_expiry(link: Link, chain: KnownChain, height: int) -> int:
    return height + link.remaining(chain).exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS


def check_offer(link: Link, cltv_expiry: int, *, chain: KnownChain, height: int) -> None:
    """Check that an HTLC of ours has an expiry that the peer will accept.

    Raises:
        UpdateRefused: If not; names the field.
    """
    if not is_in_time(link, chain, height=height):
        raise UpdateRefused(
            "height",
            expected=f"below the exit deadline {link.remaining(chain).exit_deadline_height}",
            received=height,
        )
    check_cltv_expiry(
        cltv_expiry,
        least_height=_least_expiry(link, chain, height),
        most_height=height + link.max_cltv_blocks,
    )


def give_up_height(cltv_expiry: int) -> int:
    """Return from when on an HTLC of ours is written off that the peer never answered.

    It has no output, or its channel had gone on chain. Where it is the outgoing one of a forward,
    the incoming one, which may have one, expires at least EB + `FORWARD_BLOCKS` later: its offerer
    has it back before it must leave.
    """
    return cltv_expiry + GIVE_UP_BLOCKS
