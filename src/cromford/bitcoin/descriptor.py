"""Output descriptors with their checksum (BIP 380): other software derives our scripts."""

from collections.abc import Sequence
from functools import reduce
from operator import xor
from typing import Final

from cromford.bitcoin.address import CHARSET

INPUT_CHARSET: Final = (
    "0123456789()[],'/*abcdefgh@:$%{}"
    "IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~"
    'ijklmnopqrstuvwxyzABCDEFGH`#"\\ '
)
GENERATOR: Final = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
CHECKSUM_LENGTH: Final = 8
_POSITIONS: Final = {char: position for position, char in enumerate(INPUT_CHARSET)}
# By the five bits that leave the checksum: what they add to it.
_ADDED: Final = tuple(
    reduce(xor, (generator for i, generator in enumerate(GENERATOR) if top >> i & 1), 0)
    for top in range(32)
)


def with_checksum(descriptor: str) -> str:
    """Return the descriptor followed by `#` and its checksum.

    Raises:
        ValueError: If a character is outside BIP 380's set.
    """
    symbols: list[int] = []
    groups: list[int] = []
    for char in descriptor:
        position = _POSITIONS.get(char)
        if position is None:
            raise ValueError(f"a descriptor cannot hold {char!r}")
        symbols.append(position & 31)
        groups.append(position >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if len(groups) == 1:
        symbols.append(groups[0])
    elif len(groups) == 2:
        symbols.append(groups[0] * 3 + groups[1])
    checksum = _polymod([*symbols, *[0] * CHECKSUM_LENGTH]) ^ 1
    return f"{descriptor}#" + "".join(
        CHARSET[(checksum >> 5 * (7 - i)) & 31] for i in range(CHECKSUM_LENGTH)
    )


def musig_expression(pubkeys: Sequence[bytes]) -> str:
    """Return BIP 390's key expression, with the keys in `KeySort` order."""
    return f"musig({','.join(pubkey.hex() for pubkey in sorted(pubkeys))})"


def tr_descriptor(internal: str, tapleaf: str | None = None) -> str:
    """Return `tr(...)` (BIP 386) of a key expression and a miniscript, with its checksum."""
    return with_checksum(f"tr({internal})" if tapleaf is None else f"tr({internal},{tapleaf})")


def _polymod(symbols: list[int]) -> int:
    checksum = 1
    for symbol in symbols:
        checksum = (checksum & 0x7FFFFFFFF) << 5 ^ symbol ^ _ADDED[checksum >> 35]
    return checksum
