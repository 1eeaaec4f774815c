"""Why an HTLC was given back: BOLT 4 failure messages, in the clear while there are no onions."""

from enum import IntEnum
from typing import Final

CODE_SIZE: Final = 2


class Failure(IntEnum):
    """A BOLT 4 failure code. 0x4000 is permanent, 0x2000 the node's, 0x1000 may change."""

    TEMPORARY_NODE_FAILURE = 0x2002
    PERMANENT_CHANNEL_FAILURE = 0x4008
    INVALID_ONION_PAYLOAD = 0x4016
    UNKNOWN_NEXT_PEER = 0x400A
    TEMPORARY_CHANNEL_FAILURE = 0x1007
    AMOUNT_BELOW_MINIMUM = 0x100B
    FEE_INSUFFICIENT = 0x100C
    INCORRECT_CLTV_EXPIRY = 0x100D
    EXPIRY_TOO_SOON = 0x100E
    EXPIRY_TOO_FAR = 0x0015
    INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 0x400F

    @property
    def reason(self) -> bytes:
        """The failure message: its code without any data."""
        return self.to_bytes(CODE_SIZE, "big")


def describe_failure(reason: bytes) -> str:
    """Return a failure message as people read it; one that is not known keeps its code."""
    if len(reason) < CODE_SIZE:
        return "no reason given"
    code = int.from_bytes(reason[:CODE_SIZE], "big")
    try:
        return Failure(code).name.lower()
    except ValueError:
        return f"failure 0x{code:04x}"
