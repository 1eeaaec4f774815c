"""Who sits with whom: the shape rule, its defaults and its limits."""

from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.oracle import Spot
from tests.factory.specimen import DW, STATIC, dw, tree_of

from cromford.factory.kinds import InnerLevels, VertexKind, exit_blocks_of
from cromford.factory.shape import (
    PlannedVertex,
    ShapeVertex,
    check_exit_delay,
    check_truc_size,
    default_levels,
    default_lstocks_sat,
    levels_of,
    plan_of,
    shape_of,
)
from cromford.factory.terms import FactoryTerms, InvalidTerms

shapes = st.tuples(
    st.integers(1, 300), st.integers(1, 10), st.lists(st.integers(2, 12), max_size=7)
).map(lambda drawn: (drawn[0], drawn[1], oracle.arities_for(*drawn)))


def same(vertex: ShapeVertex, spot: Spot) -> bool:
    return (
        (vertex.path, tuple(vertex.clients), vertex.name, vertex.n_layers)
        == (spot.path, spot.clients, spot.name, spot.depth)
        and len(vertex.children) == len(spot.below)
        and all(map(same, vertex.children, spot.below))
    )


@given(drawn=shapes)
def test_the_shape_is_what_a_second_reading_of_the_rule_gives(
    drawn: tuple[int, int, tuple[int, ...]],
) -> None:
    n_clients, leaf_arity, arities = drawn
    shape = shape_of(n_clients, leaf_arity=leaf_arity, inner=dw(arities))
    spot = oracle.split(list(range(1, n_clients + 1)), leaf_arity, arities)
    assert same(shape, spot)
    assert [leaf.name for leaf in shape.leaves()] == [leaf.name for leaf in spot.leaves()]


@given(drawn=shapes)
def test_every_client_has_one_seat_and_siblings_differ_by_at_most_one(
    drawn: tuple[int, int, tuple[int, ...]],
) -> None:
    n_clients, leaf_arity, arities = drawn
    shape = shape_of(n_clients, leaf_arity=leaf_arity, inner=dw(arities))
    seats = [client for leaf in shape.leaves() for client in leaf.clients]
    assert seats == list(range(1, n_clients + 1))
    waiting = [shape]
    while waiting:
        vertex = waiting.pop()
        sizes = [child.n_clients for child in vertex.children]
        assert sizes == sorted(sizes, reverse=True)
        if sizes:
            assert 2 <= len(sizes) <= arities[len(vertex.path)]
            assert max(sizes) - min(sizes) <= 1
            assert sum(sizes) == vertex.n_clients
        else:
            assert vertex.n_clients <= leaf_arity
        waiting += vertex.children
    for client in seats:
        path = shape.path_to(client)
        assert path[0] is shape
        assert not path[-1].children
        assert all(client in vertex.clients for vertex in path)
    for stranger in (0, n_clients + 1):
        with pytest.raises(ValueError, match=f"client {stranger}"):
            shape.path_to(stranger)


def test_five_clients_in_pairs_are_two_and_one_and_two() -> None:
    shape = shape_of(5, leaf_arity=2, inner=dw([2, 2]))
    leaves = [(leaf.name, list(leaf.clients)) for leaf in shape.leaves()]
    assert leaves == [("0_0", [1, 2]), ("0_1", [3]), ("1", [4, 5])]


def test_a_path_has_the_kinds_of_its_vertices_and_a_tree_no_levels_but_its_own() -> None:
    inner = InnerLevels(arities=(2, 2, 3), kinds=(STATIC, DW, STATIC))
    shape = shape_of(5, leaf_arity=2, inner=inner)
    assert shape.kinds_to(3) == (STATIC, DW, DW)
    assert shape.kinds_to(4) == (STATIC, DW)
    assert levels_of(shape, inner) == InnerLevels(arities=(2, 2), kinds=(STATIC, DW))
    assert levels_of(shape_of(2, leaf_arity=2, inner=inner), inner) == InnerLevels()


def test_a_plan_knows_its_longest_way_and_how_its_transactions_are_called() -> None:
    terms = oracle.terms_of(
        [50_000] * 5, [10_000] * 3, inner_arities=[2, 2], inner_kinds=["static", "dw"]
    )
    plan = plan_of(terms)
    assert plan.n_branch_txs == 5, "static, then a kickoff and a state on each of two levels"
    assert plan.n_txs == 1 + 2 + 3 * 2
    names = {node.name for node in tree_of(terms).nodes}
    assert {f"{one.last_label}_{one.shape.name}" for one in plan.vertices()} <= names


@pytest.mark.parametrize(
    ("n_clients", "leaf_arity", "arities"), [(3, 2, []), (5, 2, [2]), (1024, 2, [23]), (2, 1, [])]
)
def test_arities_that_end_before_the_clients_fit_are_refused(
    n_clients: int, leaf_arity: int, arities: list[int]
) -> None:
    with pytest.raises(InvalidTerms, match="inner_arities") as refused:
        shape_of(n_clients, leaf_arity=leaf_arity, inner=dw(arities))
    assert refused.value.field == "inner_arities"


@pytest.mark.sampled(0)
@given(drawn=shapes, data=st.data())
def test_each_vertex_is_of_the_kind_of_its_level_and_every_leaf_has_states(
    drawn: tuple[int, int, tuple[int, ...]], data: st.DataObject
) -> None:
    n_clients, leaf_arity, arities = drawn
    kinds = tuple(data.draw(st.sampled_from(VertexKind)) for _ in arities)
    inner = InnerLevels(arities=arities, kinds=kinds)
    shape = shape_of(n_clients, leaf_arity=leaf_arity, inner=inner)
    for client in range(1, n_clients + 1):
        *above, leaf = shape.path_to(client)
        assert [vertex.kind for vertex in above] == list(kinds[: len(above)])
        assert leaf.kind is DW
        path = shape.kinds_to(client)
        assert path == (*kinds[: len(above)], DW)
        assert exit_blocks_of(path, delay_max_blocks=432) <= exit_blocks_of(
            shape.slowest_kinds, delay_max_blocks=432
        )
    deepest = max(len(shape.path_to(client)) for client in shape.clients)
    assert len(shape.slowest_kinds) == shape.n_layers == deepest


@pytest.mark.parametrize("kinds", [(), (STATIC,), (STATIC, DW, DW)])
def test_kinds_of_another_length_than_the_arities_are_refused_with_both(
    kinds: tuple[VertexKind, ...],
) -> None:
    with pytest.raises(
        InvalidTerms,
        match=f"inner_kinds: expected as many as inner_arities, 2, received {len(kinds)}",
    ):
        shape_of(4, leaf_arity=1, inner=InnerLevels(arities=(2, 2), kinds=kinds))


LIMITS: Final = {"delay_max_blocks": 432, "max_exit_delay_blocks": 1296}


@pytest.mark.parametrize(
    ("n_clients", "leaf_arity", "arities"),
    [
        (1, 2, ()),
        (2, 2, ()),
        (3, 2, (2,)),
        (4, 2, (2,)),
        (4, 1, (2, 2)),
        (4, 4, ()),
    ],
)
def test_up_to_four_clients_the_default_is_the_constructions_picture(
    n_clients: int, leaf_arity: int, arities: tuple[int, ...]
) -> None:
    assert dw(arities) == default_levels(n_clients, leaf_arity=leaf_arity, kind=None, **LIMITS)


@pytest.mark.parametrize(
    ("n_clients", "leaf_arity", "n_levels", "width", "exit_blocks"),
    [
        (5, 2, 1, 3, 456),
        (6, 2, 1, 3, 456),
        (8, 2, 1, 4, 456),
        (64, 2, 2, 6, 462),
        (127, 2, 3, 4, 468),
        (1024, 2, 4, 5, 474),
        (5, 8, 0, 0, 450),
    ],
)
def test_beyond_four_the_default_is_static_and_leaves_in_little_more_than_one_delay(
    n_clients: int, leaf_arity: int, n_levels: int, width: int, exit_blocks: int
) -> None:
    inner = default_levels(n_clients, leaf_arity=leaf_arity, kind=None, **LIMITS)
    assert inner == InnerLevels(arities=(width,) * n_levels, kinds=(STATIC,) * n_levels)
    shape = shape_of(n_clients, leaf_arity=leaf_arity, inner=inner)
    assert exit_blocks_of(shape.slowest_kinds, delay_max_blocks=432) == exit_blocks


@given(n_clients=st.integers(5, 1024), leaf_arity=st.integers(1, 12))
def test_no_other_equal_widths_of_static_levels_are_cheaper_to_publish(
    n_clients: int, leaf_arity: int
) -> None:
    inner = default_levels(n_clients, leaf_arity=leaf_arity, kind=None, **LIMITS)
    if n_clients <= leaf_arity:
        assert inner == InnerLevels()
        return
    (width,) = set(inner.arities)
    n_levels = len(inner.arities)
    chosen = n_levels * (81 + 43 * width)
    assert leaf_arity * width**n_levels >= n_clients
    for levels in range(1, 7):
        for other in range(2, width + 600):
            if leaf_arity * other**levels >= n_clients:
                cost = levels * (81 + 43 * other)
                assert (cost, levels) >= (chosen, n_levels)
                break


@pytest.mark.parametrize(
    ("n_clients", "leaf_arity", "arities"),
    [
        (1, 2, ()),
        (2, 2, ()),
        (3, 2, (2,)),
        (4, 2, (2,)),
        (5, 2, (2, 2)),
        (8, 2, (2, 2)),
        (9, 2, (3, 3)),
        (18, 2, (3, 3)),
        (19, 2, (4, 4)),
        (127, 2, (8, 8)),
        (128, 2, (8, 8)),
        (129, 2, (9, 9)),
        (1024, 2, (23, 23)),
        (1024, 8, (12, 12)),
    ],
)
def test_levels_of_dw_are_binary_until_the_exit_would_take_too_long(
    n_clients: int, leaf_arity: int, arities: tuple[int, ...]
) -> None:
    assert dw(arities) == default_levels(n_clients, leaf_arity=leaf_arity, kind=DW, **LIMITS)


@given(
    n_clients=st.integers(1, 1024),
    leaf_arity=st.integers(1, 12),
    kind=st.sampled_from(VertexKind),
    delay=st.integers(1, 2000),
    layers=st.integers(2, 30),
)
def test_a_chosen_kind_seats_everybody_within_the_exit_delay(
    n_clients: int, leaf_arity: int, kind: VertexKind, delay: int, layers: int
) -> None:
    inner = default_levels(
        n_clients,
        leaf_arity=leaf_arity,
        kind=kind,
        delay_max_blocks=delay,
        max_exit_delay_blocks=layers * delay + delay - 1,
    )
    assert set(inner.kinds) <= {kind}
    shape = shape_of(n_clients, leaf_arity=leaf_arity, inner=inner)
    check_exit_delay(shape, delay_max_blocks=delay, max_exit_delay_blocks=layers * delay)
    assert len(set(inner.arities)) <= 1
    if inner.arities and inner.arities[0] > 2:
        assert leaf_arity * (inner.arities[0] - 1) ** len(inner.arities) < n_clients


def test_an_exit_delay_too_short_for_levels_of_dw_is_refused_with_what_it_needs() -> None:
    for n_clients, limit in [(3, 863), (64, 432)]:
        with pytest.raises(InvalidTerms, match="at least 864") as refused:
            default_levels(
                n_clients, leaf_arity=2, kind=DW, delay_max_blocks=432, max_exit_delay_blocks=limit
            )
        assert refused.value.field == "max_exit_delay_blocks"
        assert refused.value.received == limit


def test_a_picture_that_takes_longer_than_allowed_is_refused_when_it_is_planned() -> None:
    inner = default_levels(
        4, leaf_arity=2, kind=None, delay_max_blocks=432, max_exit_delay_blocks=863
    )
    shape = shape_of(4, leaf_arity=2, inner=inner)
    with pytest.raises(InvalidTerms, match=r"at least the slowest path's 864 \(dw, dw\)"):
        check_exit_delay(shape, delay_max_blocks=432, max_exit_delay_blocks=863)


# --- the plan ---------------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(terms=oracle.random_terms())
def test_a_plan_lists_every_vertex_depth_first_and_finds_every_client(terms: FactoryTerms) -> None:
    plan = plan_of(terms)
    spots = list(oracle.spot_of(terms).depth_first())
    vertices = list(plan.vertices())
    assert [vertex.shape.path for vertex in vertices] == [spot.path for spot in spots]
    assert [vertex.layer for vertex in vertices] == [len(spot.path) for spot in spots]
    assert [vertex.is_leaf for vertex in vertices] == [not spot.below for spot in spots]
    for client in range(1, len(terms.capacity_sat) + 1):
        leaf: PlannedVertex = plan.path_to(client)[-1]
        place = client - leaf.shape.clients.start
        assert leaf.capacities_sat[place] == terms.capacity_sat[client - 1]
    for stranger in (0, len(terms.capacity_sat) + 1):
        with pytest.raises(ValueError, match=f"client {stranger}"):
            plan.path_to(stranger)


@given(terms=oracle.random_terms(30), missing=st.sampled_from([-1, 1]))
def test_a_plan_needs_one_lstock_for_each_leaf(terms: FactoryTerms, missing: int) -> None:
    lstocks = terms.lstock_sat[:-1] if missing < 0 else (*terms.lstock_sat, 0)
    with pytest.raises(InvalidTerms, match=f"lstock_sat: expected {len(terms.lstock_sat)} leaves"):
        plan_of(oracle.with_field(terms, lstock_sat=lstocks))


@given(terms=oracle.random_terms(30))
def test_a_plan_is_refused_a_block_short_of_its_exit_delay_or_of_its_expiry(
    terms: FactoryTerms,
) -> None:
    root = oracle.spot_of(terms)
    exit_delay = root.waits * terms.step_blocks * (terms.states_per_layer - 1)
    least = terms.build_height + 4320 + 432 + exit_delay + 6 * (root.published + 1) + 144
    plan_of(oracle.with_field(terms, max_exit_delay_blocks=exit_delay, expiry_height=least))
    with pytest.raises(InvalidTerms, match=f"slowest path's {exit_delay} "):
        plan_of(oracle.with_field(terms, max_exit_delay_blocks=exit_delay - 1))
    with pytest.raises(InvalidTerms, match=f"expiry_height: expected at least {least}"):
        plan_of(oracle.with_field(terms, expiry_height=least - 1))


def test_a_state_beyond_trucs_size_is_refused_with_its_size() -> None:
    """A leaf of 229 channels, an L-stock and the anchor fits 10,000 vbytes; one more does not."""
    fits = oracle.terms_of([1000] * 229, [1000], leaf_arity=300)
    assert len(plan_of(fits).capacities_sat) == 229
    too_big = oracle.terms_of([1000] * 230, [1000], leaf_arity=300)
    with pytest.raises(InvalidTerms, match="state_root: expected at most 10000 vB, received 10014"):
        plan_of(too_big)
    wide = InnerLevels(arities=(231, 2), kinds=(STATIC, DW))
    root = shape_of(400, leaf_arity=1, inner=wide)
    with pytest.raises(
        InvalidTerms, match="static_root: expected at most 10000 vB, received 10014"
    ):
        check_truc_size(root, n_p2tr_outputs=len(root.children))
    check_truc_size(root, n_p2tr_outputs=230)
    with pytest.raises(InvalidTerms, match="state_1"):
        check_truc_size(root.children[1], n_p2tr_outputs=231)


def test_a_funding_above_all_the_money_there_is_is_refused() -> None:
    money = 21_000_000 * 100_000_000
    with pytest.raises(InvalidTerms, match="funding"):
        plan_of(oracle.terms_of([money], [0]))
    assert plan_of(oracle.terms_of([money - 976], [0])).input_sat == money


def test_default_lstocks_are_half_of_each_leaf_rounded_down() -> None:
    shape = shape_of(5, leaf_arity=2, inner=dw([2, 2]))
    assert default_lstocks_sat(shape, [1001, 1000, 661, 10_000, 1]) == (1000, 330, 5000)
    with pytest.raises(InvalidTerms, match="at least 330, received 329"):
        default_lstocks_sat(shape, [1001, 1000, 659, 10_000, 1])
