"""To prove that one has a signature without giving it away.

A BIP 340 signature (R, s) of a message m by a key P has s*G = R + e*P, where e is BIP 340's
challenge. Whoever knows R, P and m computes that point; only who has the signature knows its
discrete logarithm s. So a signature by *that* point, for which s is the seckey, proves that one has
(R, s), and shows nothing of s. Nobody else makes it: its knowledge error is that of Schnorr's
signatures themselves, for whoever chose R after e would have solved e = H(R, P, m).
"""

from typing import Final

from cromford.crypto import schnorr
from cromford.crypto.keys import (
    SECKEY_SIZE,
    XONLY_PUBKEY_SIZE,
    TaggedHash,
    is_seckey,
    xonly_of,
)
from cromford.crypto.points import weighted_sum

ONE: Final = (1).to_bytes(SECKEY_SIZE, "big")
_hash_challenge: Final = TaggedHash("BIP0340/challenge")
_hash_statement: Final = TaggedHash("cromford/signature-proof")


def nonce_of(signature: bytes) -> bytes:
    """Return the public part of a signature: its nonce's x coordinate, 32 bytes."""
    return signature[:XONLY_PUBKEY_SIZE]


def prove(signature: bytes, statement: bytes) -> bytes:
    """Return 64 bytes that prove that one has a signature, bound to a statement.

    The same for the same signature and statement.

    Args:
        signature: 64 bytes, valid (BIP 340).
        statement: What is said with it; a proof is of no use for another.

    Raises:
        ValueError: If there is no such signature.
    """
    seckey = signature[XONLY_PUBKEY_SIZE:]
    return schnorr.sign(_hash_statement(statement), seckey, aux_rand=bytes(SECKEY_SIZE))


def is_proved(
    proof: bytes, statement: bytes, *, nonce: bytes, digest: bytes, xonly_pubkey: bytes
) -> bool:
    """Say whether somebody who made this proof has a signature. What is malformed proves nothing.

    Args:
        proof: 64 bytes.
        statement: What is said with it.
        nonce: The signature's, 32 bytes.
        digest: What is signed, 32 bytes.
        xonly_pubkey: Whose signature it is.
    """
    challenge = _hash_challenge(nonce + xonly_pubkey + digest)
    if len(nonce) != XONLY_PUBKEY_SIZE or not is_seckey(challenge):
        return False
    try:
        point = weighted_sum(b"\x02" + xonly_pubkey, challenge, b"\x02" + nonce, ONE)
    except ValueError:
        return False
    return schnorr.verify(proof, _hash_statement(statement), xonly_of(point))
