"""What an LSP closes by itself, of a factory that dies: the largest part that can be closed now.

Together where everybody is here; else, of a tree that somebody has brought on chain, part by part.
"""

from collections.abc import Iterator

from cromford.factory.vertices import Vertex
from cromford.protocol import events as ev
from cromford.protocol.closing.lsp import on_requested
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn


def close_what_can_be(turn: Turn[Factory]) -> None:
    """Begin with a close of the largest part that can be closed now; nothing, where none can.

    At usual feerates. One at a time: the next part follows with the block after this one is
    finished.
    """
    for vertex in _largest_first(turn.state):
        asked = ev.CloseRequested(
            attempt_id=turn.state.attempt.attempt_id, vertex=vertex.first.shape.name
        )
        try:
            on_requested(turn, asked)
        except Rejected:
            continue
        return


def _largest_first(state: Factory) -> Iterator[Vertex]:
    """Yield the vertices by how many clients are below them, those nobody closed yet."""
    finished = {close.outpoint for close in state.closed.values()}
    vertices = state.attempt.tree.vertices
    for vertex in sorted(vertices, key=lambda vertex: -len(vertex.first.shape.clients)):
        inputs = {node.tx.inputs[0].outpoint for node in vertex.nodes}
        if not inputs & finished:
            yield vertex
