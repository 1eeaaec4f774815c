"""How the updates of a channel end: a word to the peer, and whatever waited for it is let go."""

from cromford import effects as fx
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m


def fail(
    turn: AnyTurn, link: Link, reason: str, *, is_behind: bool = False, tells_peer: bool = True
) -> None:
    """Take no further part in updates of a channel, and say so."""
    reason = reason[: m.REASON_SIZE_MAX]
    turn.remember(
        cr.ChannelFailed(
            channel_id=link.channel_id,
            reason=reason,
            height=turn.known_height,
            is_behind=is_behind,
        )
    )
    if link.pool_ids:
        turn.ask(fx.DropPools(pool_ids=link.pool_ids))
    if tells_peer:
        turn.send(link.node_id, m.ChannelFailure(channel_id=link.channel_id, reason=reason))


def end_updates(turn: AnyTurn, link: Link, reason: str, *, tells_peer: bool = True) -> None:
    """End the updates of a channel, unless they ended before."""
    now = turn.link(link.channel_id)
    if now.failure is None:
        fail(turn, now, reason, tells_peer=tells_peer)
