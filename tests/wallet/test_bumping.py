"""What takes the place of a payment: who pays for it, and what is never made."""

from dataclasses import replace

import pytest
from tests.wallet.payments import STRANGER, empty_wallet, payment, script, tx_of, wallet_with

from cromford.bitcoin.fees import P2TR_DUST_SAT, SEGWIT_DUST_SAT
from cromford.bitcoin.tx import Tx, TxOut
from cromford.wallet.account import CHANGE
from cromford.wallet.bumping import CoinsOffChain, ReplacementTooCheap, plan_bump
from cromford.wallet.coins import InsufficientCoins, Wallet
from cromford.wallet.spending import DustSpending, SpendingPlan

COIN_SAT = 100_000


def bump(
    wallet: Wallet, tx: Tx, feerate: int, *, from_amount: bool = False, others_sat: int = 0
) -> SpendingPlan:
    return plan_bump(
        wallet,
        tx,
        feerate_sat_per_kw=feerate,
        takes_from_amount=from_amount,
        incremental_sat_per_kw=25,
        others_sat=others_sat,
        tip_height=10,
    )


def spending(*outputs: tuple[bytes, int], n_free: int = 0) -> tuple[Wallet, Tx]:
    """Return a wallet that spends its one coin, and has free ones beside it, of a tenth."""
    wallet = wallet_with(COIN_SAT)
    tx = tx_of(list(wallet.unspent), [TxOut(amount_sat=a, script_pubkey=to) for to, a in outputs])
    signed = tx.with_witnesses((bytes(64),))
    for _ in range(n_free):
        wallet = wallet.with_tx(payment((script(0), COIN_SAT // 10)), 2)
    return wallet.with_spending(signed), signed


def test_what_is_all_change_becomes_less_and_takes_no_coin() -> None:
    wallet, tx = spending((script(0, CHANGE), COIN_SAT - 400), n_free=1)
    plan = bump(wallet, tx, 2_000)
    assert [(out.script_pubkey, len(plan.coins)) for out in plan.tx.outputs] == [
        (script(0, CHANGE), 1)
    ]
    assert plan.amount_sat == plan.change_sat == COIN_SAT - plan.fee_sat
    with pytest.raises(InsufficientCoins):
        bump(*spending((script(0, CHANGE), COIN_SAT - 400)), 1_000_000)


def test_as_many_free_coins_pay_as_it_takes() -> None:
    wallet, tx = spending((STRANGER, COIN_SAT - 400), n_free=3)
    assert len(bump(wallet, tx, 2_000).coins) == 2
    assert len(bump(wallet, tx, 24_000).coins) == 4
    with pytest.raises(InsufficientCoins):
        bump(wallet, tx, 44_000)


def test_a_coin_that_costs_more_than_it_holds_helps_nobody() -> None:
    wallet, tx = spending((STRANGER, COIN_SAT - 400), n_free=1)
    with pytest.raises(InsufficientCoins) as refused:
        bump(wallet, tx, 50_000)
    assert refused.value.available_sat == COIN_SAT


@pytest.mark.parametrize(
    ("payee", "least_sat"), [(STRANGER, P2TR_DUST_SAT), (STRANGER + b"\0", SEGWIT_DUST_SAT)]
)
def test_a_payee_is_never_paid_dust(payee: bytes, least_sat: int) -> None:
    change = COIN_SAT - 2_000
    wallet, tx = spending((payee, 1_600), (script(0, CHANGE), change))
    # A feerate of 250 is a satoshi for each virtual byte.
    vsize = 154 + len(payee) - len(STRANGER)
    left_sat = 2_000 - 250 * 4 * vsize * 10 // 1000
    assert bump(wallet, tx, 2_500, from_amount=True).amount_sat == left_sat
    with pytest.raises(DustSpending, match=f"at least {least_sat}"):
        bump(wallet, tx, 2_800, from_amount=True)


def test_what_it_pays_is_unknown_while_a_coin_is_off_the_chain() -> None:
    wallet, tx = spending((STRANGER, COIN_SAT - 400))
    with pytest.raises(CoinsOffChain, match=str(tx.txid)):
        bump(replace(wallet, coins=empty_wallet().coins), tx, 2_000)


def test_the_feerate_that_is_told_is_the_least_that_does() -> None:
    wallet, tx = spending((STRANGER, 50_000), (script(0, CHANGE), 49_000))
    for others_sat in (0, 1, 777):
        with pytest.raises(ReplacementTooCheap) as refused:
            bump(wallet, tx, 1_000, others_sat=others_sat)
        least = refused.value.least_sat_per_kw
        assert refused.value.least_sat == 1_000 + 16 + others_sat
        plan = bump(wallet, tx, least, others_sat=others_sat)
        assert plan.fee_sat >= refused.value.least_sat
        with pytest.raises(ReplacementTooCheap):
            bump(wallet, tx, least - 1, others_sat=others_sat)
