"""The walk that makes every transaction, given which version of each state to make."""

from collections.abc import Mapping

import pytest
from tests.factory import oracle
from tests.factory.specimen import FUNDING, channel_keys, tree_of

from cromford.factory.vertices import OPENING_STATES, TreeNode, Vertex, build_vertices

FOUR = oracle.terms_of([50_000, 60_000, 70_000, 80_000], [10_000, 0], inner_arities=[2])


def built(state_indices: Mapping[tuple[int, ...], int]) -> tuple[Vertex, ...]:
    tree = tree_of(FOUR)
    return build_vertices(
        tree.root.vertices(),
        terms=FOUR,
        factory_pubkeys=tree.factory_pubkeys,
        channels={client: channel_keys(client) for client in range(1, 5)},
        spends=tree.funding_output,
        outpoint=FUNDING,
        state_indices=state_indices,
    )


def named(vertices: tuple[Vertex, ...]) -> dict[str, str]:
    return {node.name: str(node.tx.txid) for vertex in vertices for node in vertex.nodes}


def states(vertices: tuple[Vertex, ...]) -> dict[str, TreeNode]:
    return {vertex.last.name: vertex.last for vertex in vertices}


def test_a_state_that_is_not_named_has_index_0() -> None:
    assert named(built(OPENING_STATES)) == named(tree_of(FOUR).vertices)
    assert {state.state_index for state in states(built({(1,): 2})).values()} == {0, 2}


def test_another_version_of_a_leaf_changes_its_state_alone() -> None:
    before, after = built(OPENING_STATES), built({(0,): 1})
    assert named(after).items() - named(before).items() == {
        ("state_0 v1", str(states(after)["state_0 v1"].tx.txid))
    }
    old, new = states(before)["state_0"], states(after)["state_0 v1"]
    assert new.tx.inputs[0].outpoint == old.tx.inputs[0].outpoint
    assert new.tx.outputs == old.tx.outputs
    assert old.delay_blocks - new.delay_blocks == FOUR.step_blocks
    assert new.tx.inputs[0].nsequence == new.delay_blocks


def test_another_version_of_an_inner_state_renews_everything_below_it() -> None:
    before, after = named(built(OPENING_STATES)), named(built({(): 1}))
    assert {name for name, _ in before.items() & after.items()} == {"kickoff_root"}


@pytest.mark.parametrize("state_index", [-1, FOUR.states_per_layer])
def test_a_version_that_a_state_cannot_have_is_refused(state_index: int) -> None:
    with pytest.raises(ValueError, match=f"state_index.*{state_index}"):
        built({(1,): state_index})
