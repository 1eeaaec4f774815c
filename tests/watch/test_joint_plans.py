"""What is taken together and what alone, by what is known of the mempool and of sweeps before."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.watch.test_joint_sweep import DEAR, remembered
from tests.watch.test_lsp_sweep import EXPIRY, Shown, small_tree

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.watch.feerates import SWEEP_BLOCKS
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
