"""Keys on secp256k1, and the hashes that bind them.

A *seckey* is 32 bytes, a *pubkey* 33 (compressed), an *x-only pubkey* 32 (BIP 340).
"""

import hashlib
from typing import Final

from btclib_secp256k1 import ecdh as _ecdh
from btclib_secp256k1 import keys as _keys
from btclib_secp256k1 import recovery as _recovery
from btclib_secp256k1 import xonly as _xonly

from cromford.crypto import curve

SECKEY_SIZE: Final = curve.SECKEY_SIZE
PUBKEY_SIZE: Final = curve.PUBKEY_SIZE
XONLY_PUBKEY_SIZE: Final = curve.XONLY_PUBKEY_SIZE


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of `data`."""
    return hashlib.sha256(data).digest()


def sha256d(data: bytes) -> bytes:
    """Return the double SHA-256 of `data`."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


class TaggedHash:
    """BIP 340's tagged hash of one tag: SHA-256(SHA-256(tag) || SHA-256(tag) || data).

    Each tag has one, made where it is named, so that the tag itself is hashed once.
    """

    __slots__ = ("_prefix",)

    def __init__(self, tag: str) -> None:
        self._prefix = sha256(tag.encode()) * 2

    def __call__(self, data: bytes) -> bytes:
        """Return the hash of `data`."""
        return hashlib.sha256(self._prefix + data).digest()


def pubkey_of(seckey: bytes) -> bytes:
    """Return the pubkey of `seckey`.

    Raises:
        ValueError: If `seckey` is not a scalar in 1..n-1.
    """
    return curve.pubkey_create(seckey)


def xonly_of(pubkey: bytes) -> bytes:
    """Return the x-only form of `pubkey` (BIP 340)."""
    return pubkey[1:]


def is_pubkey(pubkey: bytes) -> bool:
    """Say whether these 33 bytes are a point on the curve in compressed form."""
    try:
        curve.parsed(pubkey)
    except ValueError:
        return False
    return True


def is_seckey(seckey: bytes) -> bool:
    """Say whether these 32 bytes are a scalar in 1..n-1."""
    return len(seckey) == SECKEY_SIZE and bool(_keys.prvkey_verify(seckey))


def seckey_add(seckey: bytes, tweak: bytes) -> bytes:
    """Return seckey + tweak modulo the group order (BIP 32's private child derivation).

    Raises:
        ValueError: If the seckey or the tweak is out of range or the sum is zero.
    """
    return bytes(_keys.prvkey_tweak_add(seckey, tweak))


def xonly_tweak(xonly_pubkey: bytes, tweak: bytes) -> tuple[bytes, int]:
    """Return (x-only pubkey, parity) of lift_x(xonly_pubkey) + tweak*G (BIP 341).

    Raises:
        ValueError: If the key is not 32 bytes of a point or the tweak is out of range.
    """
    return curve.xonly_tweak_add(xonly_pubkey, tweak)


def xonly_tweak_seckey(seckey: bytes, tweak: bytes) -> bytes:
    """Return the seckey of the x-only pubkey that `xonly_tweak` gives (BIP 341).

    Raises:
        ValueError: If the seckey or the tweak is out of range or the sum is zero.
    """
    return bytes(_xonly.prvkey_tweak_add(seckey, tweak))


def pubkey_add(pubkey: bytes, tweak: bytes) -> bytes:
    """Return pubkey + tweak*G (BIP 32's public child derivation).

    Raises:
        ValueError: If it is no point, the tweak exceeds the order, or the sum is infinity.
    """
    return curve.pubkey_tweak_add(pubkey, tweak)


def shared_secret(pubkey: bytes, seckey: bytes) -> bytes:
    """Return SHA-256 of the compressed product of both keys (BOLT 8's ECDH).

    Raises:
        ValueError: If the pubkey is not a point or the seckey out of range.
    """
    return bytes(_ecdh.shared_secret(pubkey, seckey))


def sign_recoverable(digest: bytes, seckey: bytes) -> bytes:
    """Return an ECDSA signature from which the pubkey can be recovered (BOLT 11).

    64 bytes, low S, and one byte of recovery id. The nonce is RFC 6979's.

    Raises:
        ValueError: If the digest is not 32 bytes or the seckey out of range.
    """
    compact, recovery_id = _recovery.sign(digest, seckey)
    return bytes(compact) + recovery_id.to_bytes(1, "big")
