"""An invoice: what a payee asks for, who it is, and through whom it can be reached (BOLT 11).

An `Invoice` is always valid: what no invoice of ours may be is refused as it is made. Time is not
judged here, because this floor has no clock: whoever pays looks at `expires_at` and its own clock.
"""

from dataclasses import dataclass, field
from typing import Final

from cromford.bitcoin.network import Network
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.crypto import keys

AMOUNT_MSAT_MAX: Final = 1000 * MAX_MONEY_SAT
CREATED_AT_MAX: Final = (1 << 35) - 1  # BOLT 11: the timestamp has 35 bits.
DESCRIPTION_SIZE_MAX: Final = 639  # BOLT 11: the whole bytes in 1023 groups of 5 bits.
# BOLT 11 bounds neither. A hundred years of seconds, and a delta as wide as BOLT 7's.
EXPIRY_SECONDS_MAX: Final = 0xFFFF_FFFF
MIN_FINAL_CLTV_EXPIRY_DELTA_MAX: Final = 0xFFFF
UINT16_MAX: Final = 0xFFFF
UINT32_MAX: Final = 0xFFFF_FFFF
HASH_SIZE: Final = 32


class InvalidInvoice(ValueError):
    """This is no invoice that we write or pay. Names the field, the expected and the received."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteHint:
    """The LSP through which alone the payee is reached, and what it takes for the last hop.

    Raises:
        InvalidInvoice: If the key is no point or a number does not fit its field (BOLT 11, `r`).
    """

    lsp_node_id: bytes
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int  # In blocks.

    def __post_init__(self) -> None:
        _check_pubkey("route_hint.lsp_node_id", self.lsp_node_id)
        for name, value, last in (
            ("fee_base_msat", self.fee_base_msat, UINT32_MAX),
            ("fee_proportional_millionths", self.fee_proportional_millionths, UINT32_MAX),
            ("cltv_expiry_delta", self.cltv_expiry_delta, UINT16_MAX),
        ):
            _check_range(f"route_hint.{name}", value, first=0, last=last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """What a payee asks for.

    The description is the payee's own words, any UTF-8 at all: whoever shows it must escape it.
    It is empty where the invoice only commits to a description by its hash.

    Raises:
        InvalidInvoice: If a field is out of range.
    """

    network: Network
    payee: bytes  # The node id, 33 bytes.
    amount_msat: int
    payment_hash: bytes
    payment_secret: bytes = field(repr=False)
    description: str
    created_at: int  # Seconds since 1970, UTC.
    expiry_seconds: int
    min_final_cltv_expiry_delta: int  # In blocks.
    route_hint: RouteHint | None = None

    def __post_init__(self) -> None:
        _check_pubkey("payee", self.payee)
        _check_size("payment_hash", self.payment_hash)
        _check_size("payment_secret", self.payment_secret)
        try:
            n_bytes = len(self.description.encode())
        except UnicodeEncodeError as error:
            raise InvalidInvoice("description", expected="UTF-8", received=error.reason) from error
        if n_bytes > DESCRIPTION_SIZE_MAX:
            expected = f"at most {DESCRIPTION_SIZE_MAX} bytes of UTF-8"
            raise InvalidInvoice("description", expected=expected, received=f"{n_bytes} bytes")
        for name, value, first, last in (
            ("amount_msat", self.amount_msat, 1, AMOUNT_MSAT_MAX),
            ("created_at", self.created_at, 0, CREATED_AT_MAX),
            ("expiry_seconds", self.expiry_seconds, 1, EXPIRY_SECONDS_MAX),
            (
                "min_final_cltv_expiry_delta",
                self.min_final_cltv_expiry_delta,
                0,
                MIN_FINAL_CLTV_EXPIRY_DELTA_MAX,
            ),
        ):
            _check_range(name, value, first=first, last=last)

    @property
    def expires_at(self) -> int:
        """From this second on (since 1970, UTC) nobody should pay it, nor accept a payment."""
        return self.created_at + self.expiry_seconds


def _check_pubkey(name: str, value: bytes) -> None:
    if not keys.is_pubkey(value):
        raise InvalidInvoice(name, expected="a compressed point", received=value.hex())


def _check_size(name: str, value: bytes) -> None:
    if len(value) != HASH_SIZE:
        raise InvalidInvoice(name, expected=f"{HASH_SIZE} bytes", received=f"{len(value)} bytes")


def _check_range(name: str, value: int, *, first: int, last: int) -> None:
    if not first <= value <= last:
        raise InvalidInvoice(name, expected=f"{first}..{last}", received=value)
