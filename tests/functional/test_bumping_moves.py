"""What is decided about a child is what both nodes take: each move is made, and seen there."""

from collections.abc import Sequence
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
from tests.functional.node_world import KEY_SCRIPT, NODES, Coin, World, coin_of, signed

from cromford import effects as fx
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import Tx, TxOut
from cromford.daemon.bumping import Bumper, Waiting
from cromford.ports import TxRefused
from cromford.regtest.options import Options
from cromford.wallet.account import WalletPath
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import Bumping, ChildTx
from cromford.watch.feerates import OwnFees

SAT_PER_VB = 250  # In satoshi per 1000 weight units.
DEAR = Options(min_relay_sat_per_kvb=3_000, incremental_relay_sat_per_kvb=100)
QUIET = OwnFees()
DEAR_FEES = OwnFees(mempool_min_sat_per_kw=750, min_relay_sat_per_kw=750)


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def dear(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"), DEAR)


def kickoff_at(world: World, sat_per_vb: float, **how: int) -> Tx:
    coin = funding(world)
    return node_tx(coin, fee_sat=fee_at(sat_per_vb, node_tx(coin, fee_sat=0)), **how)


def purse_of(*coins: Coin) -> Purse:
    return Purse(
        coins=tuple(
            SpentCoin(
                outpoint=coin.outpoint,
                txout=TxOut(amount_sat=coin.amount_sat, script_pubkey=coin.script),
                path=WalletPath(change=0, index=0),
            )
            for coin in coins
        ),
        change_script=KEY_SCRIPT,
    )


def sign(made: ChildTx) -> Tx:
    coins = [
        Coin(tx_in.outpoint, prevout.amount_sat, prevout.script_pubkey, ())
        for tx_in, prevout in zip(made.tx.inputs, made.prevouts, strict=True)
    ]
    witnesses = [tx_in.witness for tx_in in signed(made.tx, coins).inputs]
    return made.tx.with_witnesses(
        *(
            () if coin.script == ANCHOR_SCRIPT else witness
            for coin, witness in zip(coins, witnesses, strict=True)
        )
    )


def wanted(
    tx: Tx,
    sat_per_vb: float,
    *coins: Coin,
    budget_sat: int = 100_000,
    fees: OwnFees = QUIET,
    spare: Sequence[Tx] = (),
    fee_sat: int | None = None,
    gives_way: bool = False,
) -> Bumping:
    paid_sat = 200_000 - sum(txout.amount_sat for txout in tx.outputs)
    return Bumping(
        fee_sat=paid_sat if fee_sat is None else fee_sat,
        feerate_sat_per_kw=int(sat_per_vb * SAT_PER_VB),
        budget_sat=budget_sat,
        fees=fees,
        purse=purse_of(*coins) if coins else None,
        spare_anchors=tuple(anchor_of(one).outpoint for one in spare),
        gives_way=gives_way,
    )


def published(world: World, tx: Tx, bumping: Bumping) -> Waiting:
    """Publish as a daemon does, and return what waits then."""

    async def publish(chain: Any) -> Waiting:
        bumper = Bumper(chain, sign=sign)
        await bumper.publish(fx.Broadcast(name="kickoff", tx=tx, bumping=bumping), bumping)
        seen = bumper.waiting_at(tx.inputs[0].outpoint)
        assert seen is not None
        return seen

    return world.ask(publish)


def pays(seen: Waiting, sat_per_vb: float) -> bool:
    """Say whether it pays this, and hardly more: sizes are rounded up to virtual bytes."""
    rate = seen.package_sat_per_kw
    return rate is not None and sat_per_vb * SAT_PER_VB <= rate < 1.01 * sat_per_vb * SAT_PER_VB


def test_what_pays_enough_is_published_alone(world: World) -> None:
    kickoff = kickoff_at(world, 2)
    seen = published(world, kickoff, wanted(kickoff, 2, purse(world)))
    assert (seen.package_sat_per_kw, seen.child_txid) == (500, None)


def test_what_pays_too_little_gets_a_child_and_again_a_dearer_one(world: World) -> None:
    kickoff, coin = kickoff_at(world, 1), purse(world)
    first = published(world, kickoff, wanted(kickoff, 10, coin))
    assert pays(first, 10)
    assert first.child_fee_sat == fee_at(10, kickoff) + 1_530 - 124
    same = published(world, kickoff, wanted(kickoff, 10, coin))
    assert same.child_txid == first.child_txid, "what pays enough is left alone"
    dearer = published(world, kickoff, wanted(kickoff, 12.5, coin))
    assert pays(dearer, 12.5)
    assert dearer.child_txid != first.child_txid


def test_one_that_waits_without_a_child_gets_one(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    sent(world, kickoff)
    assert pays(published(world, kickoff, wanted(kickoff, 4, purse(world))), 4)


def test_whoever_pays_enough_is_left_alone(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    theirs = child([coin_of(kickoff, 0)], fee_sat=2_500)
    sent(world, kickoff, theirs)
    seen = published(world, kickoff, wanted(kickoff, 10, purse(world)))
    assert (seen.child_txid, seen.is_ours) == (theirs.txid, False)


@pytest.mark.parametrize("size", [111, 400, 1_000])
def test_a_strangers_child_that_pays_too_little_is_evicted(world: World, size: int) -> None:
    kickoff = kickoff_at(world, 1)
    theirs = child([coin_of(kickoff, 0)], fee_sat=size)
    if size > theirs.vsize:
        theirs = padded([coin_of(kickoff, 0)], vsize=size, fee_sat=size)
    sent(world, kickoff, theirs)
    seen = published(world, kickoff, wanted(kickoff, 10, purse(world)))
    assert seen.child_txid != theirs.txid
    assert seen.package_sat_per_kw is not None
    assert seen.package_sat_per_kw >= 2_500
    assert str(theirs.txid) not in waiting(world)


def test_an_attackers_child_costs_at_most_a_thousand_virtual_bytes_of_its_rate(
    world: World,
) -> None:
    """It is large and pays a little less than what is wanted: to evict it costs its fee."""
    kickoff = kickoff_at(world, 1)
    theirs = padded([coin_of(kickoff, 0)], vsize=1_000, fee_sat=10_900)
    sent(world, kickoff, theirs)
    bumping = wanted(kickoff, 10, purse(world))
    assert published(world, kickoff, bumping).child_txid != theirs.txid
    # Within no more than it may cost: then what waits goes on waiting.
    kickoff = kickoff_at(world, 1)
    theirs = padded([coin_of(kickoff, 0)], vsize=1_000, fee_sat=10_900)
    sent(world, kickoff, theirs)
    bumping = wanted(kickoff, 10, purse(world), budget_sat=10_900)
    assert published(world, kickoff, bumping).child_txid == theirs.txid


def test_below_the_mempools_minimum_both_go_as_a_package(dear: World) -> None:
    kickoff = kickoff_at(dear, 2)
    with pytest.raises(TxRefused, match="min relay fee not met"):
        published(dear, kickoff, wanted(kickoff, 3, fees=DEAR_FEES))
    assert str(kickoff.txid) not in waiting(dear)
    seen = published(dear, kickoff, wanted(kickoff, 2, purse(dear), fees=DEAR_FEES))
    assert pays(seen, 3)


def test_without_a_coin_the_anchor_is_one(world: World) -> None:
    kickoff = kickoff_at(world, 2)
    seen = published(world, kickoff, wanted(kickoff, 10))
    assert seen.child_fee_sat == 240
    assert seen.package_sat_per_kw == 1000 * (248 + 240) // (4 * (124 + 65))


def test_with_three_anchors_of_its_path_it_passes_a_minimum_that_it_would_not(dear: World) -> None:
    earlier = [_confirmed(dear, 3) for _ in range(3)]
    kickoff = kickoff_at(dear, 2)
    seen = published(dear, kickoff, wanted(kickoff, 3, fees=DEAR_FEES, spare=earlier))
    assert (seen.child_fee_sat, seen.package_sat_per_kw) == (480, 1000 * 728 // (496 + 424))
    assert seen.package_sat_per_kw is not None
    assert seen.package_sat_per_kw >= 750, "two of the four are enough"


def test_an_anchor_that_somebody_else_spends_is_left_to_them(dear: World) -> None:
    earlier = [_confirmed(dear, 3) for _ in range(2)]
    sent(dear, child([anchor_of(earlier[0]), purse(dear)], fee_sat=1_000))
    kickoff = kickoff_at(dear, 2)
    seen = published(dear, kickoff, wanted(kickoff, 3, fees=DEAR_FEES, spare=earlier))
    assert seen.child_fee_sat == 480


def test_a_zero_fee_transaction_goes_with_its_child_or_not_at_all(world: World) -> None:
    kickoff = kickoff_at(world, 0, anchor_sat=0)
    with pytest.raises(TxRefused):
        published(world, kickoff, wanted(kickoff, 1))
    seen = published(world, kickoff, wanted(kickoff, 5, purse(world)))
    assert pays(seen, 5)


def test_more_coins_are_spent_where_one_does_not_reach(world: World) -> None:
    kickoff = kickoff_at(world, 1)
    seen = published(world, kickoff, wanted(kickoff, 250, purse(world), purse(world)))
    assert seen.package_sat_per_kw is not None
    assert seen.child_fee_sat is not None
    assert seen.child_fee_sat > 50_000
    assert seen.package_sat_per_kw >= 62_500


def test_a_rival_in_its_place_is_replaced_with_its_child(world: World) -> None:
    coin = funding(world)
    ours, theirs = node_tx(coin, fee_sat=124), node_tx(coin, fee_sat=140, n_outputs=2)
    sent(world, theirs, child([anchor_of(theirs), purse(world)], fee_sat=300))
    assert pays(published(world, ours, wanted(ours, 10, purse(world))), 10)
    assert str(theirs.txid) not in waiting(world)


def test_a_rival_that_is_as_good_is_left_alone(world: World) -> None:
    coin = funding(world)
    ours, theirs = node_tx(coin, fee_sat=124), node_tx(coin, fee_sat=140, n_outputs=2)
    sent(world, theirs, child([anchor_of(theirs), purse(world)], fee_sat=5_000))
    seen = published(world, ours, wanted(ours, 10, purse(world), gives_way=True))
    assert seen.package_sat_per_kw is None
    assert str(theirs.txid) in waiting(world)


def test_what_is_in_a_block_is_paid_for_by_nobody(world: World) -> None:
    kickoff, coin = _confirmed(world, 1), purse(world)
    before = waiting(world)

    async def publish(chain: Any) -> None:
        bumping = wanted(kickoff, 10, coin)
        await Bumper(chain, sign=sign).publish(
            fx.Broadcast(name="kickoff", tx=kickoff, bumping=bumping), bumping
        )

    world.ask(publish)
    assert waiting(world) == before


def _confirmed(world: World, sat_per_vb: float) -> Tx:
    tx = kickoff_at(world, sat_per_vb)
    sent(world, tx)
    world.mine()
    return tx
