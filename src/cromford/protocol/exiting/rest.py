"""When nothing happens in a factory, and until which height nothing will.

Whatever a factory still has to do by itself keeps it awake: each block then asks it. One in which
all is done sleeps until its height comes, until a client of it connects, or until mail arrives.
While clients are connected it stays in memory, and is only at rest: what they say is heard, and no
block asks it.
"""

from collections.abc import Callable
from typing import Final

from cromford.factory.lifetime import Period
from cromford.protocol.channels.seats import is_own_seat
from cromford.protocol.dying_steps import next_close_height
from cromford.protocol.exiting.lsp_sweep import is_over, is_swept_for_good
from cromford.protocol.exiting.settled import is_resolved
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import Funded

NEVER: Final = 2**31 - 1  # Above every height.
# What nobody took in two weeks, after whatever had a height, is left for its fee, or nobody's.
LEFT_BLOCKS: Final = 2_016
LOOK_AGAIN_BLOCKS: Final = 144  # A cheaper day is noticed the same day.


def wakes_at(factory: Factory) -> int | None:
    """Return the height from which a factory has something to do again; None if it has it now.

    No close that the policy asks for wakes it: whoever is needed for that has to connect. Where
    nobody is needed, a factory that dies stays in memory, so that no label says when it is closed:
    a later start may have another policy.
    """
    height = _idle_until(factory, _is_busy)
    if height is None or height == NEVER:
        return height
    return None if _is_closed_alone(factory.landed) else height


def at_rest_until(factory: Factory) -> int | None:
    """Return until which height no block has to ask a factory; None if the next one has to.

    What its clients may still say does not matter. Whether a close of one that dies waits for
    nobody but the next block has to be asked besides. One that expired long ago, and of which only
    what nobody takes is left, is asked once a day: on a cheaper one that may be worth its fee.
    """
    height = _idle_until(factory, _asks_blocks)
    if height is None:
        return factory.chain.height + LOOK_AGAIN_BLOCKS if _is_left(factory) else None
    if height == NEVER:
        return height
    landed = factory.landed
    close = next_close_height(
        landed.config.policy,
        landed.lifetime,
        asked_height=landed.close_height,
        has_failed=landed.close_ended is not None,
        height=landed.chain.height,
    )
    return height if close is None else min(height, close)


def _is_left(factory: Factory) -> bool:
    """Say whether nothing happened in a factory for two weeks after all that had a height.

    It expired, and so did all HTLCs in it; whatever is to be taken of it could be taken since.
    """
    if factory.begun is None or factory.is_marked or factory.post.outbox or factory.advances:
        return False
    if _has_coins(factory) or _is_closing(factory):
        return False
    book, chain = factory.book, factory.chain
    if book.arrived or book.held or book.resolved or factory.period is not Period.EXPIRED:
        return False
    if factory.attempt.funding_outpoint not in chain.spends:
        return False  # It is to be swept as a whole, or another candidate is in its place.
    if any(chain.depth(tx.txid) <= LEFT_BLOCKS for tx in chain.spends.values()):
        return False
    heights = [factory.attempt.terms.expiry_height]
    for link in book.links.values():
        if link.awaits_nonce:
            return False
        heights += [live.htlc.cltv_expiry for live in link.state.htlcs]
    return chain.height >= max(heights) + LEFT_BLOCKS


def has_guests(factory: Factory, is_connected: Callable[[bytes], bool]) -> bool:
    """Say whether a client is here whose channel in a factory is not closed.

    Args:
        factory: The factory.
        is_connected: Says whether somebody is here, by node id.
    """
    closed = factory.closed_seats
    seats = enumerate(factory.attempt.seats, start=1)
    return any(client not in closed and is_connected(seat.node_id) for client, seat in seats)


def _idle_until(factory: Factory, is_busy: Callable[[Link], bool]) -> int | None:
    if factory.landed is not factory and (_has_payments(factory) or not factory.is_dead):
        # Its channels are in another candidate than the one in the block: until that is so deep
        # that they are over, which it has to say, and what was under way in them is given back.
        return None
    factory = factory.landed
    if factory.begun is None or factory.post.outbox or _has_coins(factory):
        return None
    stage = factory.attempt.stage
    if not isinstance(stage, Funded):
        return None if factory.attempt.is_open else NEVER
    if factory.is_dead:
        # Its funding was overtaken. If that is undone, the chain has news for it.
        return None if _has_payments(factory) else NEVER
    if is_swept_for_good(factory) or is_shared_out(factory):
        # Its channels ended with it; and here, too, the chain would have news.
        return None if _has_payments(factory) else NEVER
    if factory.is_marked:
        return None  # It has to hear that nothing was lost.
    if not stage.ready_sent or factory.chain.depth(factory.attempt.funding_tx.txid) == 0:
        return None
    if _is_closing(factory) or _is_on_chain(factory):
        return None
    if _has_payments(factory) or any(is_busy(link) for link in factory.book.links.values()):
        return None
    if factory.advances:
        return None  # Whoever comes back is asked at once, and deadlines count from here.
    # From the expiry on it is ours, and stays awake until it is in the wallet.
    return _next_change(factory)


def _next_change(factory: Factory) -> int | None:
    """Return the next height at which its life changes.

    None from the expiry on, and while a change is not told yet.
    """
    lifetime, height = factory.lifetime, factory.chain.height
    is_told = lifetime.untold_at(height, factory.period) is None
    return lifetime.next_change(height) if is_told else None


def _is_closed_alone(factory: Factory) -> bool:
    """Say whether a factory dies that we may close by ourselves: we sign for all its clients."""
    is_dying = factory.lifetime.period_at(factory.chain.height) > Period.ACTIVE
    clients = range(1, len(factory.attempt.seats) + 1)
    return is_dying and all(is_own_seat(factory, client) for client in clients)


def is_shared_out(factory: Factory) -> bool:
    """Say whether nothing is left of what was taken part by part, and all that is for good.

    Each channel was closed, or cut off, or is on chain with nothing of ours that is not taken.
    """
    return is_over(factory) and all(
        is_resolved(factory, link) for link in factory.book.links.values()
    )


def _is_on_chain(factory: Factory) -> bool:
    """Say whether anything of the tree is published, or is about to be."""
    return bool(factory.exits) or factory.attempt.funding_outpoint in factory.chain.spends


def _is_closing(factory: Factory) -> bool:
    """Say whether a close is under way, or finished and published until a block has it.

    One whose outpoint something else spent keeps nobody awake: the tree is on chain then.
    """
    spends = factory.chain.spends
    is_waiting = any(close.outpoint not in spends for close in factory.closed.values())
    return factory.closing is not None or is_waiting


def _has_coins(factory: Factory) -> bool:
    """Say whether coins of the house are set aside for it, or it waits for some."""
    return bool(factory.coins_asked) or any(purse.coins for purse in factory.purses.values())


def _has_payments(factory: Factory) -> bool:
    book = factory.book
    return bool(book.arrived or book.held or book.forwards or book.resolved or book.owners)


def _is_busy(link: Link) -> bool:
    """Say whether a channel has a session, an HTLC, or failed: each has deadlines."""
    return link.has_session or _asks_blocks(link)


def _asks_blocks(link: Link) -> bool:
    """Say whether a channel has something that a new height may make due."""
    return bool(link.state.htlcs) or link.failure is not None or link.awaits_nonce
