"""What two machines tell one another: the contents of BOLT 2 messages, without their encoding.

Signatures, secrets and nonces are made elsewhere: `CommitmentDue` and `RevocationDue` say for what.
"""

from dataclasses import dataclass

from cromford.channel.content import CommitmentContent


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAdd:
    """`update_add_htlc`. `payload` is the onion and whatever else belongs to it, opaque here."""

    htlc_id: int
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFulfill:
    """`update_fulfill_htlc`: the peer's HTLC is paid."""

    htlc_id: int
    preimage: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFail:
    """`update_fail_htlc`: the peer's HTLC is given back. `reason` is opaque here (BOLT 4)."""

    htlc_id: int
    reason: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase:
    """The opener's: from here on commitments are for the next funding, and for no other.

    It holds `capacity_sat`; what that is more than the present one's is the opener's, and the
    accepter pays it `price_msat`. `advance_id` names the next funding, opaque here.
    """

    advance_id: bytes
    capacity_sat: int
    price_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentDue:
    """The peer's commitment with this content is to be signed, for every funding that it is for.

    `per_commitment_point` is the peer's for this number. After a reconnection the same content
    comes again, to be signed with fresh nonces.
    """

    content: CommitmentContent
    per_commitment_point: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationDue:
    """`revoke_and_ack` is due: the secret of commitment `number`, the point of `next_number`."""

    number: int

    @property
    def next_number(self) -> int:
        """The commitment whose per-commitment point goes along."""
        return self.number + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reestablish:
    """`channel_reestablish`: which commitment and which revocation its sender waits for.

    `last_secret` is the last per-commitment secret it received, all zero before the first.
    """

    next_commitment_number: int
    next_revocation_number: int
    last_secret: bytes


HtlcUpdate = UpdateAdd | UpdateFulfill | UpdateFail
Update = HtlcUpdate | Rebase
Outgoing = Update | CommitmentDue | RevocationDue
