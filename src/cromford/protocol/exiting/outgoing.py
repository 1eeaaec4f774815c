"""HTLCs that a client offered, and of which nothing will ever tell whether they were paid."""

from collections.abc import Callable, Iterator

from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.channel import (
    ELSEWHERE,
    OVERTAKEN,
    RESOLVED_DEPTH,
    SWEPT_ABOVE,
    has_lost_its_place,
    landed_channel,
    settled_spender,
)
from cromford.protocol.exiting.in_hand import InHand
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.watch.exit import swept_by


def ended_untold(
    state: ClientState,
    attempt: ClientAttempt,
    link: Link,
    in_hand: Callable[[ClientState, ClientAttempt], InHand],
) -> Iterator[cr.OutgoingEnded]:
    """Yield our HTLCs that ended with their channel, while nobody said whether they were paid.

    Of a commitment that we know, or a close, the chain decides each. Where an output above the
    channel went elsewhere, or its own to what we do not know, nothing shows what the LSP paid on.

    Args:
        state: The client.
        attempt: The channel's.
        link: The channel.
        in_hand: Returns what we hold of it.
    """
    waiting = list(state.book.undecided(link))
    reason = _how_it_ended(state, attempt, link, in_hand) if waiting else None
    if reason is None:
        return
    for htlc in waiting:
        if give_up_height(htlc.cltv_expiry) <= state.chain.height:
            yield cr.OutgoingEnded(channel_id=link.channel_id, htlc_id=htlc.htlc_id, reason=reason)


def _how_it_ended(
    state: ClientState,
    attempt: ClientAttempt,
    link: Link,
    in_hand: Callable[[ClientState, ClientAttempt], InHand],
) -> str | None:
    chain = state.chain
    if has_lost_its_place(attempt, chain):
        return OVERTAKEN
    if isinstance(attempt.stage, Complete):
        sweep = swept_by(attempt.branch_on(chain).nodes, chain.spends)
        if sweep is not None:
            return SWEPT_ABOVE if chain.depth(sweep.txid) >= RESOLVED_DEPTH else None
    if settled_spender(link, chain) is None:
        return None
    is_known = landed_channel(in_hand(state, attempt), chain).landed is not None
    return None if is_known else ELSEWHERE
