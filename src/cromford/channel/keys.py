"""BOLT 3 key derivation: every commitment has keys of its own, made from basepoints.

The holder of a commitment reveals its per-commitment secret to revoke it; from then on the peer
can compute the revocation seckey, and with it take every output of that commitment.
"""

from dataclasses import dataclass

from cromford.changed import computed
from cromford.crypto.keys import pubkey_add, sha256, xonly_of
from cromford.crypto.points import weighted_sum
from cromford.signing.keychain import ChannelPubkeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Basepoints:
    """What one party's commitment keys are derived from (BOLT 2 `open_channel`'s names)."""

    revocation: bytes
    payment: bytes
    delayed_payment: bytes
    htlc: bytes

    @classmethod
    def of(cls, pubkeys: ChannelPubkeys) -> "Basepoints":
        """Return the basepoints among a channel's pubkeys."""
        return cls(
            revocation=pubkeys.revocation_basepoint,
            payment=pubkeys.payment_basepoint,
            delayed_payment=pubkeys.delayed_payment_basepoint,
            htlc=pubkeys.htlc_basepoint,
        )


@dataclass(frozen=True, kw_only=True)
class CommitmentKeys:
    """The x-only keys in the scripts of one commitment, as its holder sees them.

    Those of HTLCs are derived when asked for: a commitment without HTLCs has no use for them.
    """

    revocation: bytes
    holder_delayed: bytes
    per_commitment_point: bytes
    holder_htlc_basepoint: bytes
    peer_htlc_basepoint: bytes

    @computed
    def holder_htlc(self) -> bytes:
        """What the holder signs its HTLC transactions with."""
        return xonly_of(derive_pubkey(self.holder_htlc_basepoint, self.per_commitment_point))

    @computed
    def peer_htlc(self) -> bytes:
        """What the peer signs them with, and claims HTLCs with itself."""
        return xonly_of(derive_pubkey(self.peer_htlc_basepoint, self.per_commitment_point))


def derive_pubkey(basepoint: bytes, per_commitment_point: bytes) -> bytes:
    """Return the pubkey of one commitment for a basepoint (BOLT 3, "localpubkey").

    Raises:
        ValueError: If a point is not on the curve.
    """
    return pubkey_add(basepoint, sha256(per_commitment_point + basepoint))


def revocation_pubkey(revocation_basepoint: bytes, per_commitment_point: bytes) -> bytes:
    """Return the revocation pubkey of one commitment (BOLT 3, "revocationpubkey").

    Args:
        revocation_basepoint: Of the peer, who may punish.
        per_commitment_point: Of the holder.

    Raises:
        ValueError: If a point is not on the curve.
    """
    return weighted_sum(
        revocation_basepoint,
        sha256(revocation_basepoint + per_commitment_point),
        per_commitment_point,
        sha256(per_commitment_point + revocation_basepoint),
    )


def commitment_keys(
    *, holder: Basepoints, peer: Basepoints, per_commitment_point: bytes
) -> CommitmentKeys:
    """Return the keys of the holder's commitment with this per-commitment point.

    Raises:
        ValueError: If a point is not on the curve.
    """
    return CommitmentKeys(
        revocation=xonly_of(revocation_pubkey(peer.revocation, per_commitment_point)),
        holder_delayed=xonly_of(derive_pubkey(holder.delayed_payment, per_commitment_point)),
        per_commitment_point=per_commitment_point,
        holder_htlc_basepoint=holder.htlc,
        peer_htlc_basepoint=peer.htlc,
    )
