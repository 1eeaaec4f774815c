"""A split: coins of one amount to the wallet itself, at the exact fee, and the rest as change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wallet.payments import script, wallet_with
from tests.wallet.test_spending import TIP, check_refusal, coins, feerates, signed

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.regtest.kernel import check_scripts
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import InsufficientCoins, Wallet, wallet_tx_vsize
from cromford.wallet.spending import (
    N_SPLIT_MAX,
    N_SPLIT_MIN,
    DustSpending,
    SpendingPlan,
    SplitOutOfRange,
    plan_split,
)

FEERATE = 500
PER_COIN_SAT = 86  # An output of 43 virtual bytes, at 2 sat/vB.


def split(
    wallet: Wallet, n_coins: int, amount_sat: int | None, *, feerate: int = FEERATE
) -> SpendingPlan:
    return plan_split(
        wallet,
        n_coins=n_coins,
        amount_sat=amount_sat,
        feerate_sat_per_kw=feerate,
        tip_height=TIP,
    )


def fee_sat(n_inputs: int, n_outputs: int) -> int:
    vsize = wallet_tx_vsize(n_inputs=n_inputs, n_outputs=n_outputs)
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=FEERATE)


def amounts(plan: SpendingPlan) -> list[int]:
    """What a split pays, all of it to the next change script."""
    assert {out.script_pubkey for out in plan.tx.outputs} == {script(0, CHANGE)}
    return [out.amount_sat for out in plan.tx.outputs]


@settings(max_examples=60)
@given(
    coins_sat=coins,
    n_coins=st.integers(N_SPLIT_MIN, N_SPLIT_MAX),
    share=st.one_of(st.none(), st.floats(0, 1)),
    feerate=feerates,
)
def test_a_split_pays_its_exact_fee_and_the_kernel_accepts_it(
    coins_sat: list[int], n_coins: int, share: float | None, feerate: int
) -> None:
    wallet = wallet_with(*coins_sat)
    each = None if share is None else max(P2TR_DUST_SAT, int(sum(coins_sat) * share / n_coins))
    try:
        plan = split(wallet, n_coins, each, feerate=feerate)
    except InsufficientCoins as error:
        check_refusal(error, coins_sat, feerate)
        return
    change = [plan.change_sat] if plan.change_sat else []
    assert amounts(plan) == [each or plan.amount_sat] * n_coins + change
    assert min(amounts(plan)) >= P2TR_DUST_SAT
    assert plan.fee_sat == sum(c.txout.amount_sat for c in plan.coins) - sum(amounts(plan))
    tx = signed(plan)
    check_scripts(tx, [coin.txout for coin in plan.coins])
    over_sat = plan.fee_sat - fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=feerate)
    if each is None:
        assert 0 <= over_sat < n_coins, "what cannot be divided"
    elif plan.change_sat:
        assert over_sat == 0
    else:
        # Less than a change output would cost and carry is left over for the miner.
        least_change_sat = P2TR_DUST_SAT + fee_sat_of(vsize=44, feerate_sat_per_kw=feerate)
        assert 0 <= over_sat <= least_change_sat


def test_without_an_amount_all_that_is_free_is_divided() -> None:
    plan = split(wallet_with(60_000, 40_000), 3, None)
    each, left_sat = divmod(100_000 - fee_sat(2, 3), 3)
    assert amounts(plan) == [each] * 3
    assert (plan.change_sat, plan.fee_sat) == (0, fee_sat(2, 3) + left_sat)


def test_with_an_amount_the_rest_is_change_and_no_coin_too_many_is_spent() -> None:
    plan = split(wallet_with(60_000, 40_000), 3, 10_000)
    assert [coin.txout.amount_sat for coin in plan.coins] == [60_000]
    assert amounts(plan) == [10_000] * 3 + [30_000 - fee_sat(1, 4)]
    assert plan.fee_sat == fee_sat(1, 4)
    assert split(wallet_with(60_000), 4, 10_000).fee_sat - plan.fee_sat == PER_COIN_SAT


def test_one_satoshi_decides_between_change_and_fee_and_refusal_of_a_split() -> None:
    with_change_sat = 40_000 + fee_sat(1, 5) + P2TR_DUST_SAT
    assert split(wallet_with(with_change_sat), 4, 10_000).change_sat == P2TR_DUST_SAT
    kept = split(wallet_with(with_change_sat - 1), 4, 10_000)
    assert (kept.change_sat, kept.fee_sat) == (0, fee_sat(1, 5) + P2TR_DUST_SAT - 1)
    least_sat = 40_000 + fee_sat(1, 4)
    assert amounts(split(wallet_with(least_sat), 4, 10_000)) == [10_000] * 4
    with pytest.raises(InsufficientCoins, match=f"^{least_sat:,} sat are needed"):
        split(wallet_with(least_sat - 1), 4, 10_000)


def test_what_would_be_divided_into_dust_is_refused() -> None:
    least_sat = 5 * P2TR_DUST_SAT + fee_sat(1, 5)
    assert amounts(split(wallet_with(least_sat), 5, None)) == [P2TR_DUST_SAT] * 5
    with pytest.raises(InsufficientCoins, match=f"^{least_sat:,} sat are needed"):
        split(wallet_with(least_sat - 1), 5, None)


@pytest.mark.parametrize("amount_sat", [-1, 0, P2TR_DUST_SAT - 1])
def test_coins_of_dust_are_not_made(amount_sat: int) -> None:
    with pytest.raises(DustSpending, match=f"expected at least 330, received {amount_sat}"):
        split(wallet_with(100_000), 2, amount_sat)


@pytest.mark.parametrize("n_coins", [-1, 0, N_SPLIT_MIN - 1, N_SPLIT_MAX + 1, 10**6])
def test_fewer_than_two_coins_and_too_many_are_refused_by_name(n_coins: int) -> None:
    with pytest.raises(SplitOutOfRange, match=f"n_coins: expected 2 to 20, received {n_coins}"):
        split(wallet_with(10_000_000), n_coins, None)


def test_coins_that_are_set_aside_are_not_split() -> None:
    wallet = wallet_with(60_000, 40_000)
    dear, _ = wallet.free(TIP)
    plan = split(wallet.with_reserved([dear.outpoint], bytes(32)), 2, None)
    assert [coin.txout.amount_sat for coin in plan.coins] == [40_000]


def test_a_restored_wallet_finds_a_split_also_after_many_that_were_given_up() -> None:
    """Each took one script of the twenty that a wallet looks ahead (BIP 44), not twenty."""
    wallet = wallet_with(1_000_000)
    for _ in range(15):
        tx = signed(split(wallet, N_SPLIT_MAX, None))
        wallet = wallet.with_spending(tx).with_address_used(CHANGE).without_payment(tx.txid)
    tx = signed(split(wallet, N_SPLIT_MAX, 10_000))
    assert tx.outputs[0].script_pubkey == script(15, CHANGE)
    restored = wallet_with().with_tx(tx, TIP)
    assert len(restored.free(TIP)) == N_SPLIT_MAX + 1
    assert restored.next_script(CHANGE) == script(16, CHANGE)
