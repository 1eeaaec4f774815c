"""How large what messages hold is, or may be, in bytes."""

from typing import Final

PUBKEY_SIZE: Final = 33
SECKEY_SIZE: Final = 32
REASON_SIZE_MAX: Final = 400
SCRIPT_SIZE_MAX: Final = 42  # A script with the longest witness program (BIP 141).
