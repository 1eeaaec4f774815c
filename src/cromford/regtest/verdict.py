"""Why a transaction is refused, in Bitcoin Core's words, which programs compare."""

from enum import Enum, auto
from fractions import Fraction

from cromford.bitcoin.tx import SAT_PER_BTC


class RefusalKind(Enum):
    """What may be done about a refusal."""

    FINAL = auto()  # By the rules, whatever comes with it.
    MISSING_INPUTS = auto()  # Its parent may be unknown.
    FEE = auto()  # It may pass in a package that pays for it.


class MempoolRefused(Exception):
    """A transaction was refused.

    Attributes:
        reason: Core's reject reason, as `bad-txns-inputs-missingorspent`.
        details: What Core's debug message adds, or nothing.
        kind: What may be done about it.
    """

    def __init__(
        self, reason: str, details: str = "", *, kind: RefusalKind = RefusalKind.FINAL
    ) -> None:
        super().__init__(f"{reason}, {details}" if details else reason)
        self.reason = reason
        self.details = details
        self.kind = kind


class PackageRefused(Exception):
    """A package was refused as a whole.

    Attributes:
        is_policy: Whether the package's form is at fault, and not one of its transactions.
    """

    def __init__(self, reason: str, details: str = "", *, is_policy: bool) -> None:
        super().__init__(f"{reason}, {details}" if details else reason)
        self.is_policy = is_policy


def money(amount_sat: int) -> str:
    """Return an amount in bitcoin with at least two decimals, as Core's messages have it."""
    whole, part = divmod(abs(amount_sat), SAT_PER_BTC)
    decimals = f"{part:08d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_sat < 0 else ''}{whole}.{decimals}"


def rate(sat_per_vb: Fraction) -> str:
    """Return a feerate as Core's messages have it: bitcoin per 1000 virtual bytes."""
    whole, part = divmod(int(sat_per_vb * 1000), SAT_PER_BTC)
    return f"{whole}.{part:08d} BTC/kvB"
