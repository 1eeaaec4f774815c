"""`wallet abandon` over the API, while blocks come and go."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.wallet.payments import payment, script, spend, wallet_with

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.wallet import wallet_methods
from cromford.ports import TxRefused
from cromford.protocol import events as ev
from cromford.wallet.coins import Wallet

PAID_SAT = 40_000


class Owner:
    """A daemon with one payment that its node refuses, and what happens while it is asked."""

    def __init__(self, meanwhile: Callable[["Owner"], None]) -> None:
        wallet = wallet_with(PAID_SAT).with_tx(payment((script(1), PAID_SAT)), 2)
        self.tx = spend(*wallet.unspent)
        self.wallet: Wallet = wallet.with_spending(self.tx)
        self.requested: list[ev.Event] = []
        self.chain = self
        self.missing: frozenset[OutPoint] = frozenset()  # What no block of the node's has unspent.
        self.spent_by: Txid | None = None  # What the node's mempool has.
        self._meanwhile = meanwhile

    async def coin(self, outpoint: OutPoint) -> OutPoint | None:
        return None if outpoint in self.missing else outpoint

    async def spenders(self, outpoints: Sequence[OutPoint]) -> dict[OutPoint, Txid]:
        return {outpoint: self.spent_by for outpoint in outpoints if self.spent_by is not None}

    async def broadcast(self, _tx: Tx) -> None:
        self._meanwhile(self)
        raise TxRefused("mempool min fee not met")

    def request(self, event: ev.Event) -> None:
        self.requested.append(event)

    def abandon(self, *, dry_run: bool) -> Any:
        method = wallet_methods(self)["wallet_abandon"]  # type: ignore[arg-type]  # as far as asked
        return asyncio.run(method({"txid": str(self.tx.txid), "dry_run": dry_run}))  # type: ignore[arg-type]  # a coroutine


def nothing(_owner: Owner) -> None:
    pass


def coin_vanishes(owner: Owner) -> None:
    owner.wallet = owner.wallet.without_block(2)


def payment_confirms(owner: Owner) -> None:
    owner.wallet = owner.wallet.with_tx(owner.tx, 3)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("meanwhile", "freed_sat"), [(nothing, 2 * PAID_SAT), (coin_vanishes, PAID_SAT)]
)
def test_what_is_freed_are_the_coins_that_are_there(
    meanwhile: Callable[[Owner], None],
    freed_sat: int,
    dry_run: bool,  # noqa: FBT001 - a case
) -> None:
    owner = Owner(meanwhile)
    answer = owner.abandon(dry_run=dry_run)
    assert (answer["abandoned"], answer["freed_sat"]) == (not dry_run, freed_sat)
    asked = ev.AbandonRequested(txid=owner.tx.txid, reason="mempool min fee not met")
    assert owner.requested == ([] if dry_run else [asked])


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_payment_that_confirms_meanwhile_is_not_given_up(
    dry_run: bool,  # noqa: FBT001 - a case
) -> None:
    owner = Owner(payment_confirms)
    with pytest.raises(ApiFailure) as failure:
        owner.abandon(dry_run=dry_run)
    assert failure.value.code == "payment_not_found"
    assert owner.requested == []


def test_a_payment_whose_coin_a_reorganisation_took_for_good_is_given_up() -> None:
    """No block can have it, and its other coins would wait with it for ever."""
    owner = Owner(nothing)
    before = owner.wallet
    coin_vanishes(owner)
    owner.missing = frozenset({*before.unspent} - {*owner.wallet.unspent})
    answer = owner.abandon(dry_run=False)
    assert (answer["abandoned"], answer["freed_sat"]) == (True, PAID_SAT)
    assert owner.requested


def test_a_payment_whose_coin_pays_for_another_since_is_not_shown_to_the_node() -> None:
    """It came back by a reorganisation: the node might take it, and end that one."""
    owner = Owner(lambda _: pytest.fail("it was published"))
    owner.wallet = owner.wallet.with_reserved(sorted(owner.wallet.unspent)[:1], b"\xaa" * 32)
    with pytest.raises(ApiFailure) as failure:
        owner.abandon(dry_run=False)
    assert failure.value.code == "coins_taken"
    assert "wallet coins" in failure.value.remediation
    assert owner.requested == []


def test_a_payment_whose_coin_a_block_has_spent_that_we_have_not_read_is_soon_over() -> None:
    owner = Owner(nothing)
    owner.missing = frozenset(sorted(owner.wallet.unspent)[:1])
    with pytest.raises(ApiFailure) as failure:
        owner.abandon(dry_run=False)
    assert (failure.value.code, failure.value.retryable) == ("coins_spent", True)
    assert owner.requested == []


def test_a_payment_is_not_given_up_while_another_waits_that_spends_its_coins() -> None:
    """Perhaps the one that it was to replace: whoever paid anew would pay its payee twice."""
    owner = Owner(nothing)
    owner.spent_by = Txid(bytes(32))
    with pytest.raises(ApiFailure) as failure:
        owner.abandon(dry_run=False)
    assert failure.value.code == "coins_wanted"
    assert "wallet bump" in failure.value.remediation
    assert owner.requested == []
    owner.spent_by = owner.tx.txid
    assert owner.abandon(dry_run=False)["abandoned"]
