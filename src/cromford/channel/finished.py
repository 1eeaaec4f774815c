"""A commitment that its holder can broadcast alone: what a channel's safety rests on."""

from dataclasses import dataclass

from cromford.bitcoin.tx import Tx
from cromford.changed import computed
from cromford.channel.commitment import Commitment
from cromford.channel.verification import check_commitment_signature, check_htlc_signatures


@dataclass(frozen=True, kw_only=True)
class FinishedCommitment:
    """The holder's own commitment with every signature that only the peer could give.

    Attributes:
        commitment: Built by the holder itself.
        signature: 64 bytes, of both funding keys together.
        htlc_signatures: The peer's, in the order of the commitment's outputs.
    """

    commitment: Commitment
    signature: bytes
    htlc_signatures: tuple[bytes, ...] = ()

    @computed
    def tx(self) -> Tx:
        """The transaction, ready to be published."""
        return self.commitment.signed(self.signature)


def finish_commitment(
    commitment: Commitment, *, signature: bytes, htlc_signatures: tuple[bytes, ...] = ()
) -> FinishedCommitment:
    """Return a commitment ready to be published, after checking every signature.

    Raises:
        PeerViolation: If one is missing, too many or not valid; names the field.
    """
    check_commitment_signature(commitment, signature)
    check_htlc_signatures(commitment, htlc_signatures)
    return FinishedCommitment(
        commitment=commitment, signature=signature, htlc_signatures=htlc_signatures
    )
