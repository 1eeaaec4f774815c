"""What an LSP closes by itself, of a factory that dies: the largest part that can be closed now.

All of it where everybody is here; else, of a tree that somebody has brought on chain, part by part,
down to single channels. Whoever moved out and gave its keys needs not be here, and is not asked.
"""

from collections.abc import Iterator

from cromford.bitcoin.tx import OutPoint
from cromford.protocol import events as ev
from cromford.protocol.channels.seats import is_own_seat
from cromford.protocol.closing.lsp import on_requested
from cromford.protocol.closing.planning import clients_away
from cromford.protocol.dying_steps import Closers
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn

_Part = tuple[ev.CloseRequested, tuple[int, ...], frozenset[OutPoint]]


def close_what_can_be(turn: Turn[Factory], closers: Closers) -> None:
    """Begin with a close of the largest part that can be closed now; nothing, where none can.

    At usual feerates. One at a time: the next part follows with the block after this one is
    finished. After one that came to nothing the others come first: who refuses again and again
    keeps nobody's money in the factory but that of its own part.

    Args:
        turn: The decision so far.
        closers: Who may be needed for it.
    """
    if closers is Closers.NOBODY or turn.state.closing is not None:
        return
    for asked, clients, _ in _in_turn(turn.state):
        is_alone = all(is_own_seat(turn.state, client) for client in clients)
        if closers is Closers.LSP and not is_alone:
            continue
        try:
            on_requested(turn, asked)
        except Rejected:
            continue
        return


def waits_for_clients(turn: Turn[Factory], closers: Closers) -> bool:
    """Say whether a factory of which nothing is on chain is closed no sooner than somebody comes.

    Or than another may be needed: what is in the way of those who are here, a feerate, say, may be
    gone with any block.

    Args:
        turn: The decision so far.
        closers: Who may be needed for it.
    """
    clients = range(1, len(turn.state.attempt.seats) + 1)
    if closers is Closers.LSP:
        return not all(is_own_seat(turn.state, client) for client in clients)
    return closers is Closers.NOBODY or bool(clients_away(turn.state, turn.facts, clients))


def _in_turn(state: Factory) -> list[_Part]:
    """Return the parts in the order in which they are tried now: the largest first.

    If the newest close came to nothing, those that follow its part go before.
    """
    parts = list(_largest_first(state))
    ended = None if state.close_ended is None else state.close_ended.outpoint
    for place, (_, _, outpoints) in enumerate(parts, start=1):
        if ended in outpoints:
            return parts[place:] + parts[:place]
    return parts


def _largest_first(state: Factory) -> Iterator[_Part]:
    """Yield what can be asked for, whose it is, and what it may spend: what no finished close does.

    Nor what one did and lost its coin: whoever took that leaves, and what is below it is asked for.
    From the expiry on the tree itself is swept, and channels that are on chain are all that is left
    to be closed.
    """
    attempt = state.attempt
    finished = {close.outpoint for close in state.closed.values()}
    if state.chain.height < attempt.terms.expiry_height:
        vertices = attempt.tree.vertices
        for vertex in sorted(vertices, key=lambda vertex: -len(vertex.first.shape.clients)):
            outpoints = frozenset(node.tx.inputs[0].outpoint for node in vertex.nodes)
            if not finished & outpoints:
                shape = vertex.first.shape
                asked = ev.CloseRequested(attempt_id=attempt.attempt_id, vertex=shape.name)
                yield asked, tuple(shape.clients), outpoints
    for client in range(1, len(attempt.seats) + 1):
        outpoint = state.funding_on_chain(client).outpoint
        if outpoint not in finished:
            asked = ev.CloseRequested(attempt_id=attempt.attempt_id, client=client)
            yield asked, (client,), frozenset({outpoint})
