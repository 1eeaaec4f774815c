"""A leaf through all its sales: its states, and the poisons of each that was superseded."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import sellable, tree_of

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.changed import changed
from cromford.factory.allocation import (
    AdvanceRefused,
    Allocation,
    Purchase,
    lstock_sat_min,
    stock_poison_fee_sat,
)
from cromford.factory.branch import branch_of
from cromford.factory.leaf import (
    Leaf,
    advance_height_max,
    advance_id_of,
    opening_leaf,
    state_in,
    usable_blocks,
)
from cromford.factory.poison import PoisonKind, payout_script, shares_of
from cromford.factory.terms import FeePolicy
from cromford.factory.tree import Tree
from cromford.factory.vertices import state_of


def leaf_of(tree: Tree, place: int = -1) -> Leaf:
    vertices = [vertex for vertex in tree.vertices if not vertex.first.shape.children]
    return opening_leaf(vertices[place], terms=tree.terms, factory_pubkeys=tree.factory_pubkeys)


def one_leaf(
    capacities_sat: Sequence[int], lstock_sat: int, *, states_per_layer: int = 4, feerate: int = 500
) -> Leaf:
    terms = oracle.terms_of(
        capacities_sat,
        [lstock_sat],
        leaf_arity=len(capacities_sat),
        states_per_layer=states_per_layer,
        fee_policy=FeePolicy.ENDOGENOUS if feerate else FeePolicy.EPHEMERAL,
        feerate=feerate,
    )
    return leaf_of(tree_of(terms))


def buy(leaf: Leaf, buyer: int, amount_sat: int | None) -> Leaf:
    return leaf.sold(Purchase(buyer=buyer, amount_sat=amount_sat))


# Found on chain


def test_a_state_that_was_forgotten_is_known_by_its_form_alone() -> None:
    opened = one_leaf([100_000, 80_000], 60_000)
    sold = buy(buy(opened, 1, 20_000), 2, None)
    for known in (opened, buy(opened, 1, 20_000)):
        assert state_in(known, sold.state.tx) == sold.state
    first, *others = sold.state.tx.outputs
    dearer = replace(first, amount_sat=first.amount_sat + 1)
    elsewhere = replace(first, script_pubkey=others[0].script_pubkey)
    (tx_in,) = sold.state.tx.inputs
    for other in (
        opened.state.tx,  # Nothing older than what is known is looked for.
        replace(sold.state.tx, outputs=(dearer, *others)),
        replace(sold.state.tx, outputs=(elsewhere, *others)),
        replace(sold.state.tx, outputs=tuple(others)),
        replace(sold.state.tx, inputs=(replace(tx_in, nsequence=tx_in.nsequence + 1),)),
    ):
        assert state_in(opened, other) is None


def test_a_state_whose_lstock_was_sold_in_part_is_known_by_its_form() -> None:
    opened = one_leaf([100_000, 80_000], 60_000)
    sold = buy(buy(opened, 1, 20_000), 2, 10_000)
    assert state_in(opened, sold.state.tx) == sold.state


@pytest.mark.parametrize(("place", "path"), [(0, (0, 0)), (2, (1,))])
def test_an_advance_has_the_name_of_what_the_next_state_pays_and_where(
    place: int, path: tuple[int, ...]
) -> None:
    terms = oracle.terms_of([50_000] * 5, [10_000] * 3, inner_arities=[2, 2])
    leaf = leaf_of(tree_of(terms), place)
    name = advance_id_of(
        leaf,
        attempt_id=b"\x11" * 32,
        state_index=2,
        allocation=Allocation(capacities_sat=(50_000, 52_000), lstock_sat=8_000),
    )
    numbers = b"".join(n.to_bytes(8, "big") for n in (2, 50_000, 52_000, 8_000))
    place_of_it = bytes([len(path), *path])
    assert name == oracle.tagged("cromford/advance", b"\x11" * 32 + place_of_it + numbers)


# Shares


def second_reading(payable: int, growths: Sequence[int]) -> list[int]:
    """The rule once more, from its sentences, written apart from the code."""
    n = len(growths)
    if sum(growths) > payable:
        shares = [payable * g // sum(growths) for g in growths]
        equal = 0
    else:
        shares = list(growths)
        equal = (payable - sum(growths)) // n
    shares = [s + equal for s in shares]
    shares[0] += payable - sum(shares)
    top = max(range(n), key=lambda i: (shares[i], -i))
    for i in range(n):
        if i != top and shares[i] < 330:
            shares[top], shares[i] = shares[top] + shares[i], 0
    return shares


@given(
    payable=st.one_of(st.integers(330, 5_000), st.integers(330, 10_000_000)),
    growths=st.lists(
        st.one_of(st.just(0), st.integers(0, 1_000), st.integers(0, 10_000_000)),
        min_size=1,
        max_size=8,
    ),
)
def test_shares_are_the_rules_and_use_all_there_is(payable: int, growths: list[int]) -> None:
    shares = shares_of(payable, growths)
    assert list(shares) == second_reading(payable, growths)
    assert sum(shares) == payable
    assert all(share == 0 or share >= P2TR_DUST_SAT for share in shares)


@pytest.mark.parametrize(
    ("payable", "growths", "shares"),
    [
        # The growth, and the rest in halves; the odd satoshi to the first.
        (101_192, [50_000, 0], (75_596, 25_596)),
        (101_193, [0, 50_000], (25_597, 75_596)),
        # 330 is an output, 329 is not.
        (10_660, [10_000, 0], (10_330, 330)),
        (10_658, [10_000, 0], (10_658, 0)),
        # All sold: it grew by more than what the poison leaves, for its own fee is saved, too.
        (101_192, [0, 101_586], (0, 101_192)),
        # The odd satoshi outweighs a growth of one, and an output is too small for both.
        (332, [0, 1], (332, 0)),
        # At a tie the first is the largest.
        (400, [0, 0], (400, 0)),
        (660, [0, 0], (330, 330)),
        # Several that grew beyond what there is: in proportion, the odd satoshi to the first.
        (10_000, [10_000, 5_000, 0], (6_667, 3_333, 0)),
        (89_606, [0, 0, 89_000], (0, 0, 89_606)),
    ],
)
def test_shares_at_their_boundaries(
    payable: int, growths: list[int], shares: tuple[int, ...]
) -> None:
    assert shares_of(payable, growths) == shares


# Several sales


def test_three_sales_use_up_four_states() -> None:
    leaf = one_leaf([100_000, 100_000], 50_000)
    assert leaf.sales_left == 3
    leaf = buy(leaf, 1, 10_000)
    leaf = buy(leaf, 2, 20_000)
    assert leaf.sales_left == 1
    leaf = buy(leaf, 1, 5_000)
    assert leaf.sales_left == 0
    assert leaf.allocation == Allocation(capacities_sat=(115_000, 120_000), lstock_sat=15_000)
    with pytest.raises(AdvanceRefused, match="state_index: expected at most 3, received 4"):
        buy(leaf, 1, 1)
    with pytest.raises(AdvanceRefused, match="state_index: expected at most 3, received 4"):
        leaf.advanced(Allocation(capacities_sat=(115_001, 120_000), lstock_sat=14_999))
    assert [state.name for state in leaf.states] == [
        "state_root",
        "state_root v1",
        "state_root v2",
        "state_root v3",
    ]
    assert [state.delay_blocks for state in leaf.states] == [432, 288, 144, 0]
    assert {state.tx.inputs[0].outpoint for state in leaf.states} == {leaf.kickoff.tx.outpoint(0)}


def test_sales_end_with_the_stock_before_the_indices_do() -> None:
    leaf = one_leaf([100_000, 100_000], 639)
    assert leaf.sales_left == 2
    assert buy(leaf, 1, 1).sales_left == 1
    sold_out = buy(leaf, 1, None)
    assert sold_out.sales_left == 0
    with pytest.raises(AdvanceRefused, match="lstock_sat: expected at least 638 to sell of"):
        buy(sold_out, 2, None)
    assert one_leaf([100_000], 551).sales_left == 0


def test_a_growth_stays_what_it_was_when_later_sales_follow() -> None:
    leaf = buy(one_leaf([100_000, 100_000], 50_000), 1, 10_000)
    first = leaf.stock_poison(0)
    leaf = buy(buy(leaf, 2, 20_000), 2, None)
    assert leaf.stock_poison(0).tx == first.tx
    assert [leaf.growths_sat(index) for index in range(3)] == [
        (10_000, 0),
        (0, 20_000),
        (0, 20_086),
    ]
    # F = 50,000 - 308, 40,000 - 308 and 20,000 - 308: growth and half of the rest each.
    assert [leaf.shares_sat(index) for index in range(3)] == [
        (29_846, 19_846),
        (9_846, 29_846),
        (0, 19_692),
    ]


def test_an_advance_that_somebody_says_is_the_one_that_was_bought() -> None:
    leaf = one_leaf([100_000, 100_000], 50_000)
    bought = buy(leaf, 2, None)
    assert leaf.advanced(bought.allocation) == bought
    with pytest.raises(AdvanceRefused, match="capacity_sat of client 2: expected 150086"):
        leaf.advanced(Allocation(capacities_sat=(100_000, 150_087), lstock_sat=0))


def test_of_a_live_state_there_is_no_poison() -> None:
    leaf = buy(one_leaf([100_000, 100_000], 50_000), 1, 10_000)
    for state_index in (-1, 1, 2):
        for make in (leaf.stock_poison, leaf.growths_sat, leaf.shares_sat):
            with pytest.raises(ValueError, match="a superseded state, below 1, was expected"):
                make(state_index)
        with pytest.raises(ValueError, match="a superseded state, below 1, was expected"):
            leaf.channel_poison(state_index, 1)
        with pytest.raises(ValueError, match="a superseded state, below 1, was expected"):
            list(leaf.poisons(state_index))


def test_poisons_are_named_by_leaf_client_and_version() -> None:
    terms = oracle.terms_of([50_000] * 8, [20_000] * 4, inner_arities=[2, 2])
    leaf = buy(buy(leaf_of(tree_of(terms), 1), 3, 10_000), 4, 5_000)
    names = [poison.name for index in range(2) for poison in leaf.poisons(index)]
    assert names == [
        "channel_poison_0_1 c3 v0",
        "channel_poison_0_1 c4 v0",
        "stock_poison_0_1 v0",
        "channel_poison_0_1 c3 v1",
        "channel_poison_0_1 c4 v1",
        "stock_poison_0_1 v1",
    ]
    assert leaf.state.name == "state_0_1 v2"
    kinds = [poison.kind for poison in leaf.poisons(0)]
    assert kinds == [PoisonKind.CHANNEL, PoisonKind.CHANNEL, PoisonKind.STOCK]


def test_a_client_makes_no_poison_of_its_neighbours_channel() -> None:
    """It knows the channel's script and not its keys."""
    tree = tree_of(oracle.terms_of([50_000] * 2, [20_000]))
    leaf = leaf_of(tree)
    scripts_only = tuple(
        changed(output, signers_output=None) if output.client == 2 else output
        for output in leaf.state.outputs
    )
    own = buy(changed(leaf, states=(changed(leaf.state, outputs=scripts_only),)), 2, 10_000)
    assert [poison.name for poison in own.poisons(0)] == ["channel_poison c1 v0", "stock_poison v0"]
    with pytest.raises(ValueError, match="state_root:1: the keys of another client's channel"):
        own.channel_poison(0, 2)
    with pytest.raises(ValueError, match="3 is not in range"):
        own.channel_poison(0, 3)


def test_a_state_that_pays_more_or_less_than_its_kickoff_is_never_made() -> None:
    leaf = one_leaf([100_000, 100_000], 50_000)
    paid = leaf.state.outputs[:-1]
    for more_sat in (-1, 1):
        forged = (changed(paid[0], amount_sat=paid[0].amount_sat + more_sat), *paid[1:])
        received = 250_660 + more_sat
        with pytest.raises(ValueError, match=f"250660 sat were expected, received {received} sat"):
            state_of(leaf.kickoff, terms=leaf.terms, paid=forged, state_index=1)
    assert state_of(leaf.kickoff, terms=leaf.terms, paid=paid, state_index=0) == leaf.state


def test_only_a_first_state_of_a_leaf_begins_its_chain() -> None:
    tree = tree_of(oracle.terms_of([50_000] * 4, [20_000] * 2, inner_arities=[2]))
    with pytest.raises(ValueError, match="state_root: a leaf's first state was expected"):
        opening_leaf(tree.vertices[0], terms=tree.terms, factory_pubkeys=tree.factory_pubkeys)


# Any leaf of any tree


@st.composite
def histories(draw: st.DrawFn) -> tuple[Tree, int, list[Purchase]]:
    """Draw a small tree, a leaf of it, and as many sales as it has."""
    terms = sellable(draw(oracle.random_terms(n_clients_max=9)))
    least = {n: lstock_sat_min(terms, n_clients=n) for n in range(1, 10)}
    spots = oracle.spot_of(terms).leaves()
    place = draw(st.integers(0, len(spots) - 1))
    clients, left = spots[place].clients, terms.lstock_sat[place]
    purchases = []
    for _ in range(draw(st.integers(1, terms.states_per_layer - 1))):
        most = left - least[len(clients)]
        if left == 0:
            break
        part = st.integers(1, most) if most else st.none()
        amount = draw(st.one_of(st.none(), part))
        purchases.append(Purchase(buyer=draw(st.sampled_from(clients)), amount_sat=amount))
        left = 0 if amount is None else left - amount
    return tree_of(terms), place, purchases


@settings(max_examples=40)
@given(history=histories())
def test_every_version_spends_the_kickoff_to_the_satoshi_and_so_does_every_poison(
    history: tuple[Tree, int, list[Purchase]],
) -> None:
    """Amounts, delays and shares, judged from the bytes; a client finds the same as the LSP."""
    tree, place, purchases = history
    terms = tree.terms
    leaf = leaf_of(tree, place)
    for purchase in purchases:
        leaf = leaf.sold(purchase)
    assert len(leaf.states) == 1 + len(purchases)
    for state in leaf.states:
        paid_sat = sum(output.amount_sat for output in state.tx.outputs)
        assert paid_sat + state.fee_sat == leaf.kickoff.tx.outputs[0].amount_sat
        assert state.fee_sat == -(-4 * state.vsize * terms.tree_feerate_sat_per_kw // 1000)
        assert state.tx.inputs[0].outpoint == leaf.kickoff.tx.outpoint(0)
    delays = [state.tx.inputs[0].nsequence for state in leaf.states]
    assert delays == [state.delay_blocks for state in leaf.states]
    assert all(old - new == terms.step_blocks for old, new in pairwise(delays))

    scripts = {client: payout_script(tree.factory_pubkeys[client]) for client in leaf.clients}
    owners = {script: client for client, script in scripts.items()}
    stock_fee_sat = stock_poison_fee_sat(terms, n_clients=len(leaf.clients))
    for index, state in enumerate(leaf.states[:-1]):
        *channels, stock = leaf.poisons(index)
        assert stock.fee_sat == stock_fee_sat
        got = {owners[o.script_pubkey]: o.amount_sat for o in stock.tx.outputs}
        assert got == dict(stock.shares_sat)
        assert min(got.values()) >= P2TR_DUST_SAT
        buyer = purchases[index].buyer
        growth = leaf.growths_sat(index)[leaf.clients.index(buyer)]
        payable = state.outputs[-2].amount_sat - stock_fee_sat
        # What was paid for comes first; of a few satoshis the odd ones outweigh it.
        assert growth < len(leaf.clients) or got[buyer] >= min(growth, payable)
        for client, poison in zip(leaf.clients, channels, strict=True):
            (output,) = poison.tx.outputs
            assert output.script_pubkey == scripts[client]
            assert poison.fee_sat == -(-4 * poison.vsize * terms.tree_feerate_sat_per_kw // 1000)
            assert (
                poison.input_amount_sat
                == leaf.allocation_at(index).capacities_sat[leaf.clients.index(client)]
            )
    for client in leaf.clients:
        own = opening_leaf(
            branch_of(tree, client).vertices[-1],
            terms=terms,
            factory_pubkeys=tree.factory_pubkeys,
        )
        for state in leaf.states[1:]:
            own = own.advanced(
                Allocation(
                    capacities_sat=tuple(o.amount_sat for o in state.outputs if o.client),
                    lstock_sat=sum(o.amount_sat for o in state.outputs if o.kind == "lstock"),
                )
            )
        assert [state.tx for state in own.states] == [state.tx for state in leaf.states]


# How long it is of use


def test_an_advance_is_begun_while_more_than_patience_is_left() -> None:
    assert advance_height_max(exit_deadline_height=1_000, patience_blocks=144) == 855
    uses = {
        height: usable_blocks(height=height, exit_deadline_height=1_000, patience_blocks=144)
        for height in (0, 854, 855, 856, 1_000, 1_001)
    }
    assert uses == {0: 1_000, 854: 146, 855: 145, 856: 0, 1_000: 0, 1_001: 0}
