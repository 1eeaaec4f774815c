"""Advanced states and poisons on the embedded chain: consensus and policy have the last word."""

from collections.abc import Iterator, Sequence

import pytest
from tests.factory import oracle
from tests.factory.advance_chain import (
    AdvanceChain,
    fresh_chain,
    receivers_child,
    signature_of,
    signed,
)
from tests.factory.test_leaf import buy, leaf_of
from tests.watch.channel_world import KEYS, SIGNERS, TERMS
from tests.watch.channel_world import NAME as CHANNEL

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import Tx
from cromford.channel.commitment import Funding, build_commitment
from cromford.channel.content import CommitmentContent
from cromford.channel.terms import Party
from cromford.factory.inner_advance import advance_inner
from cromford.factory.leaf import Leaf, opening_leaf
from cromford.factory.poison import Poison
from cromford.factory.terms import FactoryTerms, FeePolicy
from cromford.factory.vertices import TreeNode

STEP = 4
STATES = 4
LSTOCK_SAT = 60_000
TOO_EARLY = "non-BIP68-final"
TOO_LATE = "bad-txns-inputs-missingorspent"
POLICIES = pytest.mark.parametrize("policy", list(FeePolicy), ids=lambda policy: policy.label)
SIZES = pytest.mark.parametrize("n_clients", [1, 2, 3, 4])


@pytest.fixture(scope="module")
def world() -> Iterator[AdvanceChain]:
    with fresh_chain() as world:
        yield world


def terms_of(n_clients: int, policy: FeePolicy) -> FactoryTerms:
    return oracle.terms_of(
        [50_000 + 1_000 * place for place in range(n_clients)],
        [LSTOCK_SAT],
        leaf_arity=n_clients,
        states_per_layer=STATES,
        step_blocks=STEP,
        fee_policy=policy,
        feerate=500 if policy is FeePolicy.ENDOGENOUS else 0,
        csv_blocks=144,
    )


def sold_out(world: AdvanceChain, n_clients: int, policy: FeePolicy) -> Leaf:
    """Return a funded leaf after three sales, the last of all that was left."""
    leaf = leaf_of(world.fund(terms_of(n_clients, policy)))
    return buy(buy(buy(leaf, 1, 10_000), n_clients, 20_000), 1, None)


@POLICIES
@SIZES
def test_each_state_is_taken_at_its_delay_and_the_newest_wins_by_a_step(
    world: AdvanceChain, n_clients: int, policy: FeePolicy
) -> None:
    leaf = sold_out(world, n_clients, policy)
    height = world.mine(signed(leaf.kickoff))
    first_blocks: list[int] = []
    for state in reversed(leaf.states):
        tx = signed(state)
        while TOO_EARLY in world.refusal(tx):
            assert world.refuses_block(tx)
            world.mine()
        # Its delay is over. Without a fee of its own it still needs the child that pays.
        unpaid = "min relay fee not met, 0 <" if policy is FeePolicy.EPHEMERAL else ""
        assert world.refusal(tx)[: len(unpaid) or None] == unpaid
        first_blocks.insert(0, world.height + 1)
    delays = [STEP * (STATES - 1 - index) for index in range(STATES)]
    assert first_blocks == [height + max(delay, 1) for delay in delays]


@POLICIES
@SIZES
def test_the_newest_takes_the_kickoffs_output_before_any_other_may(
    world: AdvanceChain, n_clients: int, policy: FeePolicy
) -> None:
    leaf = sold_out(world, n_clients, policy)
    *older, newest = map(signed, leaf.states)
    paying = () if leaf.state.fee_sat else (world.anchor_child(newest, fee_sat=1_000),)
    height = world.mine(signed(leaf.kickoff))
    assert all(TOO_EARLY in world.refusal(tx) for tx in older)
    world.submit(newest, *paying)
    landed = world.ledger.mine(b"\x51")
    assert newest.txid in {tx.txid for tx in landed.block.txs}
    assert world.height == height + 1
    world.mine_to(height + STEP * STATES)
    for tx in older:
        assert TOO_LATE in world.refusal(tx)
        assert world.refuses_block(tx)


def forced(world: AdvanceChain, leaf: Leaf, state_index: int) -> None:
    """Mine the kickoff and one state, whichever, as soon as it may be."""
    height = world.mine(signed(leaf.kickoff))
    world.mine_to(height + leaf.states[state_index].delay_blocks - 1)
    world.mine(signed(leaf.states[state_index]))


def paid_out(poison: Poison) -> list[int]:
    return [output.amount_sat for output in poison.tx.outputs]


@SIZES
@pytest.mark.parametrize("state_index", [0, 1, 2])
def test_poisons_take_a_forced_old_state_apart_and_pay_their_fee_to_the_satoshi(
    world: AdvanceChain, n_clients: int, state_index: int
) -> None:
    """Standard as they are: nobody needs a coin, nor a child."""
    leaf = sold_out(world, n_clients, FeePolicy.ENDOGENOUS)
    forced(world, leaf, state_index)
    poisons = leaf.poisons(state_index)
    assert len(poisons) == n_clients + 1
    for poison in poisons:
        accepted = world.ledger.submit(signed(poison))
        assert accepted.vsize == poison.vsize
        assert accepted.fee_sat == poison.fee_sat == poison.input_amount_sat - sum(paid_out(poison))
        assert min(paid_out(poison)) >= P2TR_DUST_SAT
    assert [poison.fee_sat for poison in poisons] == [222] * n_clients + [2 * (68 + 43 * n_clients)]
    world.ledger.mine(b"\x51")
    assert len(world.ledger.mempool) == 0
    spent = {poison.tx.inputs[0].outpoint for poison in poisons}
    old = leaf.states[state_index].tx
    assert spent == {old.outpoint(vout) for vout in range(n_clients + 1)}, "all but the anchor"


@SIZES
def test_without_fees_a_poison_goes_as_a_package_with_its_receivers_child(
    world: AdvanceChain, n_clients: int
) -> None:
    leaf = sold_out(world, n_clients, FeePolicy.EPHEMERAL)
    forced(world, leaf, 0)
    for poison in leaf.poisons(0):
        assert poison.fee_sat == 0
        tx = signed(poison)
        assert "min relay fee not met" in world.refusal(tx)
        receiver = next(iter(poison.shares_sat))
        world.submit(tx, receivers_child(tx, 0, client=receiver, fee_sat=500))
    world.ledger.mine(b"\x51")
    assert len(world.ledger.mempool) == 0


@POLICIES
def test_any_receiver_bumps_a_stock_poison_and_the_better_child_stays(
    world: AdvanceChain, policy: FeePolicy
) -> None:
    """A version-3 parent has one child (BIP 431), so the better one replaces the other."""
    leaf = sold_out(world, 2, policy)
    forced(world, leaf, 0)
    poison = leaf.stock_poison(0)
    tx = signed(poison)
    assert list(poison.shares_sat) == [1, 2]
    first = receivers_child(tx, 0, client=1, fee_sat=500)
    worse = receivers_child(tx, 1, client=2, fee_sat=501)
    better = receivers_child(tx, 1, client=2, fee_sat=2_000)
    world.submit(tx, first)
    assert "insufficient fee" in world.refusal(worse)
    world.submit(better)
    assert first.txid not in world.ledger.mempool
    landed = world.ledger.mine(b"\x51")
    assert {tx.txid, better.txid} <= {one.txid for one in landed.block.txs}


def revoked_commitment(leaf: Leaf, state_index: int) -> Tx:
    """Return a signed commitment of the LSP's on the only channel of an old state."""
    state = leaf.states[state_index]
    funding = Funding(
        outpoint=state.tx.outpoint(0),
        pubkeys=(oracle.pubkey("client funding", 1), oracle.pubkey("lsp funding", 1)),
        capacity_sat=state.outputs[0].amount_sat,
    )
    content = CommitmentContent(
        holder=Party.OPENER,
        number=4,
        opener_msat=20_000_000,
        accepter_msat=funding.capacity_sat * 1000 - 20_000_000,
    )
    commitment = build_commitment(
        content,
        funding=funding,
        terms=TERMS,
        keys=KEYS,
        per_commitment_point=SIGNERS[Party.OPENER].per_commitment_point(CHANNEL, 4),
    )
    return commitment.signed(signature_of(commitment.signing_task))


def test_with_the_revoked_commitment_an_old_state_keeps_the_smaller_poison_out(
    world: AdvanceChain,
) -> None:
    """Why coverage counts the penalty: at maturity the LSP may publish both before any poison."""
    leaf = sold_out(world, 1, FeePolicy.ENDOGENOUS)
    height = world.mine(signed(leaf.kickoff))
    world.mine_to(height + leaf.states[0].delay_blocks - 1)
    world.submit(signed(leaf.states[0]))
    world.submit(revoked_commitment(leaf, 0))
    assert "insufficient fee" in world.refusal(signed(leaf.channel_poison(0, 1)))
    world.ledger.mine(b"\x51")
    assert TOO_LATE in world.refusal(signed(leaf.channel_poison(0, 1)))
    assert not world.refusal(signed(leaf.stock_poison(0))), "the L-stock stays for the clients"


# An inner state


def published(world: AdvanceChain, nodes: Sequence[TreeNode]) -> None:
    """Submit each as soon as policy takes it, which is at its delay, and mine it."""
    for node in nodes:
        parent_height = world.height
        while refusal := world.refusal(signed(node)):
            assert TOO_EARLY in refusal
            world.mine()
        world.submit(signed(node))
        world.ledger.mine(b"\x51")
        assert world.height == parent_height + max(node.delay_blocks, 1)


@pytest.mark.parametrize("n_advances", [1, 2, 3])
@pytest.mark.parametrize(
    ("arities", "kinds", "path"),
    [((2,), ("dw",), ()), ((2, 2), ("static", "dw"), (0,)), ((2, 2), ("dw", "dw"), (1,))],
    ids=["root", "below a static root", "below another"],
)
def test_a_newer_inner_state_wins_by_a_step_and_then_only_what_is_below_it_is_valid(
    world: AdvanceChain,
    arities: tuple[int, ...],
    kinds: tuple[str, ...],
    path: tuple[int, ...],
    n_advances: int,
) -> None:
    n_leaves = 2 ** len(arities)
    terms = oracle.terms_of(
        [50_000 + 1_000 * place for place in range(2 * n_leaves)],
        [LSTOCK_SAT] * n_leaves,
        inner_arities=arities,
        inner_kinds=kinds,
        states_per_layer=STATES,
        step_blocks=STEP,
    )
    tree = world.fund(terms)
    vertices = [tree.vertices]
    for _ in range(n_advances):
        newer = advance_inner(vertices[-1], path, terms=terms, factory_pubkeys=tree.factory_pubkeys)
        vertices.append(newer)
    old, new = (
        {vertex.first.shape.path: vertex for vertex in version} for version in vertices[-2:]
    )
    above = [vertex for p, vertex in new.items() if p == path[: len(p)] and p != path]
    published(world, [node for vertex in above for node in vertex.nodes])
    published(world, [new[path].first])
    height = world.height
    world.mine_to(height + max(new[path].last.delay_blocks, 1) - 1)
    assert TOO_EARLY in world.refusal(signed(old[path].last))
    assert world.refusal(signed(new[path].last)) == ""
    world.submit(signed(new[path].last))
    world.ledger.mine(b"\x51")
    world.mine_to(height + new[path].last.delay_blocks + STEP)
    assert TOO_LATE in world.refusal(signed(old[path].last))
    assert world.refuses_block(signed(old[path].last))

    children = [p for p in new if len(p) == len(path) + 1 and p[: len(path)] == path]
    assert len(children) == 2
    for child in children:
        assert TOO_LATE in world.refusal(signed(old[child].first))
        assert world.refuses_block(signed(old[child].first))
        leaf = opening_leaf(new[child], terms=terms, factory_pubkeys=tree.factory_pubkeys)
        buyer = new[child].first.shape.first_client
        assert leaf.sales_left == 3, "sales start again below"
        sold = buy(leaf, buyer, 10_000)
        published(world, [new[child].first, sold.state if child == children[0] else leaf.state])
        assert TOO_LATE in world.refusal(signed(old[child].last))
