"""What no invoice may be, whoever makes it."""

from dataclasses import replace
from typing import Any

import pytest
from tests.invoice.orders import HINT, order

from cromford.invoice.invoice import InvalidInvoice


def test_an_invoice_expires_its_expiry_after_it_was_made() -> None:
    assert order(created_at=1_000_000, expiry_seconds=60).expires_at == 1_000_060


def test_the_payment_secret_is_not_printed() -> None:
    assert "payment_secret" not in repr(order())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_msat", 0),
        ("amount_msat", -1),
        ("amount_msat", 21 * 10**17 + 1),
        ("payee", b"\x02" * 32),
        ("payee", b"\x05" + b"\x02" * 32),
        ("payment_hash", b"\x01" * 31),
        ("payment_secret", b"\x01" * 33),
        ("created_at", -1),
        ("created_at", 1 << 35),
        ("expiry_seconds", 0),
        ("expiry_seconds", 1 << 32),
        ("min_final_cltv_expiry_delta", -1),
        ("min_final_cltv_expiry_delta", 1 << 16),
        ("description", "\ud800"),
    ],
)
def test_a_field_out_of_range_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInvoice) as refused:
        replace(order(), **{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("description", ["x" * 640, "ン" * 214])
def test_a_description_is_bounded_in_bytes_and_not_in_letters(description: str) -> None:
    with pytest.raises(InvalidInvoice, match=r"^description: expected at most 639 bytes"):
        order(description=description)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lsp_node_id", b""),
        ("fee_base_msat", 1 << 32),
        ("fee_proportional_millionths", -1),
        ("cltv_expiry_delta", 1 << 16),
    ],
)
def test_a_route_hint_that_does_not_fit_its_bytes_is_refused_by_name(
    field: str, value: Any
) -> None:
    with pytest.raises(InvalidInvoice) as refused:
        replace(HINT, **{field: value})
    assert refused.value.field == f"route_hint.{field}"
