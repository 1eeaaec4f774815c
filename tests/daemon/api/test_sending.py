"""`wallet send` asked again by its external id: what is told of a payment that another overtook."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.wallet.payments import STRANGER, script, spend, tx_of, wallet_with

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx, TxOut
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.wallet import wallet_methods
from cromford.daemon.refusals import Refusals
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import Wallet

COIN_SAT, PAID_SAT = 100_000, 60_000
ASKED = {"address": address_of_script(STRANGER, REGTEST), "amount_sat": PAID_SAT}


class Owner:
    """A daemon whose one payment was asked for by an id, and replaced; asked when it is over."""

    network = REGTEST
    height = recorded_height = 3
    arriving_sat = 0
    refusals = Refusals()

    def __init__(self) -> None:
        wallet = wallet_with(COIN_SAT)
        self.first, self.newest = (
            replace(spend(*wallet.unspent, amount_sat=PAID_SAT), nlocktime=n) for n in range(2)
        )
        for tx in (self.first, self.newest):
            wallet = wallet.with_called(tx, "payout-7", PAID_SAT)
        self.wallet: Wallet = wallet.with_spending(self.newest)

    def send(self) -> Any:
        method = wallet_methods(self)["wallet_send"]  # type: ignore[arg-type]  # as far as asked
        return asyncio.run(method({**ASKED, "external_id": "payout-7"}))  # type: ignore[arg-type]  # a coroutine


def test_a_payment_that_lost_its_coins_to_another_is_told_as_that_and_not_as_sent() -> None:
    owner = Owner()
    other = spend(*owner.wallet.unspent)
    overtaken(owner, other)
    with pytest.raises(ApiFailure) as failure:
        owner.send()
    assert failure.value.code == "payment_overtaken"
    assert str(other.txid) in failure.value.message


def test_a_payment_that_what_it_replaced_overtook_is_sent() -> None:
    owner = Owner()
    assert owner.send()["txid"] == str(owner.newest.txid)
    overtaken(owner, owner.first)
    sent = owner.send()
    assert (sent["sent"], sent["txid"]) == (True, str(owner.first.txid))


def test_a_payment_that_is_not_published_says_why() -> None:
    owner = Owner()
    assert why_withheld(owner) is None
    taken = Owner()
    (coin,) = taken.newest.inputs
    taken.wallet = taken.wallet.with_reserved([coin.outpoint], b"since")
    assert why_withheld(taken) == "coins_taken"
    overtaken(owner, owner.first)
    used = owner.wallet.with_reserved([owner.first.outpoint(0)], b"since")
    owner.wallet = used.without_block(3)
    assert why_withheld(owner) == "change_spent"


def test_what_is_not_published_brings_no_change() -> None:
    owner = Owner()
    wallet = wallet_with(COIN_SAT)
    before, since = (
        tx_of(
            [*wallet.unspent],
            [
                TxOut(amount_sat=paid_sat, script_pubkey=STRANGER),
                TxOut(amount_sat=change_sat, script_pubkey=script(0, CHANGE)),
            ],
        )
        for paid_sat, change_sat in ((10_000, 90_000), (20_000, 79_000))
    )
    owner.wallet = wallet.with_spending(since).with_revived(before)
    method = wallet_methods(owner)["wallet_balance"]  # type: ignore[arg-type]  # as far as asked
    answer: Any = asyncio.run(method({}))  # type: ignore[arg-type]  # a coroutine
    assert len(answer["waiting"]) == 2
    assert (answer["paying_sat"], answer["change_sat"]) == (COIN_SAT, 79_000)


def why_withheld(owner: Owner) -> Any:
    method = wallet_methods(owner)["wallet_balance"]  # type: ignore[arg-type]  # as far as asked
    answer: Any = asyncio.run(method({}))  # type: ignore[arg-type]  # a coroutine
    (waiting,) = answer["waiting"]
    return waiting["withheld"]


def overtaken(owner: Owner, tx: Tx) -> None:
    """Let a block have a transaction that spends the coins of the newest payment."""
    owner.wallet = replace(owner.wallet.with_tx(tx, 3), overtaken={owner.newest.txid: tx.txid})
