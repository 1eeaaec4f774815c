"""What is taken together and what alone, by what is known of the mempool and of sweeps before."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.watch.test_joint_sweep import CHEAP, DEAR, remembered
from tests.watch.test_lsp_sweep import EXPIRY, Shown, small_tree

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.watch.joint_sweep import (
    JointSweep,
    SignedJoint,
    SweepPlan,
    joint_sweep,
    passes,
    plan_sweeps,
)
from cromford.watch.lsp_sweep import SweepTx

STRANGER: Final = Txid(b"\x55" * 32)


@cache
def due() -> tuple[SweepTx, ...]:
    """Return three sweeps that are due, alike but for what they spend."""
    sweep = Shown(small_tree("dw"), fees=DEAR).sweep("expiry_sweep funding")
    txid = sweep.output.outpoint.txid
    return tuple(
        replace(sweep, output=replace(sweep.output, outpoint=OutPoint(txid=txid, vout=number)))
        for number in range(3)
    )


def places(sweeps: tuple[SweepTx, ...]) -> list[int]:
    return [sweep.output.outpoint.vout for sweep in sweeps]


def together() -> JointSweep:
    return joint_sweep(due()[:2], fees=DEAR, since_height=EXPIRY)


def plan(
    *known: SignedJoint, spent_by: dict[int, Txid] | None = None, height: int = EXPIRY
) -> SweepPlan:
    spenders = {due()[number].output.outpoint: txid for number, txid in (spent_by or {}).items()}
    return plan_sweeps(
        due(),
        spenders=spenders,
        known={joint.txid: joint for joint in known},
        height=height,
        fees=DEAR,
    )


def test_what_nobody_spends_goes_together_whatever_was_signed_before() -> None:
    """A joint sweep that left the mempool, and was refused by nobody, is signed anew."""
    for known in ((), (remembered(together()),)):
        found = plan(*known)
        (joint,) = found.joint
        assert (places(joint.members), found.alone, found.parted) == ([0, 1, 2], (), ())
        assert joint.since_height == EXPIRY


def test_what_was_parted_goes_alone_for_good_and_the_rest_too_where_it_is_one() -> None:
    parted = replace(remembered(together()), is_parted=True)
    found = plan(parted)
    assert (found.joint, found.parted) == ((), ())
    assert sorted(places(found.alone)) == [0, 1, 2]


def test_what_a_stranger_spends_goes_alone_and_the_others_together() -> None:
    found = plan(spent_by={1: STRANGER})
    (joint,) = found.joint
    assert (places(joint.members), places(found.alone)) == ([0, 2], [1])


def test_what_waits_is_left_for_a_day_and_then_the_largest_takes_its_place() -> None:
    known = remembered(together())
    waiting = {0: known.txid, 1: known.txid}
    young = plan(known, spent_by=waiting, height=EXPIRY + SWEEP_BLOCKS - 1)
    assert (young.joint, places(young.alone), young.parted) == ((), [2], ())
    old = plan(known, spent_by=waiting, height=EXPIRY + SWEEP_BLOCKS)
    assert (old.joint, old.parted) == ((), (known.txid,))
    replacing, other = sorted(old.alone, key=lambda sweep: sweep.output.outpoint.vout)
    assert places((replacing, other)) == [0, 2]
    assert replacing.fee_sat > known.fee_sat > other.fee_sat
    parted = replace(known, is_parted=True)
    still = plan(parted, spent_by=waiting)
    assert (sorted(places(still.alone)), still.parted) == ([0, 2], ()), "it is told once"


def test_what_is_signed_again_waits_since_it_was_first_taken_together() -> None:
    old = replace(
        remembered(together()), txid=Txid(b"\x66" * 32), fee_sat=100, since_height=EXPIRY - 10
    )
    found = plan(old, spent_by={0: old.txid, 1: old.txid})
    (again,) = found.joint
    assert (places(again.members), again.since_height) == ([0, 1], EXPIRY - 10)
    refused = replace(remembered(again), is_parted=True)
    assert plan(old, refused, spent_by={0: old.txid, 1: old.txid}).joint == ()


def test_of_what_waits_nothing_is_signed_again_while_a_part_of_it_is_not_due() -> None:
    """Else the inputs that are missing would be anybody's again."""
    old = replace(remembered(together()), txid=Txid(b"\x66" * 32), fee_sat=100)
    spenders = {one.output.outpoint: old.txid for one in due()[:2]}
    for n_due in (1, 2):
        found = plan_sweeps(
            due()[:n_due], spenders=spenders, known={old.txid: old}, height=EXPIRY, fees=DEAR
        )
        assert len(found.joint) == n_due - 1
        assert found.alone == ()


def test_the_first_ones_script_is_paid_for_all() -> None:
    first, second, _ = due()
    script = b"\x51\x20" + b"\x09" * 32
    output = replace(second.tx.outputs[0], script_pubkey=script)
    other = replace(second, tx=replace(second.tx, outputs=(output,)))
    for members, paid in (
        ((first, other), first.tx.outputs[0].script_pubkey),
        ((other, first), script),
    ):
        (payout,) = joint_sweep(members, fees=DEAR, since_height=EXPIRY).tx.outputs
        assert payout.script_pubkey == paid


def without_rival(sweep: SweepTx) -> SweepTx:
    return replace(sweep, output=replace(sweep.output, rival=None))


def paying(sweep: SweepTx, fee_sat: int) -> SweepTx:
    """Return a sweep that pays this where it goes alone."""
    output = replace(sweep.tx.outputs[0], amount_sat=sweep.prevout.amount_sat - fee_sat)
    return replace(sweep, tx=replace(sweep.tx, outputs=(output,)))


def planned(*sweeps: SweepTx, fees: OwnFees = DEAR) -> SweepPlan:
    return plan_sweeps(sweeps, spenders={}, known={}, height=EXPIRY, fees=fees)


def test_outputs_that_no_transaction_of_a_tree_spends_pay_the_days_rate_together() -> None:
    stocks = [without_rival(sweep) for sweep in due()]
    (joint,) = planned(*stocks).joint
    assert joint.fee_sat == fee_sat_of(vsize=joint.vsize, feerate_sat_per_kw=10_000)


def test_together_goes_what_costs_no_more_than_alone_to_the_satoshi() -> None:
    pair = [without_rival(sweep) for sweep in due()[:2]]
    joint_sat = joint_sweep(pair, fees=DEAR, since_height=EXPIRY).fee_sat
    for saved_sat, n_joint in ((0, 1), (1, 1), (-1, 0)):
        sweeps = paying(pair[0], 500), paying(pair[1], joint_sat + saved_sat - 500)
        found = planned(*sweeps)
        assert (len(found.joint), len(found.alone)) == (n_joint, 2 * (1 - n_joint))


def test_who_has_a_dear_rival_goes_alone_before_who_has_none() -> None:
    """On a cheap day the tree's 500 sat per 1,000 weight units are dear."""
    first, second, third = due()
    stocks = [paying(without_rival(sweep), 100) for sweep in (first, second)]
    dear = paying(third, 300)
    for order in ((*stocks, dear), (dear, *stocks), (stocks[0], dear, stocks[1])):
        found = planned(*order, fees=CHEAP)
        assert found.alone == (dear,)
        (joint,) = found.joint
        assert list(joint.members) == stocks


def test_the_largest_takes_a_place_as_long_as_dust_is_left() -> None:
    """330 sat are the least that an output of taproot may hold."""
    known = remembered(together())
    waiting = {0: known.txid, 1: known.txid}
    (first, _) = plan(known, spent_by=waiting, height=EXPIRY + SWEEP_BLOCKS).alone
    relay_sat = first.fee_sat - known.fee_sat
    most_sat = first.prevout.amount_sat - 330 - relay_sat
    for fee_sat, n_alone in ((most_sat, 2), (most_sat + 1, 1)):
        poor = replace(known, fee_sat=fee_sat, weight=10**6)
        found = plan(poor, spent_by=waiting, height=EXPIRY + SWEEP_BLOCKS)
        assert len(found.alone) == n_alone
        assert all(one.tx.outputs[0].amount_sat >= 330 for one in found.alone)


@pytest.mark.parametrize(
    ("reason", "is_passing"),
    [
        ("mempool full", True),
        ("mempool min fee not met, 100 < 200", True),
        ("min relay fee not met, 1 < 2", True),
        ("non-final", True),
        ("non-BIP68-final", True),
        ("insufficient fee, rejecting replacement", False),
        ("bad-txns-inputs-missingorspent", False),
        ("", False),
    ],
)
def test_what_is_refused_for_a_reason_that_passes_is_tried_together_again(
    reason: str, *, is_passing: bool
) -> None:
    assert passes(reason) is is_passing
