"""A code that a camera finds and reads, in a terminal of 80 columns."""

import re
import xml.etree.ElementTree as ET

import pytest
import segno
from tests.invoice.orders import order, signer

from cromford.invoice.bolt11 import sign_invoice
from cromford.invoice.qr import BLACK_ON_WHITE, QR_LENGTH_MAX, RESET, svg_qr, terminal_qr

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
    with pytest.raises(ValueError, match=r"(?i)text: expected 1..4296|data too large"):
        terminal_qr(text)


# As SVG


def modules_of(svg: str) -> list[tuple[int, ...]]:
    """Paint an SVG's runs of dark modules, as a browser would."""
    root = ET.fromstring(svg)  # noqa: S314 - our own markup
    ground, path = root
    size = int(ground.get("width", ""))
    assert root.get("viewBox") == f"0 0 {size} {size}"
    assert (ground.get("fill"), path.get("fill")) == ("#fff", "#000")
    rows = [[0] * size for _ in range(size)]
    told = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path.get("d", ""))
    assert "".join(f"M{x} {y}h{w}v1h-{back}z" for x, y, w, back in told) == path.get("d")
    for x, y, width, back in told:
        assert width == back
        for column in range(int(x), int(x) + int(width)):
            rows[int(y)][column] += 1
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lnbcrt1qqqqqq", "LNBCRT1QQQQQQ"),
        ("bcrt1p" + "q" * 58, "BCRT1P" + "Q" * 58),
        ("BCRT1P" + "Q" * 58, "BCRT1P" + "Q" * 58),
        ("1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"),
        ("lightning:lnbcrt1qqqqqq", "lightning:lnbcrt1qqqqqq"),
        ("Grüße <&>", "Grüße <&>"),
    ],
)
def test_an_svg_is_the_code_of_a_text_dark_on_white_with_a_quiet_zone(
    text: str, shown: str
) -> None:
    code = segno.make_qr(shown, error="l")
    assert modules_of(svg_qr(text)) == [tuple(row) for row in code.matrix_iter(border=QUIET)]


def test_an_svg_follows_no_theme_and_holds_nothing_of_the_text() -> None:
    svg = svg_qr("<script>alert(1)</script>")
    assert "currentColor" not in svg
    assert "style" not in svg
    assert "script" not in svg


@pytest.mark.parametrize("text", ["", "q" * (QR_LENGTH_MAX + 1), "ü" * 3000])
def test_what_no_code_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"text: expected|Data too large"):
        svg_qr(text)
