"""HTLC transactions without a fee: coins of the wallet are added to them, and a mempool takes them.

The peer signed the HTLC's input and output alone (bolts#1330).
"""

from collections.abc import Iterator

import pytest
from tests.watch.channel_world import (
    KEYCHAINS,
    OPEN_SCRIPT,
    SIGNERS,
    ZERO_FEE,
    Side,
    World,
    fresh_world,
    knowing,
    pair_of,
    sign,
)

from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.channel.terms import Party
from cromford.daemon.signing import sign_child
from cromford.protocol.exiting.confirming import paid_for
from cromford.wallet.account import Account, WalletPath
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import Bumping, Family, coin_needed_sat, next_move
from cromford.watch.channel_exit import NeedsChild
from cromford.watch.feerates import OwnFees
from cromford.watch.sweep import TakingTx, without_coins

SAT_PER_VB = 250
PATH = WalletPath(change=0, index=3)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fresh_world() as world:
        yield world


def script_of(party: Party) -> bytes:
    return Account(KEYCHAINS[party].wallet_account).script(PATH)


def purse(world: World, party: Party, *amounts_sat: int) -> Purse:
    """Return confirmed coins of a party's wallet."""
    outpoint = world.funded(1_000_000).outpoint
    (funding,) = {
        tx.txid: tx for tx in world.spenders.values() if tx.txid == outpoint.txid
    }.values()
    left_sat = funding.outputs[1].amount_sat - sum(amounts_sat) - 1_000
    tx = Tx(
        version=2,
        inputs=(TxIn(outpoint=funding.outpoint(1), nsequence=0, witness=(b"\x51",)),),
        outputs=(
            *(TxOut(amount_sat=sat, script_pubkey=script_of(party)) for sat in amounts_sat),
            TxOut(amount_sat=left_sat, script_pubkey=OPEN_SCRIPT),
        ),
    )
    world.submit(tx)
    world.mine()
    return Purse(
        coins=tuple(
            SpentCoin(outpoint=tx.outpoint(vout), txout=tx.outputs[vout], path=PATH)
            for vout in range(len(amounts_sat))
        ),
        change_script=script_of(party),
    )


def bumping(sat_per_vb: int, coins: Purse | None, *, budget_sat: int = 50_000) -> Bumping:
    return Bumping(
        fee_sat=0,
        feerate_sat_per_kw=sat_per_vb * SAT_PER_VB,
        budget_sat=budget_sat,
        fees=OwnFees(),
        purse=coins,
    )


def on_chain(world: World, party: Party) -> Side:
    """Return a side whose commitment went on chain with a child that paid for both."""
    side = pair_of(world, party, terms=ZERO_FEE).leaver
    side.preimages = knowing(*range(8))
    tx = side.finished.tx
    move = next_move(tx, bumping(5, purse(world, party, 20_000)), Family())
    assert move is not None
    assert move.child is not None
    child = sign_child(SIGNERS[party], move.child)
    world.ledger.submit_package([tx, child], None)
    world.mine()
    assert tx.txid in world.heights
    return side


def htlcs_due(side: Side) -> list[TakingTx]:
    return [
        action.due
        for action in side.actions()
        if isinstance(action, NeedsChild) and isinstance(action.due, TakingTx)
    ]


@pytest.mark.parametrize("party", list(Party), ids=lambda party: party.name.lower())
def test_each_is_mined_at_its_feerate_out_of_a_coin_of_its_own(world: World, party: Party) -> None:
    side = on_chain(world, party)
    spends = htlcs_due(side)
    assert spends
    for spend in spends:
        (coin_sat,) = {coin_needed_sat(without_coins(spend), bumping(10, None))}
        paid = paid_for(spend, bumping(10, purse(world, party, coin_sat)))
        tx = sign(party, paid)
        assert tx.vsize == paid.vsize
        assert paid.fee_sat == 10 * tx.vsize
        assert tx.outputs[0] == spend.tx.outputs[0], "what the peer signed stays as it is"
        world.submit(tx)
        world.mine()
        assert tx.txid in world.heights
        assert without_coins(paid) == without_coins(spend)
    assert htlcs_due(side) == []


def test_a_small_coin_is_not_enough_and_a_second_makes_it_up(world: World) -> None:
    side = on_chain(world, Party.OPENER)
    spend = htlcs_due(side)[0]
    needed_sat = coin_needed_sat(without_coins(spend), bumping(10, None))
    short = purse(world, Party.OPENER, needed_sat - 1)
    assert paid_for(spend, bumping(10, short)) == spend
    both = purse(world, Party.OPENER, needed_sat - 1, 2_000)
    paid = paid_for(spend, bumping(10, both))
    assert len(paid.inputs) == 3
    world.submit(sign(Party.OPENER, paid))


def test_again_it_replaces_what_waits_at_a_higher_fee(world: World) -> None:
    side = on_chain(world, Party.OPENER)
    spend, coins = htlcs_due(side)[0], purse(world, Party.OPENER, 30_000)
    first, second = (sign(Party.OPENER, paid_for(spend, bumping(rate, coins))) for rate in (5, 6))
    world.submit(first)
    world.submit(second)
    world.mine()
    assert (first.txid in world.heights, second.txid in world.heights) == (False, True)


def test_a_budget_ends_what_is_paid(world: World) -> None:
    side = on_chain(world, Party.OPENER)
    spend, coins = htlcs_due(side)[0], purse(world, Party.OPENER, 30_000)
    assert paid_for(spend, bumping(50, coins, budget_sat=1_234)).fee_sat == 1_234
    assert paid_for(spend, bumping(50, coins, budget_sat=10)) == spend
    assert coin_needed_sat(without_coins(spend), bumping(50, None, budget_sat=10)) == 0
