"""Replacing an inner state: what is renewed, what stays, and who can tell."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import sellable, tree_of

from cromford.changed import changed
from cromford.factory.allocation import AdvanceRefused, Purchase
from cromford.factory.branch import branch_of
from cromford.factory.inner_advance import advance_inner, reading_of
from cromford.factory.leaf import Leaf, allocation_of, opening_leaf
from cromford.factory.tree import Tree
from cromford.factory.vertices import Vertex

Vertices = tuple[Vertex, ...]


def advanced(tree: Tree, vertices: Sequence[Vertex], path: tuple[int, ...]) -> Vertices:
    return advance_inner(vertices, path, terms=tree.terms, factory_pubkeys=tree.factory_pubkeys)


def with_sale(tree: Tree, vertices: Sequence[Vertex], client: int) -> Vertices:
    """Return vertices with all that is left of a client's L-stock sold to that client."""
    return tuple(
        changed(vertex, last=sold_out(tree, vertex, client).state)
        if not vertex.first.shape.children and client in vertex.first.shape.clients
        else vertex
        for vertex in vertices
    )


def sold_out(tree: Tree, vertex: Vertex, client: int) -> Leaf:
    leaf = opening_leaf(vertex, terms=tree.terms, factory_pubkeys=tree.factory_pubkeys)
    return leaf.sold(Purchase(buyer=client, amount_sat=None))


def path_to(vertices: Sequence[Vertex], client: int) -> Vertices:
    return tuple(vertex for vertex in vertices if client in vertex.first.shape.clients)


def txids(vertices: Sequence[Vertex]) -> dict[tuple[int, ...], list[str]]:
    return {v.first.shape.path: [str(node.tx.txid) for node in v.nodes] for v in vertices}


PICTURE = tree_of(oracle.terms_of([50_000] * 4, [20_000, 30_000], inner_arities=[2]))


def test_the_new_state_starts_everything_below_it_again() -> None:
    before = with_sale(PICTURE, PICTURE.vertices, 3)
    after = advanced(PICTURE, before, ())
    assert [node.name for vertex in after for node in vertex.nodes] == [
        "kickoff_root",
        "state_root v1",
        "kickoff_0",
        "state_0",
        "kickoff_1",
        "state_1",
    ]
    assert after[0].first == before[0].first
    old, new = before[0].last, after[0].last
    assert new.tx.inputs[0].outpoint == old.tx.inputs[0].outpoint
    assert new.tx.outputs == old.tx.outputs
    assert old.delay_blocks - new.delay_blocks == PICTURE.terms.step_blocks
    assert [reading_of(path_to(before, client)) for client in (1, 3)] == [(0, 0), (0, 1)]
    assert [reading_of(path_to(after, client)) for client in (1, 3)] == [(1, 0), (1, 0)]


def test_what_was_sold_stays_sold_and_indices_come_back() -> None:
    before = with_sale(PICTURE, PICTURE.vertices, 3)
    after = advanced(PICTURE, before, ())
    assert allocation_of(after[2].last) == allocation_of(before[2].last)
    assert allocation_of(after[2].last).lstock_sat == 0
    leaf = opening_leaf(after[1], terms=PICTURE.terms, factory_pubkeys=PICTURE.factory_pubkeys)
    assert leaf.sales_left == 3
    assert leaf.sold(Purchase(buyer=1, amount_sat=5_000)).state.name == "state_0 v1"


def test_only_an_inner_vertex_with_states_and_an_index_left_is_advanced() -> None:
    kinds = ["static", "dw"]
    tree = tree_of(
        oracle.terms_of([50_000] * 8, [20_000] * 4, inner_arities=[2, 2], inner_kinds=kinds)
    )
    expected = "vertex: expected an inner one of kind dw, received"
    for path, received in (
        ((), "root, static"),
        ((0, 1), "0_1, a leaf"),
        ((2,), r"\(2,\), which is not there"),
    ):
        with pytest.raises(AdvanceRefused, match=f"{expected} {received}"):
            advanced(tree, tree.vertices, path)
    alone = tree_of(oracle.terms_of([50_000], [20_000]))
    with pytest.raises(AdvanceRefused, match=f"{expected} root, a leaf"):
        advanced(alone, alone.vertices, ())
    with pytest.raises(AdvanceRefused, match=rf"{expected} \(1,\), which is not there"):
        advanced(tree, branch_of(tree, 1).vertices, (1,))

    vertices: Vertices = tree.vertices
    for _ in range(3):
        vertices = advanced(tree, vertices, (0,))
    with pytest.raises(AdvanceRefused, match="state_index: expected at most 3, received 4"):
        advanced(tree, vertices, (0,))
    assert txids(vertices)[(1,)] == txids(tree.vertices)[(1,)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Tree, list[Vertices], list[tuple[int, ...]]]:
    """Draw a tree with a `dw` level above the leaves, and advances of inner states and leaves.

    Return its vertices before and after each, and the path of what was advanced.
    """
    n_clients, leaf_arity = draw(st.integers(3, 9)), draw(st.integers(1, 2))
    arities = oracle.arities_for(n_clients, leaf_arity, draw(st.lists(st.integers(2, 4))))
    kinds = [draw(st.sampled_from(["dw", "static"])) for _ in arities]
    kinds[draw(st.integers(0, len(kinds) - 1))] = "dw"
    spots = list(oracle.split(range(1, n_clients + 1), leaf_arity, arities, kinds).depth_first())
    inner = [spot.path for spot in spots if spot.below and not spot.is_static]
    leaves = [spot for spot in spots if not spot.below]
    terms = sellable(
        oracle.terms_of(
            draw(st.lists(oracle.capacities, min_size=n_clients, max_size=n_clients)),
            draw(st.lists(oracle.lstocks, min_size=len(leaves), max_size=len(leaves))),
            leaf_arity=leaf_arity,
            inner_arities=arities,
            inner_kinds=kinds,
            states_per_layer=draw(st.integers(2, 5)),
            step_blocks=draw(st.integers(1, 144)),
            feerate=draw(st.integers(1, 25_000)),
        )
    )
    tree = tree_of(terms)
    steps, paths = [tree.vertices], list[tuple[int, ...]]()
    for is_sale in [False, *draw(st.lists(st.booleans(), max_size=3))]:
        if is_sale:
            spot = draw(st.sampled_from(leaves))
            leaf = next(v for v in steps[-1] if v.first.shape.path == spot.path)
            if leaf.last.state_index == 0 and allocation_of(leaf.last).lstock_sat:
                steps.append(with_sale(tree, steps[-1], draw(st.sampled_from(spot.clients))))
                paths.append(spot.path)
            continue
        path = draw(st.sampled_from(inner))
        vertex = next(v for v in steps[-1] if v.first.shape.path == path)
        if vertex.last.state_index != terms.states_per_layer - 1:
            steps.append(advanced(tree, steps[-1], path))
            paths.append(path)
    return tree, steps, paths


@settings(max_examples=30)
@given(history=histories())
def test_only_what_is_below_an_advanced_state_changes_and_a_client_finds_the_same(
    history: tuple[Tree, list[Vertices], list[tuple[int, ...]]],
) -> None:
    tree, steps, paths = history
    n_clients = tree.terms.n_clients
    branches = {client: branch_of(tree, client).vertices for client in range(1, n_clients + 1)}
    for before, after, path in zip(steps, steps[1:], paths, strict=False):
        old, new = txids(before), txids(after)
        below = {p for p in new if p[: len(path)] == path}
        assert {p for p in new if new[p] != old[p]} == below
        assert new[path][0] == old[path][0], "a kickoff is never replaced"
        assert {txid for p in below - {path} for txid in new[p]}.isdisjoint(
            txid for txids_of in old.values() for txid in txids_of
        )
        for client, branch in branches.items():
            if path in {vertex.first.shape.path for vertex in branch}:
                if next(v for v in branch if v.first.shape.path == path).first.shape.children:
                    branch = advanced(tree, branch, path)  # noqa: PLW2901 - the client's next
                else:
                    branch = path_to(after, client)  # noqa: PLW2901 - a sale: of another test
            branches[client] = branch
            assert txids(branch) == txids(path_to(after, client))


@settings(max_examples=30)
@given(history=histories())
def test_each_client_reads_the_odometer_a_digit_on_or_unchanged(
    history: tuple[Tree, list[Vertices], list[tuple[int, ...]]],
) -> None:
    tree, steps, paths = history
    for before, after, path in zip(steps, steps[1:], paths, strict=False):
        for client in range(1, tree.terms.n_clients + 1):
            old, new = path_to(before, client), path_to(after, client)
            if path not in {vertex.first.shape.path for vertex in old}:
                assert reading_of(new) == reading_of(old)
                continue
            digit = len(reading_of(v for v in old if len(v.first.shape.path) < len(path)))
            assert reading_of(new) == tree.terms.odometer.advanced(reading_of(old), digit)
