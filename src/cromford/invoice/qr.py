"""A QR code, for the terminal or as SVG: the only module that knows `segno`."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import segno

# Four light modules on each side, or a scanner may not find the code (ISO/IEC 18004).
QUIET_ZONE: Final = 4
QR_LENGTH_MAX: Final = 4296  # Letters and digits in the largest code at the lowest correction.
# Black on white whatever the theme: the two ends of the 256 colours that no theme replaces.
# Without colours, as in a file, the dark modules are still the ink.
BLACK_ON_WHITE: Final = "\x1b[38;5;16;48;5;231m"
RESET: Final = "\x1b[0m"
# In lower case, with its separator and a checksum (BIP 173): an invoice, or an address of today.
BECH32: Final = re.compile(r"[a-z][a-z0-9]{0,82}1[ac-hj-np-z02-9]{6,}")
HALF_BLOCKS: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def terminal_qr(text: str) -> str:
    """Return lines of half blocks that a camera reads as this text in upper case.

    Upper case because that makes the code smaller, and bech32 is the same in either (BIP 173).
    Two rows of modules share a line, so that they come out square.

    Raises:
        ValueError: If the text is too long for a QR code.
    """
    rows = _rows(text.upper())
    rows.append((0,) * len(rows[0]))  # The sides are odd, and lines take rows in pairs.
    return "\n".join(
        BLACK_ON_WHITE
        + "".join(HALF_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        + RESET
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )


def svg_qr(text: str) -> str:
    """Return SVG that a camera reads as this text: dark on white, in any theme.

    Bech32 is shown in upper case, which is the same and smaller (BIP 173); all else as it is.

    Raises:
        ValueError: If the text is empty, or too long for a QR code.
    """
    is_bech32 = BECH32.fullmatch(text) is not None
    rows = _rows(text.upper() if is_bech32 else text)
    drawn = "".join(part for y, row in enumerate(rows) for part in _runs(row, y))
    size = len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="100%" '
        'shape-rendering="crispEdges" role="img" aria-label="QR code">'
        f'<rect width="{size}" height="{size}" fill="#fff"/><path fill="#000" d="{drawn}"/></svg>'
    )


def _runs(row: Sequence[int], y: int) -> Iterator[str]:
    """Yield the dark modules of a row, those side by side as one."""
    x = 0
    for is_dark, run in groupby(row):
        width = len(list(run))
        if is_dark:
            yield f"M{x} {y}h{width}v1h-{width}z"
        x += width


def _rows(text: str) -> list[tuple[int, ...]]:
    if not 1 <= len(text) <= QR_LENGTH_MAX:
        expected = f"1..{QR_LENGTH_MAX} characters"
        raise ValueError(f"text: expected {expected}, received {len(text)}")
    code = segno.make_qr(text, error="l")
    return [tuple(row) for row in code.matrix_iter(border=QUIET_ZONE)]
