"""The port's questions about feerates, families and packages, asked of both nodes.

Each expected value was seen on a Bitcoin Core of 2026.
"""

from typing import Any

import pytest
from tests.functional.family_world import (
    anchor_of,
    child,
    fee_at,
    funding,
    node_tx,
    padded,
    purse,
    sent,
    waiting,
)
from tests.functional.node_world import NODES, World, coin_of

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.tx import Tx
from cromford.ports import (
    Known,
    MempoolTx,
    NotTaken,
    PackageAnswer,
    PackageNotTaken,
    RelayFeerates,
    Taken,
    TxRefused,
)
from cromford.regtest.options import Options

DEAR = Options(min_relay_sat_per_kvb=3_000, incremental_relay_sat_per_kvb=1_000)


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def dear(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"), DEAR)


def kickoff_at(world: World, sat_per_vb: float) -> Tx:
    coin = funding(world)
    return node_tx(coin, fee_sat=fee_at(sat_per_vb, node_tx(coin, fee_sat=0)))


def mempool_tx(world: World, tx: Tx) -> MempoolTx:
    found = world.ask(lambda chain: chain.mempool_tx(tx.txid))
    assert found is not None
    return found


def refusal_of(world: World, *txs: Tx) -> PackageNotTaken:
    with pytest.raises(PackageNotTaken) as refused:
        world.ask(lambda chain: chain.broadcast_package(txs))
    return refused.value


def test_a_node_says_what_it_asks_for(world: World, dear: World) -> None:
    assert world.ask(lambda chain: chain.relay_feerates()) == RelayFeerates(
        mempool_min_sat_per_kw=25, min_relay_sat_per_kw=25, incremental_sat_per_kw=25
    )
    assert dear.ask(lambda chain: chain.relay_feerates()) == RelayFeerates(
        mempool_min_sat_per_kw=750, min_relay_sat_per_kw=750, incremental_sat_per_kw=250
    )


@pytest.mark.parametrize("blocks", [-1, 1, 6, 1_008, 100_000])
def test_without_a_history_there_is_no_estimate(world: World, blocks: int) -> None:
    assert world.ask(lambda chain: chain.estimate_sat_per_kw(blocks)) is None


def test_after_each_block_it_is_seen_whether_the_parents_package_pays(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    assert world.ask(lambda chain: chain.mempool_tx(kickoff.txid)) is None
    sent(world, kickoff)
    alone = mempool_tx(world, kickoff)
    assert (alone.fee_sat, alone.vsize, alone.package_weight) == (124, 124, 496)
    assert alone.package_sat_per_kw == 250

    theirs = child([coin_of(kickoff, 0)], fee_sat=1_000)
    sent(world, theirs)
    carried = mempool_tx(world, kickoff)
    assert (carried.children, carried.replaced_fee_sat) == (frozenset({theirs.txid}), 1_124)
    assert carried.package_sat_per_kw == 1_124_000 // (496 + theirs.weight)
    assert mempool_tx(world, theirs).parents == {kickoff.txid}

    world.mine()
    assert world.ask(lambda chain: chain.mempool_tx(kickoff.txid)) is None


def test_a_child_that_pays_less_than_its_parent_lifts_nothing(world: World) -> None:
    kickoff = kickoff_at(world, 8)
    low = child([anchor_of(kickoff), purse(world)], fee_sat=153)
    sent(world, kickoff, low)
    assert mempool_tx(world, kickoff).package_sat_per_kw == 2_000
    assert mempool_tx(world, low).package_fee_sat == 153


@pytest.mark.parametrize(
    ("size", "words"),
    [(111, "replacement-failed"), (150, "insufficient fee"), (1_000, "insufficient fee")],
)
def test_a_strangers_child_is_replaced_at_what_the_port_says(
    world: World, size: int, words: str
) -> None:
    kickoff = kickoff_at(world, 1)
    theirs = child([coin_of(kickoff, 0)], fee_sat=1_000)
    if size > theirs.vsize:
        theirs = padded([coin_of(kickoff, 0)], vsize=size, fee_sat=1_000)
    assert theirs.vsize == size
    sent(world, kickoff, theirs)
    outpoints = kickoff.outpoints
    spenders = world.ask(lambda chain: chain.spenders(outpoints))
    assert spenders == {outpoints[0]: theirs.txid}

    asked = world.ask(lambda chain: chain.relay_feerates())
    parent, sibling = mempool_tx(world, kickoff), mempool_tx(world, theirs)
    coins = [anchor_of(kickoff), purse(world)]
    own = child(coins, fee_sat=0)
    least_sat = replacement_fee_sat(
        own.weight,
        parent=FeeAndWeight(parent.fee_sat, parent.weight),
        rival=FeeAndWeight(sibling.replaced_fee_sat, sibling.weight),
        incremental_sat_per_kw=asked.incremental_sat_per_kw,
    )
    with pytest.raises(TxRefused, match=words):
        world.ask(lambda chain: chain.broadcast(child(coins, fee_sat=least_sat - 1)))
    ours = child(coins, fee_sat=least_sat)
    answer = world.ask(lambda chain: chain.broadcast_package([kickoff, ours]))
    assert answer == PackageAnswer(
        verdicts=(Known(txid=kickoff.txid), Taken(txid=ours.txid, fee_sat=least_sat, vsize=153)),
        replaced=(theirs.txid,),
    )


def test_a_package_is_known_once_it_is_in_and_once_it_has_confirmed(world: World) -> None:
    kickoff = kickoff_at(world, 0)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=1_000)
    package = (kickoff, bump)
    answer = world.ask(lambda chain: chain.broadcast_package(package))
    assert answer.verdicts == (
        Taken(txid=kickoff.txid, fee_sat=0, vsize=124),
        Taken(txid=bump.txid, fee_sat=1_000, vsize=153),
    )
    known = tuple(Known(txid=tx.txid) for tx in package)
    for _ in range(2):
        again = world.ask(lambda chain: chain.broadcast_package(package))
        assert (again.verdicts, again.replaced) == (known, ())
        world.mine()


def test_a_child_of_a_confirmed_parent_is_taken(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff)
    world.mine()
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=1_000)
    answer = world.ask(lambda chain: chain.broadcast_package([kickoff, bump]))
    assert answer.verdicts == (
        Known(txid=kickoff.txid),
        Taken(txid=bump.txid, fee_sat=1_000, vsize=153),
    )


def test_a_refused_child_leaves_a_parent_that_pays_for_itself(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=15)
    refused = refusal_of(world, kickoff, bump)
    assert refused.reason == "min relay fee not met, 15 < 16"
    assert refused.answer.verdicts == (
        Taken(txid=kickoff.txid, fee_sat=124, vsize=124),
        NotTaken(txid=bump.txid, reason="min relay fee not met, 15 < 16"),
    )
    assert str(kickoff.txid) in waiting(world)


def test_a_refused_package_says_of_each_transaction_why(world: World) -> None:
    kickoff = kickoff_at(world, 0)
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=27)
    refused = refusal_of(world, kickoff, bump)
    assert refused.reason == "min relay fee not met, 27 < 28"
    assert [type(verdict) for verdict in refused.answer.verdicts] == [NotTaken, NotTaken]

    coin = funding(world)
    old = node_tx(coin, fee_sat=5_000)
    sent(world, old)
    new = node_tx(coin, fee_sat=0)
    refused = refusal_of(world, new, child([anchor_of(new), purse(world)], fee_sat=5_010))
    assert refused.reason.startswith("package RBF failed: insufficient anti-DoS fees, ")

    unspendable = node_tx(coin_of(kickoff_at(world, 1), 0), fee_sat=500)
    refused = refusal_of(world, unspendable, child([anchor_of(unspendable)], fee_sat=0))
    assert refused.reason == "bad-txns-inputs-missingorspent"


def test_a_node_that_asks_for_more_takes_the_old_feerate_with_a_child_only(dear: World) -> None:
    kickoff = kickoff_at(dear, 2)
    with pytest.raises(TxRefused, match="min relay fee not met, 248 < 372"):
        dear.ask(lambda chain: chain.broadcast(kickoff))
    least_sat = fee_sat_of(vsize=277, feerate_sat_per_kw=750) - 248
    coins = [anchor_of(kickoff), purse(dear)]
    assert refusal_of(dear, kickoff, child(coins, fee_sat=least_sat - 1)).reason == (
        "min relay fee not met, 830 < 831"
    )
    bump = child(coins, fee_sat=least_sat)
    dear.ask(lambda chain: chain.broadcast_package([kickoff, bump]))
    assert mempool_tx(dear, kickoff).package_sat_per_kw >= 750
