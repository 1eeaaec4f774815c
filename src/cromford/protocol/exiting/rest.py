"""When nothing happens in a factory, and until which height nothing will.

Whatever a factory still has to do by itself keeps it awake: each block then asks it. One in which
all is done sleeps until its height comes, until a client of it connects, or until mail arrives.
"""

from typing import Final

from cromford.protocol.exiting.lsp_sweep import is_swept_for_good
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import Funded

NEVER: Final = 2**31 - 1  # Above every height.


def wakes_at(factory: Factory) -> int | None:
    """Return the height from which a factory has something to do again; None if it has it now."""
    if factory.begun is None or factory.post.outbox or _has_coins(factory):
        return None
    stage = factory.attempt.stage
    if not isinstance(stage, Funded):
        return None if factory.attempt.is_open else NEVER
    if factory.is_dead:
        return NEVER  # Its funding was overtaken. If that is undone, the chain has news for it.
    if is_swept_for_good(factory):
        # Its channels ended with it; and here, too, the chain would have news.
        return None if _has_payments(factory) else NEVER
    if factory.is_marked:
        return None  # It has to hear that nothing was lost.
    if not stage.ready_sent or factory.chain.depth(factory.attempt.funding_tx.txid) == 0:
        return None
    if _is_on_chain(factory) or _has_business(factory):
        return None
    # From the expiry on it is ours, and stays awake until it is in the wallet.
    expiry_height = factory.attempt.terms.expiry_height
    return expiry_height if factory.chain.height < expiry_height else None


def _is_on_chain(factory: Factory) -> bool:
    """Say whether anything of the tree is published, or is about to be."""
    return bool(factory.exits) or factory.attempt.funding_outpoint in factory.chain.spends


def _has_coins(factory: Factory) -> bool:
    """Say whether coins of the house are set aside for it, or it waits for some."""
    return bool(factory.coins_asked) or any(purse.coins for purse in factory.purses.values())


def _has_business(factory: Factory) -> bool:
    links = factory.book.links.values()
    return _has_payments(factory) or any(_is_busy(link) for link in links)


def _has_payments(factory: Factory) -> bool:
    book = factory.book
    return bool(book.arrived or book.held or book.forwards or book.resolved or book.owners)


def _is_busy(link: Link) -> bool:
    """Say whether a channel has a session, an HTLC, or failed: each has deadlines."""
    return link.has_session or bool(link.state.htlcs) or link.failure is not None
