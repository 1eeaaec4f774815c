"""Is what the peer sent with `commitment_signed` valid? Each check names the field that is not."""

from collections.abc import Sequence

from cromford.channel.commitment import Commitment
from cromford.channel.errors import PeerViolation
from cromford.channel.htlc_tx import htlc_txs
from cromford.crypto import schnorr


def check_commitment_signature(commitment: Commitment, signature: bytes) -> None:
    """Check a finished signature of a commitment.

    The holder's own half was made by itself over the same bytes, so a bad whole is the peer's.

    Args:
        commitment: Built by the holder itself, never received.
        signature: The 64 bytes aggregated from both partial signatures.

    Raises:
        PeerViolation: If it is not valid; names `partial_signature_with_nonce`.
    """
    task = commitment.signing_task
    if not task.is_signed_by(signature, commitment.funding.txout.script_pubkey[2:]):
        raise PeerViolation(
            "partial_signature_with_nonce",
            expected=f"a signature of commitment {commitment.content.number}",
            received=signature,
        )


def check_htlc_signatures(commitment: Commitment, signatures: Sequence[bytes]) -> None:
    """Check the peer's signatures of the HTLC transactions of the holder's commitment.

    Args:
        commitment: Built by the holder itself, never received.
        signatures: 64 bytes each, in the order of the commitment's outputs.

    Raises:
        PeerViolation: If one is missing, too many or not valid; names `num_htlcs`, or
            `htlc_signature` with its place.
    """
    txs = htlc_txs(commitment)
    if len(signatures) != len(txs):
        raise PeerViolation("num_htlcs", expected=len(txs), received=len(signatures))
    for place, (htlc_tx, signature) in enumerate(zip(txs, signatures, strict=True)):
        if not schnorr.verify(signature, htlc_tx.peer_sighash, commitment.keys.peer_htlc):
            raise PeerViolation(
                f"htlc_signature[{place}]",
                expected=f"a signature of HTLC {htlc_tx.htlc.htlc_id}'s transaction",
                received=signature,
            )
