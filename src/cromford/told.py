"""Amounts and numbers as people are told them, in answers, errors and reasons alike."""

from typing import Final

MSAT_PER_SAT: Final = 1000
_SAT_PER_KW_OF_SAT_PER_VB: Final = 250


def sat(amount_sat: int) -> str:
    """Return an amount with its unit: `10,000 sat`."""
    return f"{amount_sat:,} sat"


def msat(amount_msat: int) -> str:
    """Return an amount of millisatoshi with its unit: in sat where it is whole."""
    if amount_msat % MSAT_PER_SAT:
        return f"{amount_msat:,} msat"
    return sat(amount_msat // MSAT_PER_SAT)


def feerate(sat_per_kw: int) -> str:
    """Return a feerate, given in sat per 1000 weight units, as people type it: `2.5 sat/vB`."""
    whole = f"{sat_per_kw / _SAT_PER_KW_OF_SAT_PER_VB:,.3f}"
    return f"{whole.rstrip('0').rstrip('.')} sat/vB"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """Return how many of something there are: `1 client`, `2 clients`.

    Args:
        number: How many.
        thing: What one of them is called.
        things: What several are called; None for `thing` with an s.
    """
    several = f"{thing}s" if things is None else things
    return f"{number:,} {thing if number == 1 else several}"


def shown(field: str, value: object) -> str:
    """Return a value as an error shows it: nobody counts the digits of an amount in millisatoshi.

    Args:
        field: What it is the value of.
        value: Bytes are shown in hex, and the hash of a transaction or of a network's first block
            as people read it, also where it came as mere bytes in a field of that name; a number
            of `…_msat` with its unit, in sat where it is whole, and of
            `…_sat_per_kw` in sat/vB.
    """
    if type(value) is bytes:
        return value[::-1].hex() if field.endswith(("txid", "network")) else value.hex()
    if isinstance(value, int) and field.endswith("_msat"):
        return msat(value)
    if isinstance(value, int) and field.endswith("_sat_per_kw"):
        return feerate(value)
    return str(value)
