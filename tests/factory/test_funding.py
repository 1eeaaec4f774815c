"""The one transaction on chain: its form, and what it must not be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.tx import OutPoint, Txid, TxOut
from cromford.factory.funding import CHANGE_VOUT, funding_tx_of, least_higher_fee_sat
from cromford.factory.tree import FACTORY_VOUT

SCRIPT = b"\x51\x20" + b"\x07" * 32
CHANGE_SCRIPT = b"\x51\x20" + b"\x08" * 32
outpoints = st.builds(
    OutPoint,
    txid=st.binary(min_size=32, max_size=32).map(Txid),
    vout=st.integers(0, 0xFFFF_FFFF),
)


@given(
    coins=st.lists(outpoints, min_size=1, max_size=8, unique=True),
    factory_sat=st.integers(330, 10**12),
    change_sat=st.integers(10_000, 10**12),
)
def test_the_factory_comes_first_and_the_change_second(
    coins: list[OutPoint], factory_sat: int, change_sat: int
) -> None:
    factory = TxOut(amount_sat=factory_sat, script_pubkey=SCRIPT)
    change = TxOut(amount_sat=change_sat, script_pubkey=CHANGE_SCRIPT)
    tx = funding_tx_of(inputs=coins, factory_output=factory, change_output=change)
    assert (tx.version, tx.nlocktime) == (2, 0)
    assert [tx_in.outpoint for tx_in in tx.inputs] == coins
    assert {tx_in.nsequence for tx_in in tx.inputs} == {0xFFFFFFFD}
    assert {tx_in.script_sig for tx_in in tx.inputs} == {b""}
    assert tx.outputs[FACTORY_VOUT] == factory
    assert tx.outputs[CHANGE_VOUT] == change
    assert len(tx.outputs) == 2
    signed = tx.with_witnesses(*[(b"\x01" * 64,)] * len(coins))
    assert signed.txid == tx.txid, "final before it is signed"


@pytest.mark.parametrize(
    ("n_coins", "factory_sat", "change_sat", "why"),
    [
        (0, 330, 10_000, "needs a coin"),
        (1, 329, 10_000, "factory output of 329 sat is dust"),
        (1, 330, 9_999, "change of at least 10000 sat, received 9999"),
    ],
)
def test_a_funding_that_would_not_work_is_refused(
    n_coins: int, factory_sat: int, change_sat: int, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        funding_tx_of(
            inputs=[OutPoint(txid=Txid(bytes(32)), vout=0)] * n_coins,
            factory_output=TxOut(amount_sat=factory_sat, script_pubkey=SCRIPT),
            change_output=TxOut(amount_sat=change_sat, script_pubkey=CHANGE_SCRIPT),
        )


def test_a_coin_is_spent_once_however_many_others_stand_beside_it() -> None:
    coins = [OutPoint(txid=Txid(bytes((n,)) * 32), vout=0) for n in (1, 2, 1)]
    with pytest.raises(ValueError, match="spends a coin once"):
        funding_tx_of(
            inputs=coins,
            factory_output=TxOut(amount_sat=330, script_pubkey=SCRIPT),
            change_output=TxOut(amount_sat=10_000, script_pubkey=CHANGE_SCRIPT),
        )


@pytest.mark.parametrize(
    ("fee_sat", "vsize", "next_sat"),
    [
        (1_000, 100, 1_250),
        (1_001, 100, 1_252),  # A quarter, rounded up.
        (1_004, 100, 1_255),
        (200, 100, 300),  # 1 sat/vB more is more than a quarter.
        (400, 100, 500),
        (404, 100, 505),
    ],
)
def test_a_ladders_next_candidate_pays_a_quarter_more_and_a_satoshi_a_byte(
    fee_sat: int, vsize: int, next_sat: int
) -> None:
    assert least_higher_fee_sat(fee_sat, vsize=vsize) == next_sat
