"""Every number in docs/leaving.md that sizes and rules make, from the code that decides it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from tests.factory import oracle
from tests.factory.specimen import tree_of
from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.test_leaving import QUICK

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, SAT_PER_KW_OF_SAT_PER_VB, sat_per_vb
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import WITNESS_SCALE, vsize_of
from cromford.channel.terms import COMMITMENT_WEIGHT, MSAT_PER_SAT
from cromford.cli.shown.output import DEADLINE_NEAR_BLOCKS
from cromford.daemon.views.exit import FEERATES_SAT_PER_VB, exit_plan
from cromford.factory.branch import branch_of
from cromford.factory.exit_path import exit_path
from cromford.factory.kinds import exit_blocks_of
from cromford.factory.shape import ShapeVertex, default_lstocks_sat
from cromford.factory.terms import FeePolicy
from cromford.factory.tree import Tree
from cromford.factory.vertices import TreeNode
from cromford.protocol import events as ev
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.policy import LspPolicy
from cromford.watch.bumping import ANCHOR_CHILD_WEIGHT, ONE_COIN_WEIGHT
from cromford.watch.children_cost import (
    ChildrenCost,
    children_cost,
    without_coins_sat_per_kw,
)
from cromford.watch.exit_cost import exit_cost_of
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees, path_budget_sat
from cromford.watch.sweep import BLANK_SIGNATURE, SWEEP_VSIZE

POLICY: Final = LspPolicy()
POLICY_OF_ALL: Final = replace(POLICY, min_clients=1)
BALANCE_MSAT: Final = 20_000_000
CAPACITY_SAT: Final = 1_000_000
FEES: Final = OwnFees()
COUNTS: Final = (2, 4, 8, 16, 64, 127)


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/leaving.md").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """The longest way out of a factory, down to the commitment."""

    shape: ShapeVertex
    levels: str
    agreed: tuple[FeeAndWeight, ...]
    anchor_sat: int

    @property
    def exit_blocks(self) -> int:
        return exit_blocks_of(self.shape.slowest_kinds, delay_max_blocks=POLICY.delay_max_blocks)

    @property
    def vsize(self) -> int:
        return sum(vsize_of(one.weight) for one in self.agreed)

    def children(self, feerate: int) -> ChildrenCost:
        return children_at(self.agreed, feerate)


def children_at(agreed: Sequence[FeeAndWeight], feerate: int) -> ChildrenCost:
    return children_cost(
        agreed,
        feerate_sat_per_kw=feerate * SAT_PER_KW_OF_SAT_PER_VB,
        mempool_min_sat_per_kw=FEES.min_relay_sat_per_kw,
    )


@cache
def tree_for(n_clients: int, fee_policy: FeePolicy = FeePolicy.ENDOGENOUS) -> Tree:
    """Return a tree as an LSP builds it by default, unsigned."""
    shape, inner = shape_by_policy(POLICY, n_clients)
    capacities_sat = (CAPACITY_SAT,) * n_clients
    return tree_of(
        oracle.terms_of(
            capacities_sat,
            default_lstocks_sat(shape, capacities_sat),
            inner_arities=inner.arities,
            inner_kinds=[kind.label for kind in inner.said_kinds],
            feerate=0 if fee_policy is FeePolicy.EPHEMERAL else POLICY.tree_feerate_sat_per_kw,
            fee_policy=fee_policy,
        )
    )


def paid(nodes: Iterable[TreeNode]) -> tuple[FeeAndWeight, ...]:
    """Return what signed transactions of a tree pay and weigh."""
    return tuple(
        FeeAndWeight(node.fee_sat, node.tx.with_witnesses((BLANK_SIGNATURE,)).weight)
        for node in nodes
    )


def commitment_of(tree: Tree) -> FeeAndWeight:
    terms = channel_terms_of(tree.terms)
    return FeeAndWeight(terms.commitment_fee_sat(n_htlc_outputs=0), COMMITMENT_WEIGHT)


def way_out(n_clients: int, fee_policy: FeePolicy = FeePolicy.ENDOGENOUS) -> WayOut:
    """Return the longest way out."""
    shape, inner = shape_by_policy(POLICY, n_clients)
    tree = tree_for(n_clients, fee_policy)
    client = max(shape.leaves(), key=lambda leaf: len(leaf.path)).first_client
    levels = zip(inner.kinds, inner.arities, strict=True)
    return WayOut(
        shape=shape,
        levels=", ".join(f"{kind.label} {arity}" for kind, arity in levels) or "none",
        agreed=(*paid(branch_of(tree, client).nodes), commitment_of(tree)),
        anchor_sat=tree.terms.anchor_sat,
    )


def row(n_clients: int, way: WayOut) -> str:
    prepaid_sat = sum(one.fee_sat + way.anchor_sat for one in way.agreed)
    costs = " | ".join(f"{way.children(feerate).fee_sat:,}" for feerate in FEERATES_SAT_PER_VB)
    alone = without_coins_sat_per_kw(way.agreed, anchor_sat=way.anchor_sat)
    reach = f"{sat_per_vb(alone):.1f} sat/vB" if alone else "nowhere"
    return (
        f"| {n_clients} | {way.levels} | {len(way.agreed)} | {way.vsize:,} | {way.exit_blocks} "
        f"| {prepaid_sat:,} | {costs} | {reach} |"
    )


@pytest.mark.parametrize("fee_policy", list(FeePolicy))
@pytest.mark.parametrize("n_clients", COUNTS)
def test_what_a_way_out_costs(page: str, n_clients: int, fee_policy: FeePolicy) -> None:
    assert row(n_clients, way_out(n_clients, fee_policy)) in page


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [2, 4, 8, 16])
def test_a_client_is_told_the_same_of_its_signed_branch(n_clients: int) -> None:
    way = way_out(n_clients)
    pump = live_factory(n_clients, policy=POLICY_OF_ALL)
    client = pump.client_at(1)
    pay(pump, pump.lsp, client, BALANCE_MSAT)
    held = pump.held(client)
    steps = exit_path(held.signed_branch)
    plan = exit_plan(client.state, held, FEES)
    assert sum(step.tx.vsize for step in steps) == plan["total_vsize"]
    assert plan["channel"] is not None
    commitment, sweep = plan["channel"]["steps"]
    assert plan["total_vsize"] + commitment["vsize"] == way.vsize
    assert len(steps) + 1 == len(way.agreed)
    assert plan["exit_blocks"] == way.exit_blocks
    assert sweep["vsize"] == SWEEP_VSIZE
    assert sweep["delay_blocks"] == POLICY.to_self_delay_client + 1
    for told in plan["fees_at"]:
        cost = way.children(int(told["feerate_sat_per_vb"]))
        assert (told["children_sat"], told["coin_sat"]) == (cost.fee_sat, cost.coin_sat)
    assert plan["without_coins_sat_per_vb"] == sat_per_vb(
        without_coins_sat_per_kw(way.agreed, anchor_sat=ANCHOR_DUST_SAT)
    )


def test_what_is_in_a_block_is_paid_for_no_more() -> None:
    """Whoever asks in the middle would be told that its wallet lacks what is long paid."""
    pump = live_factory(4, policy=QUICK)
    client = pump.client_at(1)
    pay(pump, pump.lsp, client, BALANCE_MSAT)
    held, commitment = pump.held(client), newest_link(client).finished.commitment
    txids = [step.tx.txid for step in exit_path(held.signed_branch)] + [commitment.tx.txid]
    pump.handle(client, ev.ExitRequested(attempt_id=held.attempt_id))
    for n_confirmed in range(len(txids)):
        plan = exit_plan(client.state, pump.held(client), FEES)
        assert plan["channel"] is not None
        steps = [*plan["steps"], plan["channel"]["steps"][0]][n_confirmed:]
        agreed = [FeeAndWeight(one["fee_sat"], WITNESS_SCALE * one["vsize"]) for one in steps]
        for fees in plan["fees_at"]:
            cost = children_at(agreed, int(fees["feerate_sat_per_vb"]))
            assert (fees["children_sat"], fees["coin_sat"]) == (cost.fee_sat, cost.coin_sat)
            assert fees["fee_sat"] == cost.fee_sat + sum(one.fee_sat for one in agreed)
        while txids[n_confirmed] not in client.state.chain.confirmed:
            pump.mine()
    over = exit_plan(client.state, pump.held(client), FEES)
    assert [fees["fee_sat"] for fees in over["fees_at"]] == [0, 0, 0]
    assert (over["fees_today"]["short_sat"], over["n_transactions"]) == (0, len(txids) - 1)


def test_what_is_in_a_block_is_no_step_any_more() -> None:
    """The commitment was listed as what follows when it was on chain already."""
    pump = live_factory(1, policy=QUICK)
    client = pump.client_at(1)
    pay(pump, pump.lsp, client, BALANCE_MSAT)
    pump.handle(client, ev.ExitRequested(attempt_id=pump.held(client).attempt_id))
    for left in (["commitment", "sweep"], ["sweep"], []):
        while (told := exit_plan(client.state, pump.held(client), FEES)["channel"]) is not None:
            if [step["name"] for step in told["steps"]] == left:
                break
            pump.mine()
        assert told is not None
        assert told["exit_sat"] > 0, "of what is taken already, too"


@pytest.mark.parametrize("feerate", FEERATES_SAT_PER_VB)
def test_what_a_sweep_costs_on_its_day(page: str, feerate: int) -> None:
    fees = OwnFees(estimates=((SWEEP_BLOCKS, feerate * SAT_PER_KW_OF_SAT_PER_VB),))
    pump = live_factory(2, policy=POLICY_OF_ALL)
    client = pump.client_at(1)
    pay(pump, pump.lsp, client, BALANCE_MSAT)
    link = newest_link(client)
    cost = exit_cost_of(link.finished, landed_height=1_000, fees=fees, preimages={})
    sweep = cost.steps[-1]
    assert (sweep.vsize, sweep.fee_sat) == (130, 130 * feerate)
    assert cost.remainder_sat == BALANCE_MSAT // MSAT_PER_SAT - sweep.fee_sat
    assert "130 vB at the feerate of its day, 130, 1,300 or 6,500 sat" in page


def test_the_numbers_between_the_tables(page: str) -> None:
    assert f"A child with one coin has {vsize_of(ONE_COIN_WEIGHT)} vB" in page
    assert f"a child of the anchor alone, {vsize_of(ANCHOR_CHILD_WEIGHT)} vB" in page
    assert f"pays its {ANCHOR_DUST_SAT} sat" in page
    cost = way_out(16).children(50)
    assert cost.coin_sat - cost.fee_sat == 330
    assert "the children's fees and 330 sat of change" in page
    enough_sat = 2 * cost.fee_sat
    assert path_budget_sat(enough_sat) == cost.fee_sat
    assert f"a balance of {enough_sat:,} sat is enough" in page
    assert POLICY.tree_feerate_sat_per_kw == 2 * SAT_PER_KW_OF_SAT_PER_VB
    assert POLICY.to_self_delay_client == 144
    assert "then the balance waits 144 more" in page
    assert DEADLINE_NEAR_BLOCKS == 1_008


def test_sixteen_that_leave_at_once_pay_for_each_transaction_once(page: str) -> None:
    tree = tree_for(16)
    nodes, commitment = paid(tree.nodes), commitment_of(tree)
    vsize = sum(vsize_of(node.weight) for node in nodes)
    commitments_vsize = 16 * vsize_of(commitment.weight)
    told = f"{len(nodes)} transactions of {vsize:,} vB, 16 of {commitments_vsize:,} vB"
    assert told in page
    assert f"| {len(nodes) + 16}, one a parent |" in page
    # The sixteenth has no coin, and its commitment goes with its anchor.
    day, haste = (
        children_at([*nodes, *[commitment] * 15], feerate).fee_sat + ANCHOR_DUST_SAT
        for feerate in (10, 30)
    )
    free = tree_for(16, FeePolicy.EPHEMERAL)
    zero_fee = children_at([*paid(free.nodes), *[commitment_of(free)] * 16], 10).fee_sat
    assert f"| {day:,} sat | {haste:,} sat: the estimate" in page
    assert f"is 30 sat/vB | {zero_fee:,} sat |" in page
    at_10, at_50 = (way_out(16).children(feerate).fee_sat for feerate in (10, 50))
    free_at_10 = way_out(16, FeePolicy.EPHEMERAL).children(10).fee_sat
    assert (
        f"| up to {at_10:,} sat | up to {at_50:,} sat, at 50 sat/vB | up to {free_at_10:,} sat |"
    ) in page
