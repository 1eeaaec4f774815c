"""BIP 340 signatures."""

from typing import Final

from btclib_secp256k1 import ssa as _ssa

from cromford.crypto import curve

SIGNATURE_SIZE: Final = curve.SIGNATURE_SIZE


def sign(message: bytes, seckey: bytes, *, aux_rand: bytes | None = None) -> bytes:
    """Return the 64-byte signature of a 32-byte message.

    Without `aux_rand` the library draws its own auxiliary randomness.

    Raises:
        ValueError: If a length or the seckey is wrong.
    """
    return bytes(_ssa.sign(message, seckey, aux_rand))


def verify(signature: bytes, message: bytes, xonly_pubkey: bytes) -> bool:
    """Say whether the signature is valid. Malformed keys and signatures are invalid."""
    try:
        return curve.schnorr_verify(signature, message, xonly_pubkey)
    except ValueError:
        return False
