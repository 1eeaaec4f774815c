"""A QR code for the terminal: the only module that knows `segno`."""

from typing import Final

import segno

# Four light modules on each side, or a scanner may not find the code (ISO/IEC 18004).
QUIET_ZONE: Final = 4
QR_LENGTH_MAX: Final = 4296  # Letters and digits in the largest code at the lowest correction.
# Black on white whatever the theme: the two ends of the 256 colours that no theme replaces.
# Without colours, as in a file, the dark modules are still the ink.
BLACK_ON_WHITE: Final = "\x1b[38;5;16;48;5;231m"
RESET: Final = "\x1b[0m"
HALF_BLOCKS: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def terminal_qr(text: str) -> str:
    """Return lines of half blocks that a camera reads as this text in upper case.

    Upper case because that makes the code smaller, and bech32 is the same in either (BIP 173).
    Two rows of modules share a line, so that they come out square.

    Raises:
        ValueError: If the text is too long for a QR code.
    """
    if len(text) > QR_LENGTH_MAX:
        raise ValueError(f"text: expected at most {QR_LENGTH_MAX} characters, received {len(text)}")
    code = segno.make_qr(text.upper(), error="l")
    rows = [tuple(row) for row in code.matrix_iter(border=QUIET_ZONE)]
    rows.append((0,) * len(rows[0]))  # The sides are odd, and lines take rows in pairs.
    return "\n".join(
        BLACK_ON_WHITE
        + "".join(HALF_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        + RESET
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
