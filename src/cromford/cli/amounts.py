"""Amounts as people type them: as they are printed, with thousands and a unit, or in bitcoin."""

import re
from decimal import Decimal
from typing import Final

MSAT_PER_UNIT: Final = {"": 1_000, "sat": 1_000, "msat": 1, "btc": 100_000_000_000}
_AMOUNT: Final = re.compile(
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3}){1,6}|[0-9]{1,20})(?P<part>\.[0-9]{1,11})? ?"
    r"(?P<unit>sat|msat|btc|)",
    re.ASCII | re.IGNORECASE,
)
EXPECTED: Final = "a whole number of sat, as in 10,000, or 1500msat, or 0.001btc"


def msat_of(text: str) -> int | None:
    """Return an amount in millisatoshi, or None where it is none.

    A number without a unit is in sat. Thousands may be parted by commas, in their places. A part of
    one is for bitcoin only: whoever types half a satoshi has mistaken the unit. Nor is an amount
    taken that is no whole number of millisatoshi.
    """
    found = _AMOUNT.fullmatch(text.strip(" "))
    if found is None:
        return None
    unit = found["unit"].lower()
    if found["part"] and unit != "btc":
        return None
    number = Decimal(found["whole"].replace(",", "") + (found["part"] or ""))
    amount_msat = number * MSAT_PER_UNIT[unit]
    return int(amount_msat) if amount_msat == int(amount_msat) else None


def sat_of(text: str) -> int | None:
    """Return an amount in satoshi, or None where it is none, or no whole number of them."""
    amount_msat = msat_of(text)
    if amount_msat is None or amount_msat % MSAT_PER_UNIT["sat"]:
        return None
    return amount_msat // MSAT_PER_UNIT["sat"]
