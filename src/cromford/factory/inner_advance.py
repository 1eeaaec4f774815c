"""Replacing an inner state: everything below it is renewed, and its leaves can be sold of again.

All clients below sign. What the new state pays its children is what the old one paid, so whoever
is elsewhere in the tree notices nothing. But its txid is another, and so is all that follows.
"""

from collections.abc import Iterable, Sequence

from cromford.factory.allocation import AdvanceRefused, next_state_index
from cromford.factory.leaf import allocation_of
from cromford.factory.outputs import SignersOutput
from cromford.factory.shape import plan_of, replanned
from cromford.factory.terms import FactoryTerms
from cromford.factory.vertices import Vertex, build_vertices


def reading_of(path: Iterable[Vertex]) -> tuple[int, ...]:
    """Return what the odometer reads along a path of vertices, root first.

    It has a digit for each state; a static vertex has none.
    """
    indices = (vertex.last.state_index for vertex in path)
    return tuple(index for index in indices if index is not None)


def advance_inner(
    vertices: Sequence[Vertex],
    path: tuple[int, ...],
    *,
    terms: FactoryTerms,
    factory_pubkeys: Sequence[bytes],
) -> tuple[Vertex, ...]:
    """Return the vertices of a tree, or of a branch, after one inner state was replaced.

    Its kickoff and all that is not below it stay as they are. Below it every state starts again at
    index 0, each leaf with what its newest state pays.

    Args:
        vertices: As they are now, root first, each with its newest state.
        path: Of the vertex whose state is replaced.
        terms: The agreement.
        factory_pubkeys: One per participant, the LSP's first.

    Raises:
        AdvanceRefused: If there is no such vertex, it is a leaf or static, or no index is left.
    """
    by_path = {vertex.first.shape.path: vertex for vertex in vertices}
    inner = by_path.get(path)
    index = None if inner is None else inner.last.state_index
    if inner is None or index is None or not inner.first.shape.children:
        raise AdvanceRefused("vertex", "an inner one of kind dw", _described(inner, path))
    leaves = [vertex.last for vertex in vertices if not vertex.last.shape.children]
    allocations = {leaf.shape.path: allocation_of(leaf) for leaf in leaves}
    channels: dict[int, SignersOutput | bytes] = {
        output.client: output.signers_output or output.script_pubkey
        for leaf in leaves
        for output in leaf.outputs
        if output.client is not None
    }
    planned = next(one for one in plan_of(terms).vertices() if one.shape.path == path)
    renewed = build_vertices(
        (
            one
            for one in replanned(planned, allocations, terms).vertices()
            if one.shape.path in by_path
        ),
        terms=terms,
        factory_pubkeys=factory_pubkeys,
        channels=channels,
        spends=inner.first.spends,
        outpoint=inner.first.tx.inputs[0].outpoint,
        state_indices={path: next_state_index(terms, index)},
    )
    if renewed[0].first.tx != inner.first.tx:
        raise AssertionError("what a kickoff pays does not change")
    newest = by_path | {vertex.first.shape.path: vertex for vertex in renewed}
    return tuple(newest[vertex.first.shape.path] for vertex in vertices)


def _described(vertex: Vertex | None, path: tuple[int, ...]) -> str:
    if vertex is None:
        return f"{path}, which is not there"
    shape = vertex.first.shape
    return f"{shape.name}, {shape.kind.label if shape.children else 'a leaf'}"
