"""What becomes of what poisons pay a client: taken together, worth its fee, or left."""

from types import SimpleNamespace
from typing import Any, Final

import pytest
from tests.factory.test_leaf import buy, one_leaf

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.watch.channel_exit import LeftBehind
from cromford.watch.feerates import OwnFees
from cromford.watch.poisons import (
    PayoutTx,
    SignedPoison,
    arriving_sat,
    left_behind,
    signed_poisons,
    sweep_of,
)

SCRIPT: Final = b"\x51\x20" + b"\x01" * 32
WALLET: Final = b"\x51\x20" + b"\x02" * 32
ME: Final = 2
# At 4 sat/vB an input of 57.5 vbytes costs 232 sat, and a transaction of one 444, of two 676.
DAY: Final = OwnFees(estimates=((144, 1_000),))


def poison(number: int, amount_sat: int | None) -> SignedPoison:
    """Return a poison that pays somebody else 5,000 sat, and the client this; None for nothing."""
    shares = {1: 5_000} if amount_sat is None else {1: 5_000, ME: amount_sat}
    told: Any = SimpleNamespace(name=f"poison {number}", shares_sat=shares, clients=tuple(shares))
    outpoint = OutPoint(txid=Txid(number.to_bytes(32, "big")), vout=0)
    tx = Tx(
        version=3,
        inputs=(TxIn(outpoint=outpoint, nsequence=0xFFFF_FFFD),),
        outputs=tuple(TxOut(amount_sat=sat, script_pubkey=SCRIPT) for sat in shares.values()),
    )
    return SignedPoison(poison=told, tx=tx, client=ME)


def spending(outpoint: OutPoint) -> Tx:
    return Tx(version=2, inputs=(TxIn(outpoint=outpoint, nsequence=0),), outputs=())


def swept(*poisons: SignedPoison, fees: OwnFees = DAY, **chain: Any) -> PayoutTx | None:
    heights = {one.tx.txid: 100 for one in poisons}
    return sweep_of(
        poisons, **{"spends": {}, "heights": heights, **chain}, payout_script=WALLET, fees=fees
    )


def test_whom_a_poison_pays_nothing_has_nothing_to_take_or_to_wait_for() -> None:
    none = poison(1, None)
    assert (none.own_sat, none.own_vout, none.own_outpoint) == (0, None, None)
    assert arriving_sat([none], {}) == 0
    assert swept(none) is None
    assert left_behind([none], spends={}, heights={none.tx.txid: 100}, fees=DAY) == ()


def test_what_is_worth_its_fee_goes_together_and_nothing_else_with_it() -> None:
    large, small, least = poison(1, 9_000), poison(2, 232), poison(3, 233)
    sweep = swept(large, small, least)
    assert sweep is not None
    assert [tx_in.outpoint for tx_in in sweep.tx.inputs] == [
        large.tx.outpoint(1),
        least.tx.outpoint(1),
    ]
    assert [prevout.amount_sat for prevout in sweep.prevouts] == [9_000, 233]
    assert (sweep.vsize, sweep.fee_sat) == (169, 4 * 169)
    assert sweep.tx.outputs == (TxOut(amount_sat=9_233 - 676, script_pubkey=WALLET),)
    heights = {one.tx.txid: 100 for one in (large, small, least)}
    left = left_behind([large, small, least], spends={}, heights=heights, fees=DAY)
    assert left == (LeftBehind(name="poison 2", outpoint=small.tx.outpoint(1), amount_sat=232),)


@pytest.mark.parametrize(("amount_sat", "is_taken"), [(773, False), (774, True)])
def test_what_would_leave_less_than_dust_waits(amount_sat: int, *, is_taken: bool) -> None:
    sweep = swept(poison(1, amount_sat))
    assert (sweep is not None) is is_taken
    if sweep is not None:
        assert sweep.tx.outputs[0].amount_sat == 330


def test_on_a_day_that_nobody_should_believe_nothing_is_taken_and_all_is_left() -> None:
    one = poison(1, 1_000_000)
    strange = OwnFees(estimates=((144, 250_001),))
    assert swept(one, fees=strange) is None
    (left,) = left_behind([one], spends={}, heights={one.tx.txid: 100}, fees=strange)
    assert left.amount_sat == 1_000_000


def test_only_what_is_in_a_block_and_unspent_is_taken() -> None:
    one = poison(1, 9_000)
    own = one.tx.outpoint(1)
    assert swept(one) is not None
    assert swept(one, heights={}) is None
    assert swept(one, spends={own: spending(own)}) is None
    assert arriving_sat([one], {}) == 9_000, "it will be published"
    assert arriving_sat([one], {one.spends: one.tx}) == 9_000
    assert arriving_sat([one], {one.spends: one.tx, own: spending(own)}) == 0
    assert arriving_sat([one], {one.spends: spending(one.spends)}) == 0


def test_a_client_holds_the_poisons_that_it_has_signatures_of_and_no_other() -> None:
    leaf = buy(one_leaf([101_000, 102_000], 101_500), 1, 50_000)
    assert signed_poisons(leaf, 0, 1, channel=None, stock=None) == ()
