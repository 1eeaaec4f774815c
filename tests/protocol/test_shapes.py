"""Factories of every shape: built, paid in, left; what each costs; and shapes that lie."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.factory.specimen import DW, STATIC
from tests.protocol.attacks import only_to
from tests.protocol.exits import POLICY as QUICK
from tests.protocol.forge import with_vertex
from tests.protocol.paying_clients import balance, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import leave, publish_branch, wallet_sat

from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.branch import branch_of
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.vertices import TreeNode
from cromford.protocol import events as ev
from cromford.protocol.htlc_blocks import payment_blocks
from cromford.protocol.lobby.shapes import shape_costs
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 5_000_000
SWEEP_SAT: Final = 400  # More than the sweep of one output costs.


def levels(*of: tuple[int, VertexKind]) -> InnerLevels:
    return InnerLevels(arities=tuple(w for w, _ in of), kinds=tuple(k for _, k in of))


# Clients, how the shape is chosen, the names of client 1's branch, its delays and EB.
SHAPES: Final[dict[str, tuple[int, dict[str, Any], list[str], int]]] = {
    "picture": (3, {}, ["kickoff_root", "state_root", "kickoff_0", "state_0"], 8 + 30),
    "default": (5, {}, ["static_root", "kickoff_0", "state_0"], 4 + 24),
    "dw": (
        5,
        {"inner_kind": DW},
        ["kickoff_root", "state_root", "kickoff_0", "state_0", "kickoff_0_0", "state_0_0"],
        12 + 42,
    ),
    "static for few": (3, {"inner_kind": STATIC}, ["static_root", "kickoff_0", "state_0"], 4 + 24),
    "static over dw": (
        6,
        {"inner_levels": levels((2, STATIC), (2, DW))},
        ["static_root", "kickoff_0", "state_0", "kickoff_0_0", "state_0_0"],
        8 + 36,
    ),
    "dw over static": (
        6,
        {"inner_levels": levels((2, DW), (2, STATIC))},
        ["kickoff_root", "state_root", "static_0", "kickoff_0_0", "state_0_0"],
        8 + 36,
    ),
    "two static": (
        6,
        {"inner_levels": levels((2, STATIC), (2, STATIC))},
        ["static_root", "static_0", "kickoff_0_0", "state_0_0"],
        4 + 30,
    ),
}


FEWER: Final[dict[str, tuple[int, dict[str, Any], InnerLevels]]] = {
    "levels for more": (3, {"inner_levels": levels((2, STATIC), (2, STATIC))}, levels((2, STATIC))),
    "one leaf": (2, {"inner_levels": levels((2, STATIC))}, levels()),
    "only dw is left": (3, {"inner_levels": levels((2, DW), (2, STATIC))}, levels((2, DW))),
}


@pytest.mark.parametrize("name", FEWER)
def test_terms_say_no_level_that_their_tree_has_not(name: str) -> None:
    """Else one tree would have as many hashes as there are lists that end in nothing."""
    n_clients, chosen, expected = FEWER[name]
    pump = live_factory(n_clients, policy=replace(QUICK, **chosen))
    terms = pump.attempt.terms
    assert terms.inner_levels == expected
    assert terms.inner_kinds == expected.said_kinds
    (cost,) = (c for c in shape_costs(pump.policy, n_clients) if c.is_chosen)
    assert cost.inner == expected


def factory_of(name: str) -> Pump:
    n_clients, chosen, _, _ = SHAPES[name]
    return live_factory(n_clients, policy=replace(QUICK, **chosen), watches_folds=True)


@pytest.mark.parametrize("name", SHAPES)
def test_a_factory_of_any_shape_is_built_paid_in_and_left_through_its_own_path(name: str) -> None:
    pump = factory_of(name)
    _, _, names, exit_blocks = SHAPES[name]
    alice, bob = pump.client_at(1), pump.client_at(2)
    assert [node.name for node in pump.held(alice).branch.nodes] == names
    assert pump.attempt.tree.root_node.name == names[0]
    assert pump.attempt.signatures.keys() == {node.name for node in pump.attempt.tree.nodes}
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    link = newest_link(alice)
    assert link.exit_blocks == exit_blocks
    assert link.exit_deadline_height == pump.attempt.terms.expiry_height - exit_blocks - 144
    own_sat = balance(alice).own_msat // MSAT_PER_SAT
    began = pump.chain.height
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    publish_branch(pump, link)
    delays = sum(node.delay_blocks for node in pump.held(alice).branch.nodes)
    without_delay = sum(node.delay_blocks == 0 for node in pump.held(alice).branch.nodes)
    assert pump.chain.height - began == delays + without_delay <= exit_blocks
    pump.mine(link.setting.terms.to_self_delay_accepter + 8)
    assert own_sat - SWEEP_SAT < wallet_sat(alice) <= own_sat


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["default", "static over dw", "two static"])
def test_whoever_stays_pays_on_and_leaves_later_on_what_is_left_of_its_path(name: str) -> None:
    pump = factory_of(name)
    alice, last = pump.client_at(1), pump.client_at(len(pump.clients))
    for client in (alice, last):
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    whole = newest_link(last).exit_blocks
    leave(pump, alice)
    remaining = newest_link(last).remaining(last.state.chain)
    assert remaining.exit_blocks == whole - 6  # static_root is six deep: nothing waits for it.
    assert pay(pump, pump.lsp, last, PAID_MSAT).status == "paid"
    leave(pump, last)
    left_sat = (FIRST_MSAT + PAID_MSAT) // MSAT_PER_SAT
    assert left_sat - SWEEP_SAT < wallet_sat(last) <= left_sat


@pytest.mark.sampled(0)
def test_a_payment_between_the_deepest_of_64_clients_locks_money_for_1134_blocks() -> None:
    """Through three layers of states it was 2,886, and the payee's part 1,512."""
    pump = live_factory(64, policy=LspPolicy(min_clients=1, max_clients=64, min_depth=3))
    links = [newest_link(client) for client in pump.clients]
    assert {link.exit_blocks for link in links} == {462}
    blocks = payment_blocks(payer_exit_blocks=462, payee_exit_blocks=462)
    assert blocks == 1134
    assert pump.attempt.terms.max_cltv_blocks >= blocks
    payer, payee = pump.client_at(1), pump.client_at(64)
    assert pay(pump, pump.lsp, payer, FIRST_MSAT).status == "paid"
    request = make_invoice(pump, payee, PAID_MSAT)
    assert request.min_final_cltv_expiry_delta == 636


# What an operator reads before it builds


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_choice_is_said_to_cost_is_what_the_tree_has(name: str) -> None:
    pump = factory_of(name)
    (cost,) = (c for c in shape_costs(pump.policy, len(pump.clients)) if c.is_chosen)
    trees = pump.attempt.tree
    branches = [branch_of(trees, client) for client in range(1, len(pump.clients) + 1)]
    slowest = max(branches, key=lambda branch: branch.exit_blocks)
    assert cost.exit_blocks == slowest.exit_blocks
    assert cost.lock_blocks == 2 * slowest.exit_blocks + 36 + 18 + 144 + 12
    assert cost.inner == trees.terms.inner_levels
    assert cost.tree_vsize == sum(signed_vsize(node) for node in trees.nodes)
    assert cost.branch_vsize == sum(signed_vsize(node) for node in slowest.nodes)
    assert cost.refusal is None


def signed_vsize(node: TreeNode) -> int:
    return node.tx.with_witnesses((bytes(64),)).vsize


def test_64_clients_choose_between_462_blocks_and_1338() -> None:
    costs = {cost.choice: cost for cost in shape_costs(LspPolicy(), 64)}
    assert list(costs) == ["default", "dw", "static"]
    assert costs["default"] == replace(costs["static"], choice="default", is_chosen=True)
    assert [costs[name].exit_blocks for name in ("static", "dw")] == [462, 1_338]
    assert [costs[name].lock_blocks for name in ("static", "dw")] == [1_134, 2_886]


def test_a_choice_that_is_not_possible_says_why_and_the_others_what_they_cost() -> None:
    own = levels((2, STATIC))
    policy = LspPolicy(max_exit_delay_blocks=500, inner_levels=own)
    costs = {cost.choice: cost for cost in shape_costs(policy, 64)}
    assert [name for name, cost in costs.items() if cost.is_chosen] == ["own"]
    assert costs["own"].refusal is not None
    assert "inner_arities" in costs["own"].refusal
    assert costs["dw"].refusal is not None
    assert "max_exit_delay_blocks: expected at least 864" in costs["dw"].refusal
    assert costs["default"].exit_blocks == 462


# A proposal that lies about kinds


def with_kickoff(propose: m.Propose) -> m.Propose:
    """Give the static root a second transaction."""
    return with_vertex(propose, 0, kickoff_tx=propose.candidates[0].vertices[1].kickoff_tx)


def without_kickoff(propose: m.Propose) -> m.Propose:
    """Leave out the kickoff of the leaf."""
    return with_vertex(propose, 1, kickoff_tx=b"")


def with_the_leafs_kickoff_as_the_root(propose: m.Propose) -> m.Propose:
    kickoff_tx = propose.candidates[0].vertices[1].kickoff_tx
    return with_vertex(propose, 0, state_tx=kickoff_tx)


@pytest.mark.parametrize(
    ("lie", "field"),
    [
        (with_kickoff, "kickoff_root"),
        (without_kickoff, "kickoff_0"),
        (with_the_leafs_kickoff_as_the_root, "static_root.output[1]"),
    ],
)
def test_a_vertex_of_another_kind_than_the_terms_say_is_refused_by_name(
    lie: Any, field: str
) -> None:
    pump = Pump(3, policy=replace(QUICK, inner_kind=STATIC))
    pump.join()
    pump.build()
    victim = pump.client_at(1)
    with pump.tampering(only_to(victim, lambda message: (lie(message),), m.Propose)):
        pump.run()
    refusals = [a.aborted for a in victim.state.attempts.values() if a.aborted is not None]
    assert refusals
    assert refusals[0].startswith(f"refused: {field}: expected")
