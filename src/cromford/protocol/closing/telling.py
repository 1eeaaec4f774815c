"""What an LSP tells of finished closes: its answer to whatever is said of their channels."""

from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def tell_closed(turn: Turn[Factory], node_id: bytes, channel_id: bytes | None = None) -> bool:
    """Tell a client of the finished closes of its channel; say whether there are any.

    The answer to whatever it says about such a channel, and told again in each new connection: what
    it signed is all that it needs to believe it.

    Args:
        turn: The decision so far.
        node_id: The client.
        channel_id: The channel it speaks of; None for any.
    """
    state = turn.state
    links = [
        link
        for link in state.book.links_with(node_id)
        if channel_id is None or link.channel_id == channel_id
    ]
    ids = {close.close_id for link in links for close in link.closes if close.is_finished}
    finished = [state.closed[close_id] for close_id in sorted(ids) if close_id in state.closed]
    live = [close for close in finished if close.is_live(state.chain)]
    for close in live:
        turn.send(node_id, closed_of(state, close))
    return bool(live)


def closed_of(state: Factory, close: FinishedClose) -> m.Closed:
    """Return what is said of a finished close."""
    return m.Closed(
        attempt_id=state.attempt.attempt_id,
        close_id=close.close_id,
        txs=tuple(m.ClosedTx(tx=tx.serialize()) for tx in close.txs),
    )
