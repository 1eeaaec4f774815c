"""A payment: exact fee, no dust, and its coins set aside until it is over."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.wallet.payments import STRANGER, keychain, script, spend, wallet_with

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.regtest.kernel import check_scripts
from cromford.regtest.policy import dust_outputs
from cromford.signing.signer import Signer
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import N_INPUTS_MAX, InsufficientCoins, Wallet, wallet_tx_vsize
from cromford.wallet.spending import DustSpending, SpendingPlan, plan_spending

TIP = 10
P2WPKH = b"\x00\x14" + b"\x07" * 20
P2WSH = b"\x00\x20" + b"\x07" * 32
OP_2 = 0x52
coins = st.lists(
    st.one_of(st.integers(330, 20_000), st.integers(330, 10**9)), min_size=1, max_size=8
)
feerates = st.one_of(st.integers(0, 2_000), st.sampled_from([25, 250, 500, 25_000]))
payees = st.sampled_from([STRANGER, P2WPKH, P2WSH, b"\x51\x02\x4e\x73"])


def plan(
    wallet: Wallet, amount_sat: int | None, *, feerate: int = 500, to: bytes = STRANGER
) -> SpendingPlan:
    return plan_spending(
        wallet,
        script_pubkey=to,
        amount_sat=amount_sat,
        feerate_sat_per_kw=feerate,
        tip_height=TIP,
    )


def signed(planned: SpendingPlan) -> Tx:
    return Signer(keychain()).sign_wallet_tx(
        planned.tx,
        [coin.txout for coin in planned.coins],
        [(coin.path.change, coin.path.index) for coin in planned.coins],
    )


def check_sums(planned: SpendingPlan, to: bytes) -> None:
    in_sat = sum(coin.txout.amount_sat for coin in planned.coins)
    assert in_sat == planned.amount_sat + planned.fee_sat + planned.change_sat
    outputs = [(out.script_pubkey, out.amount_sat) for out in planned.tx.outputs]
    assert outputs[0] == (to, planned.amount_sat)
    change = [(script(0, CHANGE), planned.change_sat)] if planned.change_sat else []
    assert outputs[1:] == change
    assert [tx_in.outpoint for tx_in in planned.tx.inputs] == [c.outpoint for c in planned.coins]
    assert min(out.amount_sat for out in planned.tx.outputs) >= P2TR_DUST_SAT


def worth_spending(coins_sat: list[int], feerate: int) -> list[int]:
    """An input that spends a coin is 57.5 virtual bytes long."""
    return [amount for amount in coins_sat if amount >= Fraction(230 * feerate, 1000)]


def check_refusal(error: InsufficientCoins, coins_sat: list[int], feerate: int) -> None:
    worth_sat = sum(worth_spending(coins_sat, feerate))
    assert error.needed_sat > error.available_sat == worth_sat
    assert error.worthless_sat == sum(coins_sat) - worth_sat
    assert str(error).startswith(f"{error.needed_sat:,} sat are needed, {worth_sat:,} sat are free")


@settings(max_examples=60)
@given(coins_sat=coins, share=st.floats(0, 1), feerate=feerates, to=payees)
def test_a_payment_pays_its_exact_fee_and_the_kernel_accepts_it(
    coins_sat: list[int], share: float, feerate: int, to: bytes
) -> None:
    amount_sat = max(P2TR_DUST_SAT, int(sum(coins_sat) * share))
    try:
        planned = plan(wallet_with(*coins_sat), amount_sat, feerate=feerate, to=to)
    except InsufficientCoins as error:
        check_refusal(error, coins_sat, feerate)
        return
    assert planned.amount_sat == amount_sat
    check_sums(planned, to)
    tx = signed(planned)
    check_scripts(tx, [coin.txout for coin in planned.coins])
    exact_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=feerate)
    if planned.change_sat:
        assert planned.fee_sat == exact_sat
    else:
        # Less than a change output would cost and carry is left over for the miner.
        least_change_sat = P2TR_DUST_SAT + fee_sat_of(vsize=44, feerate_sat_per_kw=feerate)
        assert exact_sat <= planned.fee_sat <= exact_sat + least_change_sat


@settings(max_examples=40)
@given(coins_sat=coins, feerate=feerates, to=payees)
def test_paying_all_leaves_nothing_but_the_exact_fee(
    coins_sat: list[int], feerate: int, to: bytes
) -> None:
    wallet = wallet_with(*coins_sat)
    try:
        planned = plan(wallet, None, feerate=feerate, to=to)
    except InsufficientCoins as error:
        check_refusal(error, coins_sat, feerate)
        return
    spent_sat = [coin.txout.amount_sat for coin in planned.coins]
    assert spent_sat == sorted(worth_spending(coins_sat, feerate), reverse=True)
    assert planned.change_sat == 0
    check_sums(planned, to)
    assert planned.fee_sat == fee_sat_of(vsize=signed(planned).vsize, feerate_sat_per_kw=feerate)


@given(coins_sat=coins, amount_sat=st.integers(P2TR_DUST_SAT, 10**9), feerate=feerates)
def test_no_coin_too_many_is_spent(coins_sat: list[int], amount_sat: int, feerate: int) -> None:
    try:
        planned = plan(wallet_with(*coins_sat), amount_sat, feerate=feerate)
    except InsufficientCoins:
        assume(False)
    fewer = len(planned.coins) - 1
    vsize = wallet_tx_vsize(n_inputs=fewer, n_outputs=1)
    fee_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate)
    assert sum(sorted(coins_sat, reverse=True)[:fewer]) < amount_sat + fee_sat


@pytest.mark.parametrize("amount_sat", [-1, 0, P2TR_DUST_SAT - 1])
def test_dust_is_not_paid(amount_sat: int) -> None:
    with pytest.raises(DustSpending, match=f"expected at least 330, received {amount_sat}"):
        plan(wallet_with(100_000), amount_sat)


@pytest.mark.parametrize("size", [2, 20, 32, 33, 40])
def test_no_node_takes_for_dust_what_is_paid_to_a_witness_program_of_any_size(size: int) -> None:
    """One that is refused would keep its coins until its operator gives it up."""
    to = bytes((OP_2, size)) + b"\x07" * size
    wallet = wallet_with(100_000)
    with pytest.raises(DustSpending) as refused:
        plan(wallet, 1, to=to)
    least_sat = int(str(refused.value).split()[4].rstrip(","))
    for amount_sat in (least_sat, None):
        smaller = wallet if amount_sat else wallet_with(least_sat + 60)
        planned = plan(smaller, amount_sat, feerate=100, to=to)
        assert dust_outputs(planned.tx) == []
    with pytest.raises(InsufficientCoins):
        plan(wallet_with(least_sat - 1), None, feerate=0, to=to)


def test_one_satoshi_decides_between_change_and_fee_and_refusal() -> None:
    with_change = fee_sat_of(vsize=wallet_tx_vsize(n_inputs=1, n_outputs=2), feerate_sat_per_kw=500)
    without = fee_sat_of(vsize=wallet_tx_vsize(n_inputs=1, n_outputs=1), feerate_sat_per_kw=500)
    least_sat = 50_000 + with_change + P2TR_DUST_SAT
    assert plan(wallet_with(least_sat), 50_000).change_sat == P2TR_DUST_SAT
    kept = plan(wallet_with(least_sat - 1), 50_000)
    assert (kept.change_sat, kept.fee_sat) == (0, with_change + P2TR_DUST_SAT - 1)
    assert plan(wallet_with(50_000 + without), 50_000).fee_sat == without
    with pytest.raises(InsufficientCoins, match=f"^{50_000 + without:,} sat are needed"):
        plan(wallet_with(50_000 + without - 1), 50_000)


@pytest.mark.parametrize("amount_sat", [None, 1_000])
def test_an_empty_wallet_pays_nothing(amount_sat: int | None) -> None:
    with pytest.raises(InsufficientCoins, match=", 0 sat are free"):
        plan(wallet_with(), amount_sat)


def test_paying_all_leaves_the_coins_that_cost_more_than_they_hold() -> None:
    """At 2 sat/vB and 50 sat/vB an input costs 115 and 2,875 sat."""
    wallet = wallet_with(100_000, 2_875, 2_874, 400, 330)
    assert plan(wallet, None, feerate=500).coins == wallet.free(TIP)
    dear = plan(wallet, None, feerate=12_500)
    assert [coin.txout.amount_sat for coin in dear.coins] == [100_000, 2_875]
    with_dust_sat = 106_479 - fee_sat_of(
        vsize=wallet_tx_vsize(n_inputs=5, n_outputs=1), feerate_sat_per_kw=12_500
    )
    assert dear.amount_sat > with_dust_sat


def test_a_payment_of_an_amount_takes_no_coin_that_costs_more_than_it_holds() -> None:
    with pytest.raises(InsufficientCoins) as refused:
        plan(wallet_with(100_000, *[1_000] * 9), 100_000, feerate=12_500)
    fee_sat = fee_sat_of(vsize=wallet_tx_vsize(n_inputs=1, n_outputs=1), feerate_sat_per_kw=12_500)
    assert refused.value.needed_sat == 100_000 + fee_sat
    assert (refused.value.available_sat, refused.value.worthless_sat) == (100_000, 9_000)


def test_coins_worth_less_than_their_fee_cannot_be_swept() -> None:
    with pytest.raises(
        InsufficientCoins,
        match=", 600 sat are free, beside 400 sat in coins that cost more to spend than they hold",
    ):
        plan(wallet_with(400, 600), None, feerate=2_000)
    with pytest.raises(InsufficientCoins, match=", 0 sat are free, beside 40,000 sat in coins"):
        plan(wallet_with(*[400] * 100), None, feerate=2_000)


def paying_wallet(*amounts_sat: int) -> tuple[Wallet, Tx]:
    """A wallet that has signed a payment of all its coins."""
    wallet = wallet_with(*amounts_sat)
    tx = signed(plan(wallet, None))
    return wallet.with_spending(tx), tx


def test_the_coins_of_a_signed_payment_are_set_aside_until_it_confirms() -> None:
    wallet, tx = paying_wallet(50_000, 60_000)
    assert wallet.free(TIP) == ()
    assert wallet.confirmed_sat() == 110_000
    assert wallet.payments == {tx.txid: tx}
    confirmed = wallet.with_tx(tx, TIP)
    assert (confirmed.payments, dict(confirmed.reserved)) == ({}, {})
    assert confirmed.confirmed_sat() == 0


def test_a_payment_is_over_when_another_transaction_spends_one_of_its_coins() -> None:
    """It can never confirm; its other coins are free again."""
    wallet, tx = paying_wallet(50_000, 60_000)
    taken, left = (tx_in.outpoint for tx_in in tx.inputs)
    after = wallet.with_tx(spend(taken), TIP)
    assert (after.payments, dict(after.reserved)) == ({}, {})
    assert [coin.outpoint for coin in after.free(TIP)] == [left]


def test_a_payment_stays_when_others_confirm() -> None:
    wallet, tx = paying_wallet(50_000)
    wallet = wallet.with_reserved([OutPoint(txid=tx.txid, vout=9)], b"\xaa" * 32)
    after = wallet.with_tx(spend(tx.outpoint(0), to=script(1)), TIP)
    assert after.payments == wallet.payments
    assert after.reserved == wallet.reserved


def test_a_reorg_revives_the_payments_of_the_block_it_takes_away() -> None:
    wallet, tx = paying_wallet(50_000, 60_000)
    again = wallet.with_tx(tx, TIP).without_block(TIP)
    assert again.payments == wallet.payments
    assert again.reserved == wallet.reserved
    assert again.free(TIP) == ()
    assert again.ended_payments == {}


def test_a_sweep_takes_no_more_coins_than_a_transaction_may_have() -> None:
    wallet = wallet_with(*range(10_000, 10_000 + N_INPUTS_MAX + 5))
    swept = plan(wallet, None)
    assert len(swept.tx.inputs) == N_INPUTS_MAX
    assert min(coin.txout.amount_sat for coin in swept.coins) == 10_005


def test_what_smaller_coins_hold_than_a_payment_may_have_is_said() -> None:
    """Else a wallet with enough in it says that it has not, and not why."""
    wallet = wallet_with(*[10_000] * (N_INPUTS_MAX + 3))
    with pytest.raises(InsufficientCoins) as refused:
        plan(wallet, N_INPUTS_MAX * 10_000)
    assert refused.value.available_sat == N_INPUTS_MAX * 10_000
    assert refused.value.beyond_sat == 30_000
    assert str(refused.value).endswith(
        "1,280,000 sat are free, beside 30,000 sat in smaller coins: one transaction spends 128 "
        "coins at most, so pay them to yourself first"
    )
    merged = wallet.with_tx(plan(wallet, None, to=script(1)).tx, TIP)
    assert plan(merged, N_INPUTS_MAX * 10_000).coins


def test_a_payment_that_a_reorg_revives_takes_no_coin_that_is_set_aside_otherwise() -> None:
    """Else what waits with that coin would lose it once the payment is overtaken again."""
    wallet, tx = paying_wallet(50_000, 60_000)
    taken, left = (tx_in.outpoint for tx_in in tx.inputs)
    rival = spend(taken)
    wallet = wallet.with_tx(rival, TIP).with_reserved([left], b"\xaa" * 32)
    revived = wallet.without_block(TIP)
    assert revived.payments == {tx.txid: tx}
    assert (revived.reserved[taken], revived.reserved[left]) == (tx.txid, b"\xaa" * 32)
    assert revived.with_tx(rival, TIP).free(TIP) == ()
