"""BIP 340 signatures."""

from typing import Final

from btclib_secp256k1 import ssa as _ssa

from cromford.crypto.keys import XONLY_PUBKEY_SIZE

SIGNATURE_SIZE: Final = 64


def sign(message: bytes, seckey: bytes, *, aux_rand: bytes | None = None) -> bytes:
    """Return the 64-byte signature of a 32-byte message.

    Without `aux_rand` the library draws its own auxiliary randomness.

    Raises:
        ValueError: If a length or the seckey is wrong.
    """
    return bytes(_ssa.sign(message, seckey, aux_rand))


def verify(signature: bytes, message: bytes, xonly_pubkey: bytes) -> bool:
    """Say whether the signature is valid. Malformed keys and signatures are invalid."""
    # The library reads the x of a 33-byte key too; then one signature would have two keys.
    if len(xonly_pubkey) != XONLY_PUBKEY_SIZE:
        return False
    try:
        return bool(_ssa.verify(message, xonly_pubkey, signature))
    except ValueError:
        return False
