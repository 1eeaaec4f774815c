"""BOLT 3's derived seckeys: what signs for the keys in a commitment's scripts.

The pubkeys are derived in the channel room, by whoever builds a commitment.
"""

from enum import Enum

from cromford.crypto.keys import pubkey_of, seckey_add, sha256
from cromford.crypto.points import seckey_mul


class ClaimKey(Enum):
    """Which key of a channel takes an output of a commitment, by the secret it is derived from."""

    REVOCATION = "revocation"  # `revocation_seckey`, with the revealed secret
    PAYMENT = "payment"  # the payment basepoint's secret itself
    DELAYED = "delayed_payment"  # `derive_seckey`
    HTLC = "htlc"  # `derive_seckey`


def derive_seckey(
    basepoint_secret: bytes, per_commitment_point: bytes, *, basepoint: bytes | None = None
) -> bytes:
    """Return the seckey of one commitment for a basepoint's secret (BOLT 3, "localprivkey").

    Args:
        basepoint_secret: The secret.
        per_commitment_point: Of the commitment's holder.
        basepoint: Its pubkey, if it is known.

    Raises:
        ValueError: If the secret is out of range.
    """
    basepoint = basepoint or pubkey_of(basepoint_secret)
    return seckey_add(basepoint_secret, sha256(per_commitment_point + basepoint))


def revocation_seckey(revocation_basepoint_secret: bytes, per_commitment_secret: bytes) -> bytes:
    """Return the seckey of a revocation pubkey, once the holder has revoked (BOLT 3).

    Raises:
        ValueError: If a secret is out of range.
    """
    basepoint = pubkey_of(revocation_basepoint_secret)
    point = pubkey_of(per_commitment_secret)
    return seckey_add(
        seckey_mul(revocation_basepoint_secret, sha256(basepoint + point)),
        seckey_mul(per_commitment_secret, sha256(point + basepoint)),
    )
