"""What `pay` says of a payment that no factory has taken yet, and `invoice` of what cannot be."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from cromford.daemon.api.client_payments import ClientPayments
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.payments import KnownPayment, Means, check_same, pay
from cromford.protocol import events as ev
from cromford.protocol.journal.book import Book
from cromford.protocol.turn import Decision


class Events:
    """Nothing more happens."""

    is_closed = False

    async def more(self) -> None:
        self.is_closed = True


class Stuck:
    """An LSP whose house ordered a payment of a factory that cannot be asked."""

    book = Book()
    height = 7
    events = Events()

    def payment_status(self, _payment_hash: bytes) -> str:
        return "pending"

    def request(self, _event: ev.Event) -> None:
        return

    def foresee(self, _event: ev.Event) -> Decision[Any]:
        return Decision(state=None)


class Unexpired:
    """An invoice."""

    expires_at = time.time() + 3600


ASKED = ev.PayRequested(
    text="invoice",
    payment_hash=bytes(32),
    payment_secret=bytes(32),
    payee=bytes(33),
    amount_msat=1_000,
    description="",
    min_final_cltv_expiry_delta=18,
)
KEPT = KnownPayment(
    status="pending",
    payee=bytes(33),
    amount_msat=1_000,
    fee_msat=10,
    factory_id=bytes(32).hex(),
    label="rent",
)


def paying_stuck(*, wait_seconds: float = 0.0, dry_run: bool = False) -> Coroutine[Any, Any, Any]:
    """Pay out of a factory that never takes it."""
    payer: Any = Stuck()
    invoice: Any = Unexpired()
    return pay(
        payer,
        invoice,
        ASKED,
        means=lambda: Means(cost_msat=0, sendable_msat=0),
        shown=lambda: None,
        wait_seconds=wait_seconds,
        dry_run=dry_run,
    )


@pytest.mark.parametrize("wait_seconds", [0.0, 5.0])
def test_a_payment_of_which_its_factory_cannot_be_asked_is_told_by_its_name(
    wait_seconds: float,
) -> None:
    paying = paying_stuck(wait_seconds=wait_seconds)
    with pytest.raises(ApiFailure) as caught:
        asyncio.run(paying)
    assert (caught.value.code, caught.value.retryable) == ("payment_waits", True)


@pytest.mark.parametrize("wait_seconds", [-1.0, 100.5, 1e9, float("inf"), float("nan")])
def test_a_wait_that_no_caller_would_sit_out_is_refused_by_its_name(wait_seconds: float) -> None:
    paying = paying_stuck(wait_seconds=wait_seconds)
    with pytest.raises(InvalidParam) as caught:
        asyncio.run(paying)
    told = f"wait_seconds: expected 0..100, received {wait_seconds}"
    assert (caught.value.param, caught.value.message) == ("wait_seconds", told)


def test_a_payment_that_would_stop_its_factory_cannot_be_planned() -> None:
    paying = paying_stuck(dry_run=True)
    with pytest.raises(ApiFailure) as caught:
        asyncio.run(paying)
    assert (caught.value.code, caught.value.retryable) == ("factory_stopped", True)
    assert "next block" in caught.value.remediation


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"label": "rent"},
        {"fee_max_msat": 10},
        {"fee_max_msat": 11},
        {"attempt_id": bytes(32)},
        {"description": "told otherwise"},
    ],
)
def test_what_is_asked_for_again_may_say_less_and_allow_more(wanted: dict[str, Any]) -> None:
    check_same(replace(ASKED, **wanted), KEPT)


@pytest.mark.parametrize(
    ("wanted", "field", "told"),
    [
        ({"label": "food"}, "label", "expected 'rent', received 'food'"),
        ({"fee_max_msat": 9}, "fee_max_msat", "expected at least 10 msat, received 9 msat"),
        ({"attempt_id": b"1" * 32}, "factory_id", f"expected {'00' * 32}, received {'31' * 32}"),
        (
            {"amount_msat": 1_001},
            "invoice",
            f"expected one of {'00' * 33} over 1 sat, received one of {'00' * 33} over 1,001 msat",
        ),
        (
            {"payee": b"1" * 33},
            "invoice",
            f"expected one of {'00' * 33} over 1 sat, received one of {'31' * 33} over 1 sat",
        ),
    ],
)
def test_another_payment_with_the_hash_of_one_that_is_under_way_is_refused_by_its_field(
    wanted: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(ApiFailure) as caught:
        check_same(replace(ASKED, **wanted), KEPT)
    assert (caught.value.code, caught.value.param) == ("payment_differs", field)
    assert caught.value.message == (
        f"{field}: the payment with this hash is pending, and is not made again: {told}"
    )


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"expiry_seconds": -5}, "expiry_seconds"),
        ({"expiry_seconds": 0}, "expiry_seconds"),
        ({"expiry_seconds": 2**32}, "expiry_seconds"),
        ({"expiry_seconds": 60, "hold_seconds": 61}, "hold_seconds"),
        ({"hold_seconds": -1}, "hold_seconds"),
        ({"label": "\u00e9" * 129}, "label"),
        ({"external_id": "a" * 129}, "external_id"),
    ],
)
def test_what_no_invoice_can_have_is_refused_by_its_own_name(
    wanted: dict[str, Any], param: str
) -> None:
    nobody: Any = None
    invoice = ClientPayments(nobody, lambda _message: b"").methods()["invoice"]
    with pytest.raises(InvalidParam) as caught:
        asyncio.run(_answered(invoice({"amount_msat": 1, **wanted})))
    assert caught.value.param == param


async def _answered(asked: Awaitable[object]) -> object:
    return await asked
