"""Coins come and go with the blocks; reserved ones wait for their attempt."""

import pytest
from tests.wallet.payments import (
    STRANGER,
    coinbase,
    empty_wallet,
    payment,
    script,
    spend,
    tx_of,
    wallet_with,
)

from cromford.bitcoin.block import COINBASE_MATURITY
from cromford.bitcoin.tx import TxOut
from cromford.wallet.account import CHANGE, RECEIVE, WalletPath
from cromford.wallet.coins import WalletCoin

ATTEMPT = b"\xaa" * 32
OTHER_ATTEMPT = b"\xbb" * 32


def test_a_payment_is_found_with_all_there_is_to_know() -> None:
    tx = payment((STRANGER, 7_000), (script(3), 5_000), (script(1, CHANGE), 6_000))
    wallet = empty_wallet().with_tx(tx, 12)
    receive, change = tx.outpoint(1), tx.outpoint(2)
    assert wallet.coins == {
        receive: WalletCoin(
            outpoint=receive,
            txout=TxOut(amount_sat=5_000, script_pubkey=script(3)),
            path=WalletPath(change=RECEIVE, index=3),
            height=12,
            is_coinbase=False,
        ),
        change: WalletCoin(
            outpoint=change,
            txout=TxOut(amount_sat=6_000, script_pubkey=script(1, CHANGE)),
            path=WalletPath(change=CHANGE, index=1),
            height=12,
            is_coinbase=False,
        ),
    }
    assert wallet.confirmed_sat() == 11_000


def test_a_payment_to_others_changes_nothing() -> None:
    assert empty_wallet().with_tx(payment((STRANGER, 5_000)), 1) == empty_wallet()


def test_one_transaction_may_pay_one_script_twice() -> None:
    wallet = empty_wallet().with_tx(payment((script(0), 5_000), (script(0), 5_000)), 1)
    assert len(wallet.coins) == 2
    assert wallet.confirmed_sat() == 10_000


def test_a_spent_coin_is_neither_free_nor_counted() -> None:
    wallet = wallet_with(5_000)
    (coin,) = wallet.coins.values()
    spent = wallet.with_tx(spend(coin.outpoint), 2)
    assert spent.free(2) == ()
    assert spent.confirmed_sat() == 0
    assert spent.coins[coin.outpoint].spent_height == 2


def test_a_coin_of_a_reorganised_block_is_gone_and_comes_back_with_its_transaction() -> None:
    tx = payment((script(0), 5_000))
    wallet = empty_wallet().with_tx(tx, 5)
    gone = wallet.without_block(5)
    assert (dict(gone.coins), gone.confirmed_sat()) == ({}, 0)
    back = gone.with_tx(tx, 6)
    assert back.coins[tx.outpoint(0)].height == 6
    assert back.free(6) == tuple(back.coins.values())


def test_a_spend_of_a_reorganised_block_is_undone_and_the_coin_stays() -> None:
    wallet = wallet_with(5_000, height=1)
    (coin,) = wallet.coins.values()
    spent = wallet.with_tx(spend(coin.outpoint), 2)
    assert spent.without_block(2) == wallet
    assert spent.without_block(3) == spent


def test_change_returns_within_one_transaction() -> None:
    wallet = wallet_with(50_000)
    (coin,) = wallet.coins.values()
    tx = tx_of(
        [coin.outpoint],
        [
            TxOut(amount_sat=20_000, script_pubkey=STRANGER),
            TxOut(amount_sat=29_000, script_pubkey=script(0, CHANGE)),
        ],
    )
    after = wallet.with_tx(tx, 2)
    assert [free.outpoint for free in after.free(2)] == [tx.outpoint(1)]
    assert after.confirmed_sat() == 29_000
    assert after.without_block(2).free(1) == (coin,)


def test_a_coin_made_and_spent_in_one_block_is_gone_with_it_and_never_free() -> None:
    tx = payment((script(0), 5_000))
    wallet = empty_wallet().with_tx(tx, 4).with_tx(spend(tx.outpoint(0)), 4)
    assert wallet.free(4) == ()
    assert wallet.confirmed_sat() == 0
    assert wallet.without_block(4).coins == {}


def test_free_coins_come_largest_first_and_in_one_order() -> None:
    """Whatever order they were found in, a replay of the journal selects the same ones."""
    wallet = wallet_with(5_000, 9_000, *[7_000] * 10)
    free = wallet.free(1)
    assert [coin.txout.amount_sat for coin in free] == [9_000, *[7_000] * 10, 5_000]
    equal = [coin.outpoint for coin in free[1:-1]]
    assert equal == sorted(equal)


def test_reserved_coins_are_counted_but_not_free_until_their_attempt_releases_them() -> None:
    wallet = wallet_with(5_000, 6_000, 7_000)
    small, middle, large = sorted(wallet.coins.values(), key=lambda coin: coin.txout.amount_sat)
    wallet = wallet.with_reserved([small.outpoint, large.outpoint], ATTEMPT)
    wallet = wallet.with_reserved([middle.outpoint], OTHER_ATTEMPT)
    assert wallet.free(1) == ()
    assert wallet.confirmed_sat() == 18_000
    assert wallet.released(OTHER_ATTEMPT).free(1) == (middle,)
    assert wallet.released(ATTEMPT).free(1) == (large, small)
    assert wallet.released(b"\xcc" * 32) == wallet


def test_a_reservation_outlives_a_reorg() -> None:
    """Else a coin could fund a second factory while the first one's funding waits."""
    tx = payment((script(0), 5_000))
    wallet = empty_wallet().with_tx(tx, 5).with_reserved([tx.outpoint(0)], ATTEMPT)
    back = wallet.without_block(5).with_tx(tx, 6)
    assert back.free(6) == ()
    assert len(back.released(ATTEMPT).free(6)) == 1


@pytest.mark.parametrize("height", [0, 1, 500])
def test_a_coinbase_is_free_when_the_next_block_may_spend_it(height: int) -> None:
    """Consensus wants 100 blocks between; a transaction made now is in the next block."""
    wallet = empty_wallet().with_tx(coinbase(height, script(0), 5_000), height)
    assert wallet.confirmed_sat() == 5_000
    ripe_at_tip = height + COINBASE_MATURITY - 1
    assert wallet.free(height) == wallet.free(ripe_at_tip - 1) == ()
    assert wallet.free(ripe_at_tip) == tuple(wallet.coins.values())


def test_a_value_is_not_changed_by_what_comes_after_it() -> None:
    wallet = wallet_with(5_000)
    before = (dict(wallet.coins), dict(wallet.scripts), dict(wallet.reserved), wallet.next_receive)
    (coin,) = wallet.coins.values()
    wallet.with_tx(spend(coin.outpoint, to=script(4)), 2)
    wallet.with_reserved([coin.outpoint], ATTEMPT)
    wallet.with_address_used(RECEIVE)
    wallet.without_block(1)
    after = (dict(wallet.coins), dict(wallet.scripts), dict(wallet.reserved), wallet.next_receive)
    assert after == before
