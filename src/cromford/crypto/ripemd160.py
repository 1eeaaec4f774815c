"""RIPEMD-160, which HTLC scripts hash a payment hash with (BOLT 3).

OpenSSL 3 keeps it in a provider that many systems do not load, so `hashlib` has it on some systems
only. There it is used: it is some hundred times faster than the one written out here.
"""

import hashlib
from typing import Final, NamedTuple

DIGEST_SIZE: Final = 20
_NAME: Final = "ripemd160"
_MASK: Final = 0xFFFF_FFFF

_INITIAL: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_Words = tuple[int, ...]


class _Line(NamedTuple):
    """One of the two lines of five rounds: which word each step reads, how far it turns."""

    words: _Words
    turns: _Words
    constants: _Words
    functions: _Words


_LEFT: Final = _Line(
    words=(
        *range(16),
        *(7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8),
        *(3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12),
        *(1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2),
        *(4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13),
    ),
    turns=(
        *(11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
        *(7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12),
        *(11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5),
        *(11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12),
        *(9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6),
    ),
    constants=(0, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E),
    functions=(0, 1, 2, 3, 4),
)
_RIGHT: Final = _Line(
    words=(
        *(5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12),
        *(6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2),
        *(15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13),
        *(8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14),
        *(12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11),
    ),
    turns=(
        *(8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6),
        *(9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11),
        *(9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5),
        *(15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8),
        *(8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11),
    ),
    constants=(0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0),
    functions=(4, 3, 2, 1, 0),
)


def ripemd160(data: bytes) -> bytes:
    """Return the 20-byte RIPEMD-160 of `data`."""
    try:
        return hashlib.new(_NAME, data, usedforsecurity=False).digest()
    except ValueError:  # OpenSSL does not offer it.
        return ripemd160_in_python(data)


def ripemd160_in_python(data: bytes) -> bytes:
    """Return the same without OpenSSL."""
    padding = b"\x80" + bytes(-(len(data) + 9) % 64) + (8 * len(data)).to_bytes(8, "little")
    padded = data + padding
    state: _Words = _INITIAL
    for start in range(0, len(padded), 64):
        block = tuple(
            int.from_bytes(padded[i : i + 4], "little") for i in range(start, start + 64, 4)
        )
        left, right = _line(_LEFT, state, block), _line(_RIGHT, state, block)
        state = tuple(
            (state[(i + 1) % 5] + left[(i + 2) % 5] + right[(i + 3) % 5]) & _MASK for i in range(5)
        )
    return b"".join(word.to_bytes(4, "little") for word in state)


def _line(line: _Line, state: _Words, block: _Words) -> _Words:
    a, b, c, d, e = state
    for step in range(80):
        round_index = step // 16
        mixed = a + _mix(line.functions[round_index], b, c, d) + block[line.words[step]]
        mixed = (mixed + line.constants[round_index]) & _MASK
        a, b, c, d, e = e, (_turn(mixed, line.turns[step]) + e) & _MASK, b, _turn(c, 10), d
    return a, b, c, d, e


def _mix(function: int, x: int, y: int, z: int) -> int:
    if function == 0:
        return x ^ y ^ z
    if function == 1:
        return (x & y) | (~x & z)
    if function == 2:
        return (x | ~y) ^ z
    if function == 3:
        return (x & z) | (y & ~z)
    return x ^ (y | ~z)


def _turn(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _MASK
