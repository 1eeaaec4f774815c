"""What is published now of what pays too little, in numbers: alone, with coins, with anchors.

A parent of 124 vbytes that pays 124 sat; a child of its anchor and one coin has 153, each further
coin 57.5; one of the anchor alone 65, each further anchor 41.
"""

from dataclasses import replace
from typing import Final

import pytest

from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.wallet.account import WalletPath
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import (
    ANCHOR_CHILD_WEIGHT,
    NOBODY_SCRIPT,
    ONE_COIN_WEIGHT,
    Bumping,
    ChildTx,
    Family,
    PublishWith,
    Rival,
    coin_needed_sat,
    next_move,
)
from cromford.watch.feerates import OwnFees

SAT_PER_VB: Final = 250
COIN_SCRIPT: Final = b"\x51\x20" + b"\x01" * 32
CHANGE_SCRIPT: Final = b"\x51\x20" + b"\x02" * 32
ALONE: Final = Family()
WAITING: Final = Family(is_waiting=True)


def outpoint(number: int) -> OutPoint:
    return OutPoint(txid=Txid(number.to_bytes(32, "big")), vout=0)


def parent_of(*outputs: TxOut) -> Tx:
    tx = Tx(
        version=3,
        inputs=(TxIn(outpoint=outpoint(1), nsequence=0),),
        outputs=(TxOut(amount_sat=10_000, script_pubkey=COIN_SCRIPT), *outputs),
    )
    return tx.with_witnesses((bytes(64),))


PARENT: Final = parent_of(TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT))
NO_ANCHOR: Final = parent_of()


def purse_of(*coins_sat: int) -> Purse:
    return Purse(
        coins=tuple(
            SpentCoin(
                outpoint=outpoint(100 + n),
                txout=TxOut(amount_sat=amount_sat, script_pubkey=COIN_SCRIPT),
                path=WalletPath(change=0, index=n),
            )
            for n, amount_sat in enumerate(coins_sat)
        ),
        change_script=CHANGE_SCRIPT,
    )


def wanted(
    sat_per_vb: int,
    *coins_sat: int,
    fee_sat: int = 124,
    budget_sat: int = 100_000,
    minimum: int = 25,
    n_spare: int = 0,
) -> Bumping:
    return Bumping(
        fee_sat=fee_sat,
        feerate_sat_per_kw=sat_per_vb * SAT_PER_VB,
        budget_sat=budget_sat,
        fees=OwnFees(mempool_min_sat_per_kw=minimum, min_relay_sat_per_kw=25),
        purse=purse_of(*coins_sat) if coins_sat else None,
        spare_anchors=tuple(outpoint(200 + n) for n in range(n_spare)),
    )


def child_of(bumping: Bumping, family: Family = ALONE) -> ChildTx:
    move = next_move(PARENT, bumping, family)
    assert isinstance(move, PublishWith)
    assert move.child is not None
    return move.child


def spent(child: ChildTx) -> list[int]:
    """Return what a child spends beside the anchor, in sat."""
    assert child.tx.inputs[0].outpoint == PARENT.outpoint(1)
    assert child.prevouts[0] == PARENT.outputs[1]
    assert child.paths[0] is None
    return [prevout.amount_sat for prevout in child.prevouts[1:]]


@pytest.mark.parametrize("family", [ALONE, WAITING])
def test_what_pays_what_is_wanted_has_no_child_and_a_satoshi_less_has_one(family: Family) -> None:
    enough = next_move(PARENT, wanted(2, 50_000, fee_sat=248), family)
    assert enough == (None if family.is_waiting else PublishWith())
    assert coin_needed_sat(PARENT, wanted(2, fee_sat=248)) == 0
    # Both pay 277 vbytes at 2 sat/vB.
    assert child_of(wanted(2, 50_000, fee_sat=247), family).fee_sat == 554 - 247


def test_what_waits_with_a_child_that_pays_enough_is_left_alone_whose_ever_it_is() -> None:
    """Together they have 1,000 vbytes, and 10 sat/vB is wanted."""
    family = Family(is_waiting=True, child=FeeAndWeight(9_876, 4 * 876))
    assert next_move(PARENT, wanted(10, 50_000), family) is None
    less = replace(family, child=FeeAndWeight(9_875, 4 * 876))
    # In its place: its fee, and the relay of 153 vbytes at 0.1 sat/vB.
    assert child_of(wanted(10, 50_000), less).fee_sat == 9_875 + 16
    # It pays enough by itself, so whatever poor child a stranger gave it is left to it.
    poor = replace(family, child=FeeAndWeight(100, 4 * 876))
    assert next_move(PARENT, wanted(2, 50_000, fee_sat=248), poor) is None


def test_without_coins_what_waits_goes_on_waiting_and_what_does_not_is_offered() -> None:
    """The anchor's 240 sat do not reach for 5 sat/vB, which a mempool asks for itself."""
    bumping = wanted(6, minimum=1_250)
    assert next_move(PARENT, bumping, WAITING) is None
    assert next_move(PARENT, bumping, ALONE) == PublishWith()
    assert next_move(NO_ANCHOR, wanted(6, 50_000), ALONE) == PublishWith()
    assert next_move(NO_ANCHOR, wanted(6, 50_000), WAITING) is None


def test_the_fewest_coins_that_reach_are_spent_the_largest_first() -> None:
    # 277 vbytes at 10 sat/vB less the parent's 124: 2,646 sat, and a change of 330.
    one = child_of(wanted(10, 700, 2_736, 500))
    assert spent(one) == [2_736]
    assert one.fee_sat == 2_646
    assert one.tx.outputs == (TxOut(amount_sat=330, script_pubkey=CHANGE_SCRIPT),)
    assert one.paths[1] == WalletPath(change=0, index=1)
    # Where it holds less, the next one is added: 57 vbytes more.
    two = child_of(wanted(10, 1_700, 2_716, 500))
    assert spent(two) == [2_716, 1_700]
    assert two.fee_sat == 2_646 + 570
    # These two pay 3,216 sat and have 330 sat left; a third would be no more than a larger child.
    assert spent(child_of(wanted(10, 1_700, 1_606, 1_000))) == [1_700, 1_606]


def test_where_all_coins_are_too_few_the_best_child_is_offered() -> None:
    """One that adds less than its input costs makes it no better, and what follows it may."""
    best = child_of(wanted(50, 3_000, 340, 331))
    assert spent(best) == [3_000]
    assert best.fee_sat == 240 + 3_000 - 330
    # With both it would pay as much for each weight unit, 2 sat, and no more.
    assert spent(child_of(wanted(50, 2_176, 460))) == [2_176]
    # Alone, not even the largest pays what a mempool takes; together they do.
    assert spent(child_of(wanted(10, *(150,) * 8))) == [150] * 8


def test_what_lifts_a_parent_by_a_little_is_offered_too() -> None:
    """Below 4 sat/vB, so less than a satoshi for each weight unit."""
    assert spent(child_of(wanted(2, 50_000))) == [50_000]
    assert child_of(wanted(2)).fee_sat == 240


def test_a_child_has_a_thousand_virtual_bytes_at_most() -> None:
    """Fifteen coins, and 958 vbytes: with sixteen it would be refused (BIP 431)."""
    child = child_of(wanted(1_000, *(10_000,) * 17, budget_sat=1_000_000))
    assert len(spent(child)) == 15
    assert child.tx.inputs[1:] == tuple(
        TxIn(outpoint=outpoint(100 + n), nsequence=0xFFFF_FFFD) for n in range(15)
    )


def test_no_child_costs_more_than_it_may() -> None:
    child = child_of(wanted(10, 50_000, budget_sat=1_000))
    assert child.fee_sat == 1_000
    # One that waits pays too little for a mempool that asks for 3 sat/vB; its child does not.
    poor = wanted(10, 50_000, budget_sat=459, minimum=750)
    assert child_of(poor, WAITING).fee_sat == 459
    assert spent(child_of(replace(poor, budget_sat=458), WAITING)) == []
    # Less than the anchor holds already buys nothing better than that.
    assert child_of(wanted(10, 50_000, budget_sat=100)).tx.outputs[0].script_pubkey == NOBODY_SCRIPT


def test_without_coins_the_fewest_anchors_that_reach_pay_and_nobody_is_paid() -> None:
    # 124 + 65 vbytes: 364 sat are 1.92 sat/vB; with a second anchor 604 sat for 230 are 2.62.
    one = child_of(wanted(1, fee_sat=100, n_spare=3))
    assert spent(one) == []
    assert one.tx.outputs == (TxOut(amount_sat=0, script_pubkey=NOBODY_SCRIPT),)
    two = child_of(wanted(2, n_spare=3))
    assert spent(two) == [240]
    assert two.tx.inputs[1].outpoint == outpoint(200)
    # More than all of them reach: the best is offered, of eight at most.
    assert spent(child_of(wanted(50, n_spare=12))) == [240] * 7
    # A mempool asks for 3 sat/vB, which two do not pay together with the parent, and three do.
    assert spent(child_of(wanted(3, minimum=750, n_spare=3))) == [240] * 2
    assert next_move(PARENT, wanted(3, minimum=750, n_spare=1), ALONE) == PublishWith()


def test_anchors_that_just_reach_for_what_a_mempool_takes_are_offered() -> None:
    """In the place of a child of 65 vbytes: its fee, and 6.5 sat for the relay."""
    theirs = Family(is_waiting=True, child=FeeAndWeight(233, 260))
    assert child_of(wanted(10), theirs).fee_sat == 240
    theirs = replace(theirs, child=FeeAndWeight(234, 260))
    assert next_move(PARENT, wanted(10), theirs) is None


def rival_of(fee_sat: int, *, vsize: int = 200, txid: Txid | None = None) -> Family:
    """Return that a rival of some size waits in the place of our parent."""
    family = FeeAndWeight(fee_sat, 4 * vsize)
    return Family(rival=Rival(fee_sat=fee_sat, family=family, txid=txid or Txid(b"r" * 32)))


def test_a_rival_is_left_alone_only_if_it_is_as_good_and_pays_enough() -> None:
    twin = Txid(b"t" * 32)
    bumping = wanted(10, 50_000)
    assert child_of(bumping, rival_of(2_000)).fee_sat == 2_770 - 124
    # BIP 125: its fee, and the relay of 277 vbytes; and a miner has to gain by each weight unit.
    assert child_of(bumping, rival_of(5_000, vsize=1_000)).fee_sat == 5_000 + 28 - 124
    assert child_of(bumping, rival_of(5_000)).fee_sat == 6_908 - 124
    assert next_move(PARENT, replace(bumping, gives_way=True), rival_of(2_000)) is None
    assert child_of(replace(bumping, gives_way=True), rival_of(1_999)).fee_sat == 2_770 - 124
    of_twins = replace(bumping, twins=(twin,))
    assert next_move(PARENT, of_twins, rival_of(2_000, txid=twin)) is None
    assert child_of(of_twins, rival_of(2_000)).fee_sat == 2_770 - 124
    # Not one that pays enough itself, and not alone, which no mempool would take.
    assert child_of(wanted(2, 50_000, fee_sat=248), rival_of(100)).fee_sat == 554 - 248


def test_what_spares_its_rivals_goes_alone_against_one_that_pays_enough() -> None:
    bumping = replace(wanted(10, 50_000), spares_rivals=True)
    assert next_move(PARENT, bumping, rival_of(2_000)) == PublishWith()
    assert child_of(bumping, rival_of(1_999)).fee_sat == 2_770 - 124


def test_what_it_pays_us_itself_is_the_coin_of_its_child() -> None:
    bumping = wanted(10)
    path = WalletPath(change=1, index=4)
    assert bumping.with_own_output(PARENT, path) == bumping, "it pays nobody's own script"
    own = replace(bumping, own_script=COIN_SCRIPT)
    assert own.with_own_output(PARENT, None) == own, "it is no script of this wallet"
    other = replace(bumping, own_script=CHANGE_SCRIPT)
    assert other.with_own_output(PARENT, path) == other, "it pays somebody else"
    child = child_of(own.with_own_output(PARENT, path))
    assert spent(child) == [10_000]
    assert child.tx.inputs[1].outpoint == PARENT.outpoint(0)
    assert child.paths == (None, path)
    assert child.tx.outputs == (TxOut(amount_sat=10_240 - 2_646, script_pubkey=COIN_SCRIPT),)


def test_of_what_pays_us_the_largest_is_the_coin_whoever_else_is_paid_there() -> None:
    ours = [TxOut(amount_sat=amount_sat, script_pubkey=COIN_SCRIPT) for amount_sat in (330, 9_000)]
    own = replace(wanted(10), own_script=COIN_SCRIPT)
    path = WalletPath(change=1, index=4)
    for outputs in (ours, ours[::-1]):
        tx = replace(PARENT, outputs=(*outputs, PARENT.outputs[-1]))
        purse = own.with_own_output(tx, path).purse
        assert purse is not None
        (coin,) = purse.coins
        assert coin.txout == ours[1]
        assert coin.outpoint == tx.outpoint(outputs.index(ours[1]))


def test_how_much_a_coin_has_to_hold() -> None:
    """What a child pays, and 330 sat of change; no more than it may cost."""
    assert coin_needed_sat(PARENT, wanted(10)) == 2_646 + 330
    assert coin_needed_sat(PARENT, wanted(10, budget_sat=1_000)) == 1_000 + 330
    # The least that a mempool takes of 153 vbytes at 1 sat/vB.
    assert coin_needed_sat(PARENT, wanted(10, budget_sat=153, minimum=250)) == 153 + 330
    assert coin_needed_sat(PARENT, wanted(10, budget_sat=152, minimum=250)) == 0
    # Without an anchor it is an input more of the transaction itself, and an output.
    assert coin_needed_sat(NO_ANCHOR, wanted(10)) == 10 * (111 + 58 + 43) + 330


def test_the_sizes_that_are_reckoned_with_ahead_are_those_of_the_children() -> None:
    assert child_of(wanted(10, 50_000)).weight == ONE_COIN_WEIGHT == 609
    assert child_of(wanted(10)).weight == ANCHOR_CHILD_WEIGHT == 4 * 65
