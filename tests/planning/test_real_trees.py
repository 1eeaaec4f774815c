"""Every size, time and amount of a plan, weighed on factories that are really built."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.channel import specimen as channel_specimen
from tests.factory.specimen import DW, STATIC, tree_of
from tests.protocol.paying_clients import live_factory, newest_link, pay

from cromford.bitcoin.fees import P2TR_DUST_SAT, SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.script import P2TR_PROGRAM_SIZE, p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.daemon.views.exit import exit_plan
from cromford.factory.branch import branch_of
from cromford.factory.close import Payout, build_close, scope_of
from cromford.factory.funding import CHANGE_MIN_SAT, funding_tx_of
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.tree import Tree
from cromford.factory.vertices import TreeNode
from cromford.planning.draft import Draft, WayOut, draft_of
from cromford.planning.idea import Idea
from cromford.planning.plan import PlanDocument, plan_factory
from cromford.watch.exit_cost import exit_cost_of
from cromford.watch.feerates import OwnFees
from cromford.watch.sweep import BLANK_SIGNATURE

OWN: Final = InnerLevels(arities=(3, 3), kinds=(STATIC, DW))
KINDS: Final[dict[str, VertexKind | None]] = {"default": None, "dw": DW, "static": STATIC}
SHAPES: Final = [
    *(
        Idea(n_clients=n_clients, inner_kind=kind, capacity_sat=300_000)
        for n_clients in (2, 8, 32)
        for kind in KINDS.values()
        if n_clients > 2 or kind is None  # Two are in one leaf, with nothing above it.
    ),
    Idea(n_clients=32, leaf_arity=4, inner_levels=OWN, states_per_layer=3, step_blocks=100),
    Idea(n_clients=1),
    Idea(n_clients=5, leaf_arity=1),
]
SCRIPT: Final = p2tr_script(bytes(P2TR_PROGRAM_SIZE))
COIN: Final = OutPoint(txid=Txid(b"\x55" * 32), vout=0)
FEERATE: Final = 30
BALANCE_MSAT: Final = 20_000_000
SWEEP_DELAY_BLOCKS: Final = 1  # To the block after the last in which it has to wait.


def name_of(idea: Idea) -> str:
    kind = "default" if idea.inner_kind is None else idea.inner_kind.label
    kind = "own" if idea.inner_levels is not None else kind
    return f"{idea.n_clients}-{idea.leaf_arity}-{kind}"


@cache
def built(idea: Idea) -> tuple[Draft, PlanDocument, Tree]:
    """Return the plan, and the tree that would be signed."""
    draft = draft_of(idea)
    return draft, plan_factory(idea), tree_of(draft.terms)


def signed_vsize(tx: Tx) -> int:
    """Return what a transaction with one signature takes."""
    return tx.with_witnesses((BLANK_SIGNATURE,)).vsize


def total_vsize(nodes: Iterable[TreeNode]) -> int:
    return sum(signed_vsize(node.tx) for node in nodes)


@pytest.fixture(params=SHAPES, ids=name_of)
def idea(request: pytest.FixtureRequest) -> Idea:
    found: Idea = request.param
    return found


def test_the_tree_is_the_one_that_is_built(idea: Idea) -> None:
    _, plan, tree = built(idea)
    nodes = list(tree.nodes)
    leaves = [vertex for vertex in tree.root.vertices() if vertex.is_leaf]
    assert plan["shape"]["n_transactions"] == len(nodes)
    assert plan["shape"]["n_leaves"] == len(leaves)
    assert plan["sizes"]["tree_vsize"] == total_vsize(nodes)


def test_the_capital_is_what_the_funding_output_has_to_hold(idea: Idea) -> None:
    _, plan, tree = built(idea)
    capital, outputs = plan["capital"], [o for node in tree.nodes for o in node.outputs]
    for field, kind in (("capacities_sat", "channel"), ("lstocks_sat", "lstock")):
        held_sat = sum(output.amount_sat for output in outputs if output.kind == kind)
        assert capital[field] == held_sat  # type: ignore[literal-required]  # the two of the line above
    anchors_sat = sum(output.amount_sat for output in outputs if output.kind == "anchor")
    assert capital["anchors_sat"] == anchors_sat
    assert capital["tree_fees_sat"] == sum(node.fee_sat for node in tree.nodes)
    assert capital["funding_amount_sat"] == tree.funding_amount_sat
    assert capital["per_client_sat"] == tree.funding_amount_sat / idea.n_clients


def test_the_times_are_those_of_the_slowest_client(idea: Idea) -> None:
    draft, plan, tree = built(idea)
    branches = [branch_of(tree, client) for client in range(1, idea.n_clients + 1)]
    delays = [sum(node.delay_blocks for node in branch.nodes) for branch in branches]
    times = plan["times"]
    assert times["exit_delay_blocks"] == max(delays)
    # Six blocks for each transaction, and for the commitment.
    assert times["exit_blocks"] == max(
        delay + 6 * (len(list(branch.nodes)) + 1)
        for delay, branch in zip(delays, branches, strict=True)
    )
    assert times["exit_blocks"] == max(branch.exit_blocks for branch in branches)
    assert times["lock_blocks"] == 2 * times["exit_blocks"] + 36 + 18 + 144 + 12
    life = tree.terms.expiry_height - tree.terms.build_height
    assert times["life_blocks"] == life
    assert draft.end_blocks == life - idea.active_blocks - idea.dying_blocks


def test_one_leaves_by_the_longest_branch(idea: Idea) -> None:
    _, plan, tree = built(idea)
    branches = [branch_of(tree, client) for client in range(1, idea.n_clients + 1)]
    longest = max(branches, key=lambda branch: len(branch.vertices))
    nodes, sizes, one = list(longest.nodes), plan["sizes"], plan["one_leaves"]
    assert sizes["branch_vsize"] == total_vsize(nodes)
    assert one["n_transactions"] == len(nodes) + 2
    assert one["vsize"] == total_vsize(nodes) + sizes["commitment_vsize"] + sizes["sweep_vsize"]


def test_all_leave_by_the_whole_tree(idea: Idea) -> None:
    _, plan, tree = built(idea)
    nodes, sizes, everybody = list(tree.nodes), plan["sizes"], plan["all_leave"]
    each_vsize = sizes["commitment_vsize"] + sizes["sweep_vsize"]
    assert everybody["n_transactions"] == len(nodes) + 2 * idea.n_clients
    assert everybody["vsize"] == total_vsize(nodes) + idea.n_clients * each_vsize
    assert everybody["n_blocks"] == pytest.approx(everybody["total_vsize"] / 1_000_000)


def test_at_the_trees_own_feerate_nothing_needs_a_child(idea: Idea) -> None:
    draft, plan, tree = built(idea)
    everybody = plan["all_leave"]
    commitment_sat = draft.channel.commitment_fee_sat(n_htlc_outputs=0)
    agreed_sat = sum(node.fee_sat for node in tree.nodes) + idea.n_clients * commitment_sat
    assert everybody["agreed_fee_sat"] == agreed_sat
    assert (everybody["n_children"], everybody["children_fee_sat"]) == (0, 0)
    assert everybody["total_fee_sat"] == agreed_sat + everybody["claim_fee_sat"]


@pytest.mark.parametrize("n_clients", [2, 8])
def test_above_it_all_that_is_published_pays_the_feerate_of_the_day(n_clients: int) -> None:
    feerate = FEERATE * SAT_PER_KW_OF_SAT_PER_VB
    draft = draft_of(Idea(n_clients=n_clients, feerate_sat_per_kw=feerate))
    for way, n_agreed in (
        (draft.one_leaves, len(draft.branch_txs) + 1),
        (draft.all_leave, len(draft.tree_txs) + n_clients),
    ):
        assert_pays(way, n_agreed=n_agreed)
    one = plan_factory(draft.idea)["one_leaves"]
    assert one["coin_sat"] == one["children_fee_sat"] + P2TR_DUST_SAT


def assert_pays(way: WayOut, *, n_agreed: int) -> None:
    """Assert that a way out pays the feerate, and hardly more: fees are rounded up, each by itself.

    A child's size is that of its place: no smaller than what it really takes.
    """
    assert way.children.n_children == n_agreed
    more_sat = way.total_fee_sat - FEERATE * way.total_vsize
    assert 0 <= more_sat <= FEERATE * way.n_txs


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [2, 8])
def test_a_client_of_a_real_factory_is_told_the_same(n_clients: int) -> None:
    """All of it built, signed and funded by the two roles, with the policy that the plan names."""
    idea = Idea(n_clients=n_clients)
    pump = live_factory(n_clients, policy=replace(idea.policy, min_clients=1))
    attempt = pump.attempt
    idea = replace(idea, capacity_sat=attempt.terms.capacity_sat[0])
    plan, client = plan_factory(idea), pump.client_at(1)
    pay(pump, pump.lsp, client, BALANCE_MSAT)
    told = exit_plan(client.state, pump.held(client), OwnFees())
    assert told["channel"] is not None
    commitment, sweep = told["channel"]["steps"]
    one, sizes = plan["one_leaves"], plan["sizes"]
    assert plan["capital"]["funding_amount_sat"] == attempt.tree.funding_amount_sat
    assert attempt.funded is not None
    funding_tx = attempt.funded.funding_tx
    n_more = len(funding_tx.inputs) - 1
    assert sizes["funding_vsize"] == pytest.approx(funding_tx.vsize - 57.5 * n_more, abs=1)
    assert sizes["branch_vsize"] == told["total_vsize"]
    assert sizes["commitment_vsize"] == commitment["vsize"]
    assert sizes["sweep_vsize"] == sweep["vsize"]
    assert one["vsize"] == told["total_vsize"] + commitment["vsize"] + sweep["vsize"]
    assert one["n_transactions"] == told["n_transactions"] + 2
    assert one["agreed_fee_sat"] == told["total_fee_sat"] + commitment["fee_sat"]
    assert plan["times"]["exit_blocks"] == told["exit_blocks"]
    assert plan["times"]["exit_delay_blocks"] == told["total_delay_blocks"]


def test_the_sweep_of_a_balance_takes_what_is_planned_for_it() -> None:
    pump = live_factory(2)
    client = pump.client_at(1)
    pay(pump, pump.lsp, client, BALANCE_MSAT)
    cost = exit_cost_of(
        newest_link(client).finished, landed_height=1_000, fees=OwnFees(), preimages={}
    )
    plan = plan_factory(Idea(n_clients=2))
    commitment, sweep = cost.steps
    assert (plan["sizes"]["commitment_vsize"], plan["sizes"]["sweep_vsize"]) == (
        commitment.vsize,
        sweep.vsize,
    )
    assert cost.remainder_sat == BALANCE_MSAT // MSAT_PER_SAT - sweep.fee_sat


def test_the_funding_transaction_and_a_channels_opening_are_of_one_coin_with_change() -> None:
    _, plan, tree = built(Idea())
    output = TxOut(
        amount_sat=tree.funding_amount_sat, script_pubkey=tree.funding_output.script_pubkey
    )
    change = TxOut(amount_sat=CHANGE_MIN_SAT, script_pubkey=SCRIPT)
    tx = funding_tx_of(inputs=[COIN], factory_output=output, change_output=change)
    assert plan["sizes"]["funding_vsize"] == plan["sizes"]["open_vsize"] == signed_vsize(tx)


def test_a_factory_that_everybody_moved_out_of_is_closed_by_one_output(idea: Idea) -> None:
    _, plan, tree = built(idea)
    payouts = [Payout(script_pubkey=SCRIPT, due_msat=0)] * idea.n_clients
    close = build_close(
        scope_of(tree.root_node), payouts, lsp_script=SCRIPT, feerate_sat_per_kw=500
    )
    assert plan["sizes"]["close_vsize"] == close.vsize


def test_a_plain_channel_is_closed_by_two_outputs_or_by_a_commitment() -> None:
    sizes = plan_factory(Idea())["sizes"]
    outputs = (TxOut(amount_sat=1_000, script_pubkey=SCRIPT),) * 2
    tx = Tx(version=2, inputs=(TxIn(outpoint=COIN, nsequence=0xFFFFFFFD),), outputs=outputs)
    assert sizes["coop_close_vsize"] == signed_vsize(tx)
    forced = channel_specimen.build(channel_specimen.content(Party.OPENER, []))
    commitment_vsize = forced.signed(BLANK_SIGNATURE).vsize
    assert sizes["commitment_vsize"] == commitment_vsize
    assert sizes["forced_close_vsize"] == commitment_vsize + sizes["sweep_vsize"]
