"""Coin selection: the sums are right, the fee is exact, and what cannot be paid is said."""

from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.wallet.payments import STRANGER, account, keychain, payment, script, wallet_with

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.factory.funding import CHANGE_MIN_SAT
from cromford.regtest.kernel import ScriptRefused, check_scripts
from cromford.signing.signer import Signer
from cromford.wallet.account import CHANGE, WalletPath
from cromford.wallet.coins import (
    N_INPUTS_MAX,
    InsufficientCoins,
    Selection,
    Wallet,
    new_wallet,
    wallet_tx_vsize,
)

TIP = 10
amounts = st.one_of(st.integers(330, 50_000), st.integers(330, 10**10))
coins = st.lists(amounts, max_size=12)
feerates = st.one_of(st.integers(0, 2_000), st.sampled_from([25, 250, 500, 25_000]))
outputs = st.lists(st.integers(330, 200_000), min_size=1, max_size=5)


def select(wallet: Wallet, outputs_sat: Sequence[int], feerate: int) -> Selection:
    return wallet.select(
        output_scripts_sat=sum(outputs_sat),
        n_outputs=len(outputs_sat),
        feerate_sat_per_kw=feerate,
        tip_height=TIP,
    )


def signed_tx(selection: Selection, outputs_sat: Sequence[int]) -> Tx:
    """Build what was selected and sign it with the wallet's keys."""
    unsigned = Tx(
        version=2,
        inputs=tuple(
            TxIn(outpoint=coin.outpoint, nsequence=0xFFFF_FFFD) for coin in selection.coins
        ),
        outputs=(
            *(TxOut(amount_sat=sat, script_pubkey=STRANGER) for sat in outputs_sat),
            TxOut(amount_sat=selection.change_sat, script_pubkey=script(0, CHANGE)),
        ),
    )
    return Signer(keychain()).sign_wallet_tx(
        unsigned,
        [coin.txout for coin in selection.coins],
        [(coin.path.change, coin.path.index) for coin in selection.coins],
    )


@given(coins_sat=coins, outputs_sat=outputs, feerate=feerates)
def test_inputs_are_outputs_and_fee_and_change_or_the_wallet_says_what_is_missing(
    coins_sat: list[int], outputs_sat: list[int], feerate: int
) -> None:
    wallet = wallet_with(*coins_sat)
    try:
        selection = select(wallet, outputs_sat, feerate)
    except InsufficientCoins as error:
        fee_sat = fee_sat_of(
            vsize=wallet_tx_vsize(n_inputs=max(len(coins_sat), 1), n_outputs=len(outputs_sat) + 1),
            feerate_sat_per_kw=feerate,
        )
        needed_sat, available_sat = error.needed_sat, error.available_sat
        assert needed_sat == sum(outputs_sat) + fee_sat + CHANGE_MIN_SAT
        assert needed_sat > available_sat == sum(coins_sat)
        return
    inputs_sat = sum(coin.txout.amount_sat for coin in selection.coins)
    assert inputs_sat == sum(outputs_sat) + selection.fee_sat + selection.change_sat
    assert selection.change_sat >= CHANGE_MIN_SAT
    assert set(selection.coins) <= set(wallet.free(TIP))
    assert len(set(selection.coins)) == len(selection.coins)


@given(coins_sat=coins, outputs_sat=outputs, feerate=feerates)
def test_no_fewer_coins_would_do(
    coins_sat: list[int], outputs_sat: list[int], feerate: int
) -> None:
    wallet = wallet_with(*coins_sat)
    try:
        n_inputs = len(select(wallet, outputs_sat, feerate).coins)
    except InsufficientCoins:
        n_inputs = len(coins_sat) + 1
    for fewer in range(1, n_inputs):
        vsize = wallet_tx_vsize(n_inputs=fewer, n_outputs=len(outputs_sat) + 1)
        fee_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate)
        largest_sat = sum(sorted(coins_sat, reverse=True)[:fewer])
        assert largest_sat - sum(outputs_sat) - fee_sat < CHANGE_MIN_SAT


@settings(max_examples=30)
@given(coins_sat=coins, outputs_sat=outputs, feerate=feerates, spot=st.integers(0, 2**16))
def test_the_kernel_accepts_the_signed_transaction_and_its_feerate_is_exact(
    coins_sat: list[int], outputs_sat: list[int], feerate: int, spot: int
) -> None:
    assume(coins_sat)
    wallet = new_wallet(account())
    for index, amount_sat in enumerate(coins_sat):
        to = script(index, CHANGE if index % 3 == 2 else 0)
        wallet = wallet.with_tx(payment((to, amount_sat)), 1)
    try:
        selection = select(wallet, outputs_sat, feerate)
    except InsufficientCoins:
        assume(False)
    tx = signed_tx(selection, outputs_sat)
    prevouts = [coin.txout for coin in selection.coins]
    check_scripts(tx, prevouts)
    assert selection.fee_sat == -(-tx.vsize * feerate * 4 // 1000)
    assert sum(p.amount_sat for p in prevouts) - selection.fee_sat == sum(
        txout.amount_sat for txout in tx.outputs
    )
    place, bit = spot % len(tx.inputs), spot // len(tx.inputs) % 512
    witnesses = [tx_in.witness for tx_in in tx.inputs]
    broken = bytearray(witnesses[place][0])
    broken[bit // 8] ^= 1 << bit % 8
    witnesses[place] = (bytes(broken),)
    with pytest.raises(ScriptRefused, match=f"input {place},"):
        check_scripts(tx.with_witnesses(*witnesses), prevouts)


@pytest.mark.parametrize("n_outputs", [1, 251, 252, 253])
@pytest.mark.parametrize("n_inputs", [1, 252, 253])
def test_the_size_is_known_before_signing_also_where_the_counts_grow(
    n_inputs: int, n_outputs: int
) -> None:
    outpoint = payment((script(0), 5_000)).outpoint(0)
    tx = Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=0, witness=(bytes(64),)),) * n_inputs,
        outputs=(TxOut(amount_sat=330, script_pubkey=STRANGER),) * n_outputs,
    )
    assert wallet_tx_vsize(n_inputs=n_inputs, n_outputs=n_outputs) == tx.vsize


def test_one_satoshi_decides() -> None:
    fee_sat = fee_sat_of(vsize=wallet_tx_vsize(n_inputs=1, n_outputs=2), feerate_sat_per_kw=500)
    enough_sat = 40_000 + fee_sat + CHANGE_MIN_SAT
    selection = select(wallet_with(enough_sat), [40_000], 500)
    assert (selection.change_sat, selection.fee_sat) == (CHANGE_MIN_SAT, fee_sat)
    with pytest.raises(InsufficientCoins) as refused:
        select(wallet_with(enough_sat - 1), [40_000], 500)
    assert str(refused.value) == f"{enough_sat:,} sat are needed, {enough_sat - 1:,} sat are free"
    assert (refused.value.needed_sat, refused.value.available_sat) == (enough_sat, enough_sat - 1)


def test_an_empty_wallet_asks_for_the_fee_of_one_input_too() -> None:
    fee_sat = fee_sat_of(vsize=wallet_tx_vsize(n_inputs=1, n_outputs=2), feerate_sat_per_kw=500)
    needed_sat = 40_000 + fee_sat + 10_000
    with pytest.raises(InsufficientCoins, match=f"^{needed_sat:,} sat are needed, 0"):
        select(wallet_with(), [40_000], 500)


def test_reserved_and_immature_coins_are_not_selected() -> None:
    wallet = wallet_with(100_000, 90_000)
    largest = wallet.free(TIP)[0]
    wallet = wallet.with_reserved([largest.outpoint], b"\xaa" * 32)
    assert [coin.txout.amount_sat for coin in select(wallet, [40_000], 500).coins] == [90_000]
    with pytest.raises(InsufficientCoins, match="90,000 sat are free"):
        select(wallet, [90_000], 500)


def test_only_so_many_coins_are_selected() -> None:
    """However many small ones there are: the transaction must fit a message."""
    wallet = wallet_with(*[1_000] * (N_INPUTS_MAX + 1))
    amount_sat = N_INPUTS_MAX * 1_000 - CHANGE_MIN_SAT
    assert len(select(wallet, [amount_sat], 0).coins) == N_INPUTS_MAX
    said = f"{N_INPUTS_MAX * 1_000:,} sat are free, beside 1,000 sat in smaller coins"
    with pytest.raises(InsufficientCoins, match=said):
        select(wallet, [amount_sat + 1], 0)


def test_a_path_names_one_script() -> None:
    paths = [WalletPath(change=change, index=i) for change in (0, CHANGE) for i in range(20)]
    assert len({account().script(path) for path in paths}) == len(paths)
