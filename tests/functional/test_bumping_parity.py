"""Paying for what was signed long ago: both nodes give the same answers, in Core's own words.

Each expected value was seen on a Bitcoin Core of 2026.
"""

from typing import Any

import pytest
from tests.functional.family_world import (
    FUNDING_SAT,
    NOTHING,
    Outcome,
    anchor_of,
    child,
    chunk_of,
    fee_at,
    funding,
    node_tx,
    padded,
    plain,
    purse,
    refusal,
    sent,
    spend,
    spender_of,
    submitted,
    waiting,
)
from tests.functional.node_world import (
    KEY_SCRIPT,
    NODES,
    OPEN_ADDRESS,
    OPEN_SCRIPT,
    World,
    coin_of,
    hex_of,
    pay,
)

from cromford.bitcoin.tx import Tx
from cromford.regtest.options import Options

KICKOFF_VSIZE = 124


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world_without_data(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"), Options(datacarrier_size_max=0))


def kickoff_at(world: World, sat_per_vb: float, *, anchor_sat: int = 240) -> Tx:
    coin = funding(world)
    fee_sat = fee_at(sat_per_vb, node_tx(coin, fee_sat=0))
    return node_tx(coin, fee_sat=fee_sat, anchor_sat=anchor_sat)


# A child of one anchor.


def test_a_child_with_one_coin_has_153_vbytes_and_lifts_its_parent(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    assert kickoff.vsize == KICKOFF_VSIZE
    sent(world, kickoff)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=3_076)
    assert bump.vsize == 153
    assert submitted(world, bump) == Outcome("success", ((3_076, 20_104, (0,)),))
    family_weight = kickoff.weight + bump.weight
    assert chunk_of(world, kickoff) == chunk_of(world, bump) == (3_200, family_weight)
    entry = world.call("getmempoolentry", str(kickoff.txid))
    assert (entry["ancestorcount"], entry["descendantcount"]) == (1, 2)
    assert (entry["descendantsize"], entry["spentby"]) == (277, [str(bump.txid)])
    assert spender_of(world, anchor_of(kickoff)) == str(bump.txid)
    assert spender_of(world, coin_of(kickoff, 0)) is None


def test_an_anchor_alone_lifts_a_parent_without_any_coin(world: World) -> None:
    kickoff = kickoff_at(world, 2)
    sent(world, kickoff)
    bump = spend([anchor_of(kickoff)], (0, NOTHING))
    assert bump.vsize == 74
    assert submitted(world, bump).message == "success"
    assert chunk_of(world, kickoff) == (248 + 240, kickoff.weight + bump.weight)
    assert round(488 / (kickoff.vsize + bump.vsize), 2) == 2.46


def test_confirmed_anchors_of_the_same_path_lift_it_further(world: World) -> None:
    earlier = [kickoff_at(world, 2) for _ in range(3)]
    sent(world, *earlier)
    world.mine()
    kickoff = kickoff_at(world, 2)
    sent(world, kickoff)
    bump = spend([anchor_of(tx) for tx in (kickoff, *earlier)], (0, NOTHING))
    assert bump.vsize == 197
    assert submitted(world, bump).message == "success"
    assert chunk_of(world, kickoff) == (248 + 960, kickoff.weight + bump.weight)
    assert round(1_208 / (kickoff.vsize + bump.vsize), 2) == 3.76


def test_an_anchor_cannot_pay_to_nothing_where_data_is_not_relayed(
    world_without_data: World,
) -> None:
    world = world_without_data
    kickoff = kickoff_at(world, 2)
    sent(world, kickoff)
    assert refusal(world, spend([anchor_of(kickoff)], (0, NOTHING))) == "datacarrier"
    assert waiting(world) == {str(kickoff.txid)}
    assert submitted(world, child([anchor_of(kickoff), purse(world)], fee_sat=1_000)).message == (
        "success"
    )


def test_a_child_smaller_than_any_is_not_relayed(world: World) -> None:
    kickoff = kickoff_at(world, 2)
    sent(world, kickoff)
    assert refusal(world, spend([anchor_of(kickoff)], (0, b"\x6a"))) == "tx-size-small"


# Families of version 3.


def test_a_kickoff_and_a_state_relay_together_up_to_21_outputs(world: World) -> None:
    kickoff = kickoff_at(world, 0)
    state = node_tx(coin_of(kickoff, 0), fee_sat=2_000, n_outputs=21)
    assert state.vsize == 984
    alone = "min relay fee not met, 0 < 13"
    assert refusal(world, kickoff) == alone
    assert submitted(world, kickoff, state) == Outcome(
        "success", ((0, 1_805, (0, 1)), (2_000, 1_805, (0, 1)))
    )
    kickoff = kickoff_at(world, 0)
    state = node_tx(coin_of(kickoff, 0), fee_sat=2_000, n_outputs=22)
    outcome = submitted(world, kickoff, state)
    assert outcome.message == (
        "TRUC-violation, version=3 child tx <1> is too big: 1027 > 1000 virtual bytes"
    )
    assert outcome.results == (alone, "bad-txns-inputs-missingorspent")


def test_a_third_unconfirmed_generation_is_refused(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    state = node_tx(coin_of(kickoff, 0), fee_sat=300)
    sent(world, kickoff, state)
    bump = child([anchor_of(state), purse(world)], fee_sat=2_000)
    words = "TRUC-violation, tx <tx> would have too many ancestors"
    assert refusal(world, bump) == words
    assert submitted(world, state, bump).results[1] == words.replace("<tx>", "<1>")
    assert submitted(world, bump) == Outcome("transaction failed", (words,))
    world.mine()
    assert refusal(world, node_tx(coin_of(kickoff, 0), fee_sat=301)) == (
        "bad-txns-inputs-missingorspent"
    )
    sent(world, bump)


def test_a_package_of_three_generations_is_refused(world: World) -> None:
    kickoff = kickoff_at(world, 0)
    state = node_tx(coin_of(kickoff, 0), fee_sat=0)
    bump = child([anchor_of(state), anchor_of(kickoff), purse(world)], fee_sat=4_000)
    code, message = world.error("submitpackage", [hex_of(tx) for tx in (kickoff, state, bump)])
    assert (code, message) == (
        -25,
        "package topology disallowed. not child-with-parents or parents depend on each other.",
    )


def test_one_child_bumps_one_parent(world: World) -> None:
    kickoffs = [kickoff_at(world, 1) for _ in range(2)]
    sent(world, *kickoffs)
    both = child([*map(anchor_of, kickoffs), purse(world)], fee_sat=3_000)
    words = "TRUC-violation, tx <tx> would have too many ancestors"
    assert refusal(world, both) == words
    bump = child([anchor_of(kickoffs[0]), purse(world)], fee_sat=3_000)
    sent(world, bump)
    assert refusal(world, child([anchor_of(kickoffs[1]), coin_of(bump, 0)], fee_sat=3_000)) == words


def test_a_child_has_at_most_1000_vbytes_and_a_parent_10000(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff)
    coins = [anchor_of(kickoff), purse(world)]
    assert refusal(world, padded(coins, vsize=1_001, fee_sat=2_000)) == (
        "TRUC-violation, version=3 child tx <tx> is too big: 1001 > 1000 virtual bytes"
    )
    sent(world, padded(coins, vsize=1_000, fee_sat=2_000))
    coin = funding(world)
    assert refusal(world, padded([coin], vsize=10_001, fee_sat=2_000)) == (
        "TRUC-violation, version=3 tx <tx> is too big: 10001 > 10000 virtual bytes"
    )
    sent(world, padded([coin], vsize=10_000, fee_sat=2_000))


# In the place of a stranger's child.


def test_a_strangers_child_is_replaced_at_its_fee_and_a_tenth_of_our_size(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    theirs = padded([anchor_of(kickoff), purse(world)], vsize=1_000, fee_sat=5_000)
    sent(world, kickoff, theirs)
    coins = [anchor_of(kickoff), purse(world)]
    cheap = child(coins, fee_sat=5_015)
    assert refusal(world, cheap) == (
        "insufficient fee, rejecting replacement <tx>, "
        "not enough additional fees to relay; 0.00000015 < 0.00000016"
    )
    assert refusal(world, child(coins, fee_sat=4_999)) == (
        "insufficient fee, rejecting replacement <tx>, "
        "less fees than conflicting txs; 0.00004999 < 0.00005"
    )
    ours = child(coins, fee_sat=5_016)
    outcome = submitted(world, kickoff, ours)
    assert outcome == Outcome(
        "success", (124, (5_016, 32_784, (1,))), frozenset({str(theirs.txid)})
    )
    assert spender_of(world, anchor_of(kickoff)) == str(ours.txid)


def test_a_child_of_any_output_evicts_the_one_at_the_anchor(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    ours = child([anchor_of(kickoff), purse(world)], fee_sat=310)
    sent(world, kickoff, ours)
    theirs = child([coin_of(kickoff, 0)], fee_sat=321)
    assert theirs.vsize == 111
    assert refusal(world, theirs) == (
        "insufficient fee (including sibling eviction), rejecting replacement <tx>, "
        "not enough additional fees to relay; 0.00000011 < 0.00000012"
    )
    theirs = child([coin_of(kickoff, 0)], fee_sat=322)
    assert submitted(world, theirs) == Outcome(
        "success", ((322, 2_900, (0,)),), frozenset({str(ours.txid)})
    )
    assert spender_of(world, anchor_of(kickoff)) is None
    assert chunk_of(world, kickoff) == (446, kickoff.weight + theirs.weight)


def test_eight_that_insist_on_their_own_child_pay_for_one_another(world: World) -> None:
    state = node_tx(funding(world), fee_sat=1_000, n_outputs=9)
    sent(world, state)
    fee_sat, replaced = 310, []
    for place in range(8):
        bump = child([coin_of(state, place), purse(world)], fee_sat=fee_sat)
        replaced.append(len(submitted(world, bump).replaced))
        fee_sat += -(-bump.vsize // 10)
    assert (replaced, fee_sat) == ([0] + [1] * 7, 310 + 8 * 17)


def test_a_child_that_pays_a_lower_feerate_takes_no_place(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff, child([anchor_of(kickoff), purse(world)], fee_sat=1_530))
    large = padded([anchor_of(kickoff), purse(world)], vsize=1_000, fee_sat=1_700)
    assert refusal(world, large) == (
        "replacement-failed, insufficient feerate: does not improve feerate diagram"
    )


def test_an_anchor_that_a_stranger_spends_pins_whatever_else_spends_it(world: World) -> None:
    earlier = kickoff_at(world, 2)
    sent(world, earlier)
    world.mine()
    coins = [anchor_of(earlier), purse(world)]
    sent(world, padded(coins, vsize=11_000, fee_sat=1_100, version=2))
    kickoff = kickoff_at(world, 2)
    sent(world, kickoff)
    own = [anchor_of(kickoff), purse(world)]
    pinned = child([*own, anchor_of(earlier)], fee_sat=1_019)
    assert refusal(world, pinned) == (
        "insufficient fee, rejecting replacement <tx>, "
        "less fees than conflicting txs; 0.00001019 < 0.000011"
    )
    sent(world, child(own, fee_sat=1_019))


def test_a_sweep_of_several_is_refused_for_one_that_somebody_else_spends_dearly(
    world: World,
) -> None:
    contested, quiet = funding(world), funding(world)
    root = node_tx(contested, fee_sat=248)
    sent(world, root, child([anchor_of(root), purse(world)], fee_sat=6_000))
    joint = spend([contested, quiet], (399_000, KEY_SCRIPT), version=2)
    assert refusal(world, joint) == (
        "insufficient fee, rejecting replacement <tx>, "
        "less fees than conflicting txs; 0.00001 < 0.00006248"
    )
    sent(world, spend([quiet], (199_000, KEY_SCRIPT), version=2))
    expired = funding(world)
    waiting_root = node_tx(expired, fee_sat=124)
    sent(world, waiting_root)
    alone = submitted(world, spend([expired], (FUNDING_SAT - 1_000, KEY_SCRIPT), version=2))
    assert alone.replaced == {str(waiting_root.txid)}


# Packages.


def test_a_parent_that_waits_already_is_no_obstacle(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=1_530)
    assert submitted(world, kickoff, bump) == Outcome("success", (124, (1_530, 10_000, (1,))))
    assert submitted(world, kickoff, bump) == Outcome("success", (124, 1_530))


def test_a_child_gets_in_after_its_parent_confirmed_and_the_package_counts_as_failed(
    world: World,
) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff)
    world.mine()
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=1_530)
    assert submitted(world, kickoff, bump) == Outcome(
        "transaction failed", ("txn-already-known", (1_530, 10_000, (1,)))
    )
    world.mine()
    assert submitted(world, kickoff, bump) == Outcome(
        "transaction failed", ("txn-already-known", "txn-already-known")
    )


def test_a_parent_below_the_minimum_that_confirmed_is_only_said_to_have_no_inputs(
    world: World,
) -> None:
    kickoff = kickoff_at(world, 1)
    state = node_tx(coin_of(kickoff, 0), fee_sat=300)
    other = child([anchor_of(kickoff)], fee_sat=0, script=KEY_SCRIPT)
    sent(world, kickoff)
    world.mine()
    sent(world, state)
    world.mine()
    world.call("generateblock", OPEN_ADDRESS, [hex_of(other)])
    missing = "bad-txns-inputs-missingorspent"
    assert submitted(world, kickoff, state) == Outcome(
        "transaction failed", (missing, "txn-already-known")
    )


def test_a_newer_state_takes_the_place_of_an_older_one_with_its_child(world: World) -> None:
    coin = funding(world)
    old = node_tx(coin, fee_sat=1_000)
    old_child = child([anchor_of(old), purse(world)], fee_sat=2_000)
    sent(world, old, old_child)
    new = node_tx(coin, fee_sat=0)
    coins = [anchor_of(new), purse(world)]
    cheap = submitted(world, new, child(coins, fee_sat=3_027))
    assert cheap.message == (
        "package RBF failed: insufficient anti-DoS fees, rejecting replacement <1>, "
        "not enough additional fees to relay; 0.00000027 < 0.00000028"
    )
    assert cheap.results == ("min relay fee not met, 0 < 13", "bad-txns-inputs-missingorspent")
    assert waiting(world) >= {str(old.txid), str(old_child.txid)}
    paid = submitted(world, new, child(coins, fee_sat=3_028))
    assert paid == Outcome(
        "success",
        ((0, 10_931, (0, 1)), (3_028, 10_931, (0, 1))),
        frozenset({str(old.txid), str(old_child.txid)}),
    )


def test_a_package_that_pays_more_at_a_lower_feerate_replaces_nothing(world: World) -> None:
    coin = funding(world)
    old = node_tx(coin, fee_sat=3_000)
    sent(world, old)
    new = node_tx(coin, fee_sat=0, n_outputs=9)
    outcome = submitted(world, new, child([anchor_of(new), purse(world)], fee_sat=3_500))
    assert outcome.message == (
        "package RBF failed: insufficient feerate: does not improve feerate diagram"
    )


def test_a_test_of_a_family_names_what_each_one_pays(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=1_530)
    results = world.test(kickoff, bump)
    assert [result["allowed"] for result in results] == [True, True]
    assert [result["vsize"] for result in results] == [124, 153]
    assert not {str(kickoff.txid), str(bump.txid)} & waiting(world)
    free = kickoff_at(world, 0)
    results = world.test(free, child([anchor_of(free), purse(world)], fee_sat=1_530))
    assert results[0]["reject-reason"] == "min relay fee not met"
    assert "allowed" not in results[1]


# Ephemeral dust: a parent that pays nothing, with an anchor of nothing.


def test_a_parent_with_an_empty_anchor_gets_in_with_the_child_that_spends_it(world: World) -> None:
    kickoff = kickoff_at(world, 0, anchor_sat=0)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=3_200)
    assert submitted(world, kickoff, bump) == Outcome(
        "success", ((0, 11_552, (0, 1)), (3_200, 11_552, (0, 1)))
    )
    assert chunk_of(world, kickoff) == (3_200, kickoff.weight + bump.weight)
    dearer = child([anchor_of(kickoff), purse(world)], fee_sat=3_216)
    assert submitted(world, kickoff, dearer).replaced == {str(bump.txid)}


def test_a_parent_with_an_empty_anchor_pays_no_fee_itself(world: World) -> None:
    kickoff = node_tx(funding(world), fee_sat=1_000, anchor_sat=0)
    words = "dust, tx with dust output must be 0-fee"
    assert refusal(world, kickoff) == words
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=3_200)
    assert submitted(world, kickoff, bump) == Outcome(
        "transaction failed", (words, "bad-txns-inputs-missingorspent")
    )


def test_no_other_child_takes_the_place_of_the_one_that_spends_the_empty_anchor(
    world: World,
) -> None:
    kickoff = kickoff_at(world, 0, anchor_sat=0)
    assert submitted(
        world, kickoff, child([anchor_of(kickoff), purse(world)], fee_sat=3_200)
    ).message == ("success")
    theirs = child([coin_of(kickoff, 0)], fee_sat=9_000)
    assert plain(refusal(world, theirs), kickoff) == (
        "missing-ephemeral-spends, tx <tx> did not spend parent's ephemeral dust"
    )


# A block taken back.


def test_a_family_of_a_block_taken_back_waits_again_and_pays_as_before(world: World) -> None:
    kickoff = kickoff_at(world, 0, anchor_sat=0)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=3_200)
    assert submitted(world, kickoff, bump).message == "success"
    before = chunk_of(world, kickoff)
    [block_hash] = world.mine()
    assert not {str(kickoff.txid), str(bump.txid)} & waiting(world)
    world.call("invalidateblock", block_hash)
    assert chunk_of(world, kickoff) == chunk_of(world, bump) == before
    assert spender_of(world, anchor_of(kickoff)) == str(bump.txid)


def test_three_generations_wait_after_their_blocks_were_taken_back(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff)
    [block_hash] = world.mine()
    state = node_tx(coin_of(kickoff, 0), fee_sat=300)
    bump = child([anchor_of(state), purse(world)], fee_sat=2_000)
    sent(world, state)
    world.mine()
    sent(world, bump)
    world.call("invalidateblock", block_hash)
    assert waiting(world) >= {str(tx.txid) for tx in (kickoff, state)}


# Coins of the wallet.


def test_a_change_of_version_2_bumps_a_funding_of_version_2_only(world: World) -> None:
    parent = pay([world.coin()], (100_000, KEY_SCRIPT), fee_sat=20)
    sent(world, parent)
    sent(world, pay([coin_of(parent, 1)], (50_000, OPEN_SCRIPT), fee_sat=5_000))
    assert chunk_of(world, parent)[0] == 5_020
    change = coin_of(parent, 0, ())
    assert refusal(world, child([change], fee_sat=1_000)) == (
        f"TRUC-violation, version=3 tx <tx> cannot spend from non-version=3 tx "
        f"{parent.txid} (wtxid={parent.wtxid})"
    )
