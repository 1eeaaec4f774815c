"""Seats: the most reliable share the widest leaves, and everybody can see why."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import dw

from cromford.factory.placement import Applicant, place, ranked
from cromford.factory.shape import shape_of

applicants = st.lists(
    st.builds(
        Applicant,
        node_id=st.binary(min_size=33, max_size=33),
        is_moving=st.booleans(),
        uptime_blocks=st.integers(0, 2016),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda applicant: applicant.node_id,
)


@given(waiting=applicants, leaf_arity=st.integers(1, 6), data=st.data())
def test_whoever_ranks_higher_never_sits_in_a_narrower_leaf(
    waiting: list[Applicant], leaf_arity: int, data: st.DataObject
) -> None:
    arities = oracle.arities_for(
        len(waiting), leaf_arity, data.draw(st.lists(st.integers(2, 5), max_size=4))
    )
    shape = shape_of(len(waiting), leaf_arity=leaf_arity, inner=dw(arities))
    placed = place(data.draw(st.permutations(waiting)), shape)
    assert placed == place(waiting, shape), "the order of arrival does not matter"
    assert [seat.client for seat in placed] == list(range(1, len(waiting) + 1))
    assert {seat.applicant for seat in placed} == set(waiting)
    leaf_of = {client: leaf for leaf in shape.leaves() for client in leaf.clients}
    seat_of = {seat.applicant: seat for seat in placed}
    places = [leaf_of[seat_of[applicant].client] for applicant in ranked(waiting)]
    order = [(-leaf.n_clients, len(leaf.path), leaf.path) for leaf in places]
    assert order == sorted(order)
    for rank, applicant in enumerate(ranked(waiting), start=1):
        seat = seat_of[applicant]
        assert seat.leaf == leaf_of[seat.client].name
        assert seat.reason.startswith(f"rank {rank}: ")
        assert ("dying factory" in seat.reason) == applicant.is_moving
        assert f"uptime {applicant.uptime_blocks} blocks" in seat.reason


@given(waiting=applicants)
def test_a_move_comes_before_uptime_and_uptime_before_the_name(waiting: list[Applicant]) -> None:
    order = ranked(waiting)
    for better, worse in itertools.pairwise(order):
        assert better.is_moving >= worse.is_moving
        if better.is_moving == worse.is_moving:
            assert better.uptime_blocks >= worse.uptime_blocks
            if better.uptime_blocks == worse.uptime_blocks:
                assert better.node_id < worse.node_id


@pytest.mark.parametrize("n", [3, 5])
def test_everybody_gets_a_seat_and_no_seat_stays_empty(n: int) -> None:
    shape = shape_of(4, leaf_arity=2, inner=dw([2]))
    waiting = [
        Applicant(node_id=bytes((i,)) * 33, is_moving=False, uptime_blocks=i) for i in range(n)
    ]
    with pytest.raises(ValueError, match=f"{n} applicants for 4 seats"):
        place(waiting, shape)
