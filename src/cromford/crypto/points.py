"""Products on secp256k1, which only BOLT 3's revocation keys need."""

from btclib_secp256k1 import keys as _keys

from cromford.crypto import curve


def seckey_mul(seckey: bytes, factor: bytes) -> bytes:
    """Return seckey * factor modulo the group order.

    Raises:
        ValueError: If the seckey or the factor is out of range.
    """
    return bytes(_keys.prvkey_tweak_mul(seckey, factor))


def weighted_sum(left: bytes, left_factor: bytes, right: bytes, right_factor: bytes) -> bytes:
    """Return left * left_factor + right * right_factor as a pubkey.

    Raises:
        ValueError: If a point is not on the curve, a factor out of range, or the sum infinity.
    """
    return curve.pubkey_mul_sum((left, right), (left_factor, right_factor))
