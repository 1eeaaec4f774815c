"""What an LSP closes by itself, of a factory that dies: the largest part that can be closed now.

Together where everybody is here; else, of a tree that somebody has brought on chain, part by part.
"""

from collections.abc import Iterator

from cromford.bitcoin.tx import OutPoint
from cromford.factory.vertices import Vertex
from cromford.protocol import events as ev
from cromford.protocol.closing.lsp import on_requested
from cromford.protocol.closing.planning import close_name
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn


def close_what_can_be(turn: Turn[Factory]) -> None:
    """Begin with a close of the largest part that can be closed now; nothing, where none can.

    At usual feerates. One at a time: the next part follows with the block after this one is
    finished. After one that came to nothing the others come first: who refuses again and again
    keeps nobody's money in the factory but that of its own part.
    """
    for vertex in _in_turn(turn.state):
        asked = ev.CloseRequested(
            attempt_id=turn.state.attempt.attempt_id, vertex=vertex.first.shape.name
        )
        try:
            on_requested(turn, asked)
        except Rejected:
            continue
        return


def _in_turn(state: Factory) -> tuple[Vertex, ...]:
    """Return the parts in the order in which they are tried now: the largest first.

    If the newest close came to nothing, those that follow its part go before.
    """
    vertices = tuple(_largest_first(state))
    ended = state.close_ended
    if ended is None:
        return vertices
    for place, vertex in enumerate(vertices, start=1):
        names = {close_name(state, outpoint, state.n_closes - 1) for outpoint in _inputs_of(vertex)}
        if ended.close_id in names:
            return vertices[place:] + vertices[:place]
    return vertices


def _inputs_of(vertex: Vertex) -> set[OutPoint]:
    return {node.tx.inputs[0].outpoint for node in vertex.nodes}


def _largest_first(state: Factory) -> Iterator[Vertex]:
    """Yield the vertices by how many clients are below them, those nobody closed yet."""
    finished = {close.outpoint for close in state.closed.values()}
    vertices = state.attempt.tree.vertices
    for vertex in sorted(vertices, key=lambda vertex: -len(vertex.first.shape.clients)):
        if not _inputs_of(vertex) & finished:
            yield vertex
