"""Who has a signature can prove it, and nobody else can."""

import pytest

from cromford.crypto import schnorr
from cromford.crypto.keys import pubkey_of, sha256, xonly_of
from cromford.crypto.signature_proof import is_proved, nonce_of, prove

SECKEYS = [bytes(31) + bytes([number]) for number in (1, 2, 3, 77)]
DIGEST = sha256(b"a commitment")
STATEMENT = b"number 7"


@pytest.mark.parametrize("seckey", SECKEYS)
def test_who_has_a_signature_proves_it(seckey: bytes) -> None:
    key = xonly_of(pubkey_of(seckey))
    for number in range(8):  # Both parities of every point.
        signature = schnorr.sign(DIGEST, seckey, aux_rand=bytes([number]) * 32)
        proof = prove(signature, STATEMENT)
        assert proof == prove(signature, STATEMENT)
        assert signature[32:] not in proof
        told = {"nonce": nonce_of(signature), "digest": DIGEST, "xonly_pubkey": key}
        assert is_proved(proof, STATEMENT, **told)
        assert not is_proved(proof, b"number 8", **told)
        assert not is_proved(proof, STATEMENT, **{**told, "digest": sha256(b"another")})
        assert not is_proved(proof, STATEMENT, **{**told, "nonce": key})
        other = xonly_of(pubkey_of(sha256(seckey)))
        assert not is_proved(proof, STATEMENT, **{**told, "xonly_pubkey": other})


def test_a_nonce_that_was_chosen_for_it_proves_nothing() -> None:
    """Who has no signature may choose any nonce whose logarithm it knows."""
    key = xonly_of(pubkey_of(SECKEYS[0]))
    own = sha256(b"whoever")
    forged = prove(bytes(32) + own, STATEMENT)
    told = {"digest": DIGEST, "xonly_pubkey": key}
    assert not is_proved(forged, STATEMENT, nonce=xonly_of(pubkey_of(own)), **told)


@pytest.mark.parametrize(
    ("nonce", "proof"),
    [(b"", bytes(64)), (bytes(32), bytes(64)), (b"\xff" * 32, bytes(64)), (bytes(33), bytes(64))],
)
def test_what_is_malformed_proves_nothing(nonce: bytes, proof: bytes) -> None:
    key = xonly_of(pubkey_of(SECKEYS[0]))
    assert not is_proved(proof, STATEMENT, nonce=nonce, digest=DIGEST, xonly_pubkey=key)
