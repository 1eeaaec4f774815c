"""Fees round up to the satoshi; sizes are the sizes of real transactions."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin import fees
from cromford.bitcoin.script import ANCHOR_SCRIPT, p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut


@given(vsize=st.integers(1, 100_000), feerate=st.integers(0, 10_000_000))
def test_a_fee_is_the_feerate_times_the_weight_rounded_up(vsize: int, feerate: int) -> None:
    fee_sat = fees.fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate)
    assert fee_sat == ceil(Fraction(4 * vsize * feerate, 1000))
    assert fee_sat * 1000 >= 4 * vsize * feerate


@pytest.mark.parametrize(
    ("vsize", "feerate", "fee_sat"), [(124, 500, 248), (1, 1, 1), (250, 1, 1), (251, 1, 2)]
)
def test_a_fee_never_falls_short_by_rounding(vsize: int, feerate: int, fee_sat: int) -> None:
    assert fees.fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate) == fee_sat


@given(n_p2tr_outputs=st.integers(0, 250), n_anchors=st.integers(0, 2))
def test_a_key_path_tx_has_the_size_that_was_promised(n_p2tr_outputs: int, n_anchors: int) -> None:
    p2tr = TxOut(amount_sat=1, script_pubkey=p2tr_script(bytes(32)))
    anchor = TxOut(amount_sat=1, script_pubkey=ANCHOR_SCRIPT)
    spent = OutPoint(txid=Txid(bytes(32)), vout=0)
    tx = Tx(
        version=3,
        inputs=(TxIn(outpoint=spent, nsequence=0, witness=(bytes(64),)),),
        outputs=(p2tr,) * n_p2tr_outputs + (anchor,) * n_anchors,
    )
    promised = fees.keypath_tx_vsize(n_p2tr_outputs=n_p2tr_outputs, n_anchors=n_anchors)
    assert tx.vsize == promised
    assert tx.weight == 4 * promised, "nothing is lost to rounding"


def test_no_truc_tx_has_more_outputs_than_the_size_is_exact_for() -> None:
    assert fees.keypath_tx_vsize(n_p2tr_outputs=230, n_anchors=1) <= fees.TRUC_VSIZE_MAX
    assert fees.keypath_tx_vsize(n_p2tr_outputs=231, n_anchors=0) > fees.TRUC_VSIZE_MAX


def test_people_read_satoshi_per_virtual_byte() -> None:
    assert fees.sat_per_vb(500) == pytest.approx(2.0)
    assert fees.sat_per_vb(fees.MIN_RELAY_SAT_PER_KW) == pytest.approx(0.1)
