"""What stands before an invoice's data: `ln`, the network and the amount (BOLT 11).

The prefix is checked before anything is decoded, so that an invoice of another network or without
an amount is refused by that name and not by a library's.
"""

import re
from typing import Final

from cromford.bitcoin.network import Network
from cromford.invoice.invoice import InvalidInvoice

# BOLT 11's own codes: a signet address begins like a testnet one (BIP 173), its invoice does not.
# The BOLT knows one testnet; of ours, that is testnet4.
CURRENCIES: Final = {"mainnet": "bc", "testnet4": "tb", "signet": "tbs", "regtest": "bcrt"}
NAMES: Final = {currency: name for name, currency in CURRENCIES.items()}
# The longest code first: every one but `bcrt` and `tbs` begins another.
PREFIX: Final = re.compile(r"ln(bcrt|bc|tbs|tb)([0-9].*)?")
# 21 million bitcoin are 20 digits of pico-bitcoin.
AMOUNT: Final = re.compile(r"[1-9][0-9]{0,19}([munp]?)")
MULTIPLIERS: Final = "munp"  # Each a thousandth of the one before; the first, of a bitcoin.
PICO: Final = "p"


def check_prefix(prefix: str, network: Network) -> None:
    """Check that an invoice is of this network and asks for whole millisatoshi.

    Args:
        prefix: What stands before the last `1`, in lower case.
        network: Ours.

    Raises:
        InvalidInvoice: If it is of another network (both are named), has no amount, or one that
            is malformed, finer than a millisatoshi, or longer than BOLT 11 lets it be written.
    """
    matched = PREFIX.fullmatch(prefix)
    if matched is None or matched[1] != CURRENCIES[network.name]:
        raise InvalidInvoice(
            "network",
            expected=f"{network.name} (ln{CURRENCIES[network.name]})",
            received=f"{NAMES[matched[1]]} (ln{matched[1]})" if matched else repr(prefix[:8]),
        )
    amount = matched[2]
    if amount is None:
        raise InvalidInvoice("amount", expected="an amount", received="none")
    parsed = AMOUNT.fullmatch(amount)
    if parsed is None:
        raise InvalidInvoice(
            "amount", expected="up to 20 digits, then m, u, n, p or nothing", received=amount
        )
    if parsed[1] == PICO and not amount.endswith("0p"):
        raise InvalidInvoice("amount", expected="whole millisatoshi", received=amount)
    shortest = _shortest(amount)
    if amount != shortest:
        # The library hashes the amount as it would write it: another digest, another payee.
        raise InvalidInvoice(
            "amount", expected=f"it as short as can be, {shortest}", received=amount
        )


def _shortest(amount: str) -> str:
    """Return an amount with the largest multiplier that leaves it whole (BOLT 11)."""
    digits, multiplier = amount.rstrip(MULTIPLIERS), amount.lstrip("0123456789")
    while multiplier and digits.endswith("000"):
        digits = digits.removesuffix("000")
        multiplier = MULTIPLIERS[: MULTIPLIERS.index(multiplier)][-1:]
    return digits + multiplier
