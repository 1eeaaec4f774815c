"""How far the next height is by which something has to be done, or is lost."""

from collections.abc import Iterator
from typing import Final

from cromford.daemon.views.lsp import leads_to, period_of
from cromford.protocol.exiting.channel import has_lost_its_place
from cromford.protocol.exiting.client import is_over
from cromford.protocol.exiting.looking import blocks_to_look_away
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory

FAR_BLOCKS: Final = 1 << 31  # No height that counts is so far away.


def client_deadline_blocks(state: ClientState) -> int | None:
    """Return how far it is to an exit deadline, or to where an HTLC is left for; None if to none.

    At 1 it is the next block, or has passed.
    """
    chain = state.chain
    left = [
        blocks_to_look_away(state.book, link, chain, most_blocks=FAR_BLOCKS, expires=True)
        for attempt in state.attempts.values()
        if attempt.ready_sent and not _has_ended(state, attempt)
        for link in (state.book.links[attempt.setting.channel_id],)
    ]
    nearest = min(left, default=FAR_BLOCKS)
    return None if nearest == FAR_BLOCKS else nearest


def _has_ended(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether nothing of a factory is ours any more: we moved out, or there is no way to it."""
    is_lost = attempt.is_retired or has_lost_its_place(attempt, state.chain)
    return is_lost or is_over(state, attempt)


def factory_deadline_blocks(factory: Factory) -> int:
    """Return how far it is to where a channel is left for an HTLC, or the factory's next period.

    `FAR_BLOCKS` where nothing is to be done, or lost, in it.
    """
    return min(_of_factory(factory), default=FAR_BLOCKS)


def _of_factory(factory: Factory) -> Iterator[int]:
    if factory.attempt.funded is None:
        return
    chain = factory.chain
    for link in factory.book.links.values():
        if link.state.htlcs and leads_to(factory, link.client):
            yield blocks_to_look_away(
                factory.book, link, chain, most_blocks=FAR_BLOCKS, expires=False
            )
    change = factory.lifetime.next_change(chain.height) if period_of(factory) else None
    if change is not None:
        yield change - chain.height
