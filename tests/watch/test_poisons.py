"""Poisons get into a block by a child of their receiver's own output, and nobody else's coin."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest
from tests.factory import oracle
from tests.factory.advance_chain import AdvanceChain, fresh_chain, receivers_child, signature_of
from tests.factory.advance_chain import signed as everybodys
from tests.factory.test_advance_kernel import forced, sold_out

from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taptweak
from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.crypto import schnorr
from cromford.crypto.keys import xonly_of, xonly_tweak_seckey
from cromford.factory.leaf import Leaf
from cromford.factory.poison import payout_script
from cromford.factory.terms import FeePolicy
from cromford.signing.keychain import FactoryKey
from cromford.watch.bumping import (
    Bumping,
    ChildTx,
    Family,
    OwnOutput,
    PublishWith,
    coin_needed_sat,
    next_move,
)
from cromford.watch.feerates import OwnFees
from cromford.watch.poisons import (
    SignedPoison,
    arriving_sat,
    left_behind,
    signed_poisons,
    sweep_of,
    to_publish,
)

KEY: Final = FactoryKey(attempt=7)
WALLET: Final = payout_script(oracle.pubkey("client funding", 1))  # Any taproot output will do.
FEES: Final = OwnFees()
ALONE: Final = Family()
POLICIES = pytest.mark.parametrize("policy", list(FeePolicy), ids=lambda policy: policy.label)


@pytest.fixture(scope="module")
def world() -> Iterator[AdvanceChain]:
    with fresh_chain() as world:
        yield world


def held_by(leaf: Leaf, client: int, state_index: int = 0) -> tuple[SignedPoison, SignedPoison]:
    """Return the poisons of a state that a client holds: its channel's, the L-stock's."""
    channel, stock = leaf.channel_poison(state_index, client), leaf.stock_poison(state_index)
    first, second = signed_poisons(
        leaf,
        state_index,
        client,
        channel=signature_of(channel.task),
        stock=signature_of(stock.task),
    )
    return first, second


def bumping_of(held: SignedPoison, *, feerate: int, budget_sat: int | None = None) -> Bumping:
    assert held.own_vout is not None
    return Bumping(
        fee_sat=held.poison.fee_sat,
        feerate_sat_per_kw=feerate,
        budget_sat=held.own_sat // 2 if budget_sat is None else budget_sat,
        fees=FEES,
        own=OwnOutput(vout=held.own_vout, key=KEY, payout_script=WALLET),
    )


def child_of(held: SignedPoison, bumping: Bumping, family: Family = ALONE) -> ChildTx | None:
    move = next_move(held.tx, bumping, family)
    return None if move is None else move.child


def signed(tx: Tx, prevouts: tuple[TxOut, ...], client: int) -> Tx:
    """Return what a client's factory key signs alone, as its signer does."""
    tweak = taptweak(xonly_of(oracle.pubkey("factory", client)), None)
    seckey = xonly_tweak_seckey(oracle.seckey("factory", client), tweak)
    return tx.with_witnesses(
        *(
            (schnorr.sign(taproot_sighash(tx, prevouts=prevouts, input_index=n), seckey),)
            for n in range(len(prevouts))
        )
    )


@POLICIES
def test_a_poison_and_its_child_pay_what_is_wanted_out_of_the_clients_own_output(
    world: AdvanceChain, policy: FeePolicy
) -> None:
    leaf = sold_out(world, 2, policy)
    forced(world, leaf, 0)
    for held in held_by(leaf, 2):
        feerate = 2_500
        unsigned = child_of(held, bumping_of(held, feerate=feerate))
        assert unsigned is not None
        assert unsigned.paths == (KEY,)
        child = signed(unsigned.tx, unsigned.prevouts, 2)
        assert child.weight == unsigned.weight
        world.submit(held.tx, child)
        weight = held.tx.weight + child.weight
        paid_sat = held.poison.fee_sat + unsigned.fee_sat
        assert feerate <= 1000 * paid_sat / weight < feerate + 30
        assert [output.script_pubkey for output in child.outputs] == [WALLET]
    mined = {tx.txid for tx in world.ledger.mine(b"\x51").block.txs}
    assert {held.tx.txid for held in held_by(leaf, 2)} <= mined


def test_a_neighbours_child_is_left_alone_while_it_pays_and_outbid_when_it_does_not(
    world: AdvanceChain,
) -> None:
    leaf = sold_out(world, 2, FeePolicy.ENDOGENOUS)
    forced(world, leaf, 0)
    _, stock = held_by(leaf, 2)
    (_, neighbours) = held_by(leaf, 1)
    assert neighbours.own_vout is not None
    theirs = receivers_child(stock.tx, neighbours.own_vout, client=1, fee_sat=600)
    world.submit(stock.tx, theirs)
    family = Family(is_waiting=True, child=FeeAndWeight(600, theirs.weight))
    assert next_move(stock.tx, bumping_of(stock, feerate=600), family) is None
    better = child_of(stock, bumping_of(stock, feerate=2_000), family)
    assert better is not None
    assert better.fee_sat > 600
    world.submit(signed(better.tx, better.prevouts, 2))
    assert theirs.txid not in world.ledger.mempool


def test_a_child_never_costs_more_than_the_budget_and_leaves_an_output(
    world: AdvanceChain,
) -> None:
    leaf = sold_out(world, 2, FeePolicy.ENDOGENOUS)
    channel, _ = held_by(leaf, 1)
    for budget_sat in (0, 100, 500, channel.own_sat):
        bumping = bumping_of(channel, feerate=2_500_000, budget_sat=budget_sat)
        child = child_of(channel, bumping)
        assert coin_needed_sat(channel.tx, bumping) == 0, "no coin of a wallet is asked for"
        if child is not None:
            assert child.fee_sat <= budget_sat
            assert child.tx.outputs[0].amount_sat >= 330
    assert child is not None
    assert next_move(channel.tx, bumping_of(channel, feerate=500), Family()) == PublishWith()


def test_what_poisons_paid_is_swept_together_once_they_are_in_blocks(world: AdvanceChain) -> None:
    leaf = sold_out(world, 2, FeePolicy.ENDOGENOUS)
    forced(world, leaf, 1)
    held = held_by(leaf, 1, 1)
    coming_sat = sum(one.own_sat for one in held)
    spends: dict[OutPoint, Tx] = {}
    assert [*to_publish(held, {})] == [*held]
    assert arriving_sat(held, {}) == coming_sat
    assert sweep_of(held, spends={}, heights={}, payout_script=WALLET, fees=FEES) is None
    for one in held:
        world.submit(one.tx)
    world.ledger.mine(b"\x51")
    spends = {one.spends: one.tx for one in held}
    heights = {one.tx.txid: world.height for one in held}
    sweep = sweep_of(held, spends=spends, heights=heights, payout_script=WALLET, fees=FEES)
    assert sweep is not None
    tx = signed(sweep.tx, sweep.prevouts, 1)
    assert tx.vsize == sweep.vsize
    assert world.ledger.submit(tx).fee_sat == sweep.fee_sat
    assert tx.outputs[0].amount_sat == coming_sat - sweep.fee_sat
    spends |= {tx_in.outpoint: tx for tx_in in tx.inputs}
    assert arriving_sat(held, spends) == 0
    assert sweep_of(held, spends=spends, heights=heights, payout_script=WALLET, fees=FEES) is None
    dear = replace(FEES, estimates=((144, 2_400_000),))
    found = left_behind(held, spends={}, heights=heights, fees=dear)
    assert [one.amount_sat for one in found] == [one.own_sat for one in held]


def test_nothing_comes_of_a_poison_in_whose_place_something_else_took_the_output(
    world: AdvanceChain,
) -> None:
    leaf = sold_out(world, 2, FeePolicy.ENDOGENOUS)
    channel, stock = held_by(leaf, 1)
    spends = {channel.spends: everybodys(leaf.kickoff)}
    assert [*to_publish((channel, stock), spends)] == [stock]
    assert arriving_sat((channel, stock), spends) == stock.own_sat
