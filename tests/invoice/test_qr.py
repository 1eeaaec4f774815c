"""A code that a camera finds and reads, in a terminal of 80 columns."""

import pytest
import segno
from tests.invoice.orders import order, signer

from cromford.invoice.bolt11 import sign_invoice
from cromford.invoice.qr import BLACK_ON_WHITE, QR_LENGTH_MAX, RESET, terminal_qr

QUIET = 4
MODULES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def rows_of(picture: str) -> list[tuple[int, ...]]:
    """Take the colours off and the half blocks apart."""
    rows: list[tuple[int, ...]] = []
    for line in picture.splitlines():
        assert line.startswith(BLACK_ON_WHITE)
        assert line.endswith(RESET)
        pairs = [MODULES[c] for c in line.removeprefix(BLACK_ON_WHITE).removesuffix(RESET)]
        rows += [tuple(upper for upper, _ in pairs), tuple(lower for _, lower in pairs)]
    return rows


def test_the_code_of_a_normal_invoice_fits_80_columns_and_33_lines() -> None:
    rows = rows_of(terminal_qr(sign_invoice(order(), signer().sign_node)))
    assert {len(row) for row in rows} == {57 + 2 * QUIET}
    assert len(rows) == 2 * 33


def test_four_light_modules_surround_the_code() -> None:
    rows = rows_of(terminal_qr(sign_invoice(order(), signer().sign_node)))
    light = (0,) * len(rows[0])
    assert rows[:QUIET] == [light] * QUIET
    assert rows[-QUIET:] == [light] * QUIET
    assert all(row[:QUIET] == row[-QUIET:] == (0,) * QUIET for row in rows)


def test_the_three_corners_that_a_camera_looks_for_are_there() -> None:
    rows = rows_of(terminal_qr("LNBCRT1"))
    inside = [row[QUIET:-QUIET] for row in rows[QUIET : QUIET + 21]]
    finder = [
        (1, 1, 1, 1, 1, 1, 1),
        (1, 0, 0, 0, 0, 0, 1),
        (1, 0, 1, 1, 1, 0, 1),
        (1, 0, 1, 1, 1, 0, 1),
        (1, 0, 1, 1, 1, 0, 1),
        (1, 0, 0, 0, 0, 0, 1),
        (1, 1, 1, 1, 1, 1, 1),
    ]
    assert [row[:7] for row in inside[:7]] == finder
    assert [row[-7:] for row in inside[:7]] == finder
    assert [row[:7] for row in inside[-7:]] == finder


def test_no_module_is_lost_between_the_half_blocks() -> None:
    text = sign_invoice(order(), signer().sign_node)
    rows = rows_of(terminal_qr(text))
    inside = [row[QUIET:-QUIET] for row in rows[QUIET : QUIET + 57]]
    assert inside == [tuple(row) for row in segno.make_qr(text.upper(), error="l").matrix]


def test_lower_case_makes_the_same_smaller_code() -> None:
    assert terminal_qr("lnbcrt1") == terminal_qr("LNBCRT1")


@pytest.mark.parametrize("text", ["Q" * (QR_LENGTH_MAX + 1), "{" * QR_LENGTH_MAX])
def test_what_no_code_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)expected at most|data too large"):
        terminal_qr(text)
