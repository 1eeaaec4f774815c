"""BOLT 3 key derivation, with the values of its appendix E."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.channel.keys import (
    Basepoints,
    derive_pubkey,
    revocation_pubkey,
)
from cromford.crypto.keys import pubkey_of
from cromford.crypto.points import weighted_sum
from cromford.signing.derivation import derive_seckey, revocation_seckey
from cromford.signing.keychain import ChannelPubkeys

BASE_SECRET = bytes(range(32))
COMMITMENT_SECRET = bytes(reversed(range(32)))
BASE_POINT = pubkey_of(BASE_SECRET)
COMMITMENT_POINT = pubkey_of(COMMITMENT_SECRET)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))


def test_appendix_e_is_reproduced() -> None:
    assert BASE_POINT.hex() == "036d6caac248af96f6afa7f904f550253a0f3ef3f5aa2fe6838a95b216691468e2"
    assert derive_pubkey(BASE_POINT, COMMITMENT_POINT).hex() == (
        "0235f2dbfaa89b57ec7b055afe29849ef7ddfeb1cefdb9ebdc43f5494984db29e5"
    )
    assert derive_seckey(BASE_SECRET, COMMITMENT_POINT).hex() == (
        "cbced912d3b21bf196a766651e436aff192362621ce317704ea2f75d87e7be0f"
    )
    assert revocation_pubkey(BASE_POINT, COMMITMENT_POINT).hex() == (
        "02916e326636d19c33f13e8c0c3a03dd157f332f3e99c317c141dd865eb01f8ff0"
    )
    assert revocation_seckey(BASE_SECRET, COMMITMENT_SECRET).hex() == (
        "d09ffff62ddb2297ab000cc85bcb4283fdeb6aa052affbc9dddcf33b61078110"
    )


@given(basepoint_secret=seckeys, commitment_secret=seckeys)
def test_every_derived_seckey_is_that_of_the_derived_pubkey(
    basepoint_secret: bytes, commitment_secret: bytes
) -> None:
    basepoint, point = pubkey_of(basepoint_secret), pubkey_of(commitment_secret)
    assert pubkey_of(derive_seckey(basepoint_secret, point)) == derive_pubkey(basepoint, point)
    assert pubkey_of(revocation_seckey(basepoint_secret, commitment_secret)) == (
        revocation_pubkey(basepoint, point)
    )


def test_a_sum_at_infinity_is_refused() -> None:
    negated = bytes((BASE_POINT[0] ^ 1,)) + BASE_POINT[1:]
    one = (1).to_bytes(32, "big")
    with pytest.raises(ValueError, match="infinity"):
        weighted_sum(BASE_POINT, one, negated, one)


def test_basepoints_are_those_of_the_channel_keys() -> None:
    pubkeys = [pubkey_of(bytes(31) + bytes((n,))) for n in range(1, 8)]
    basepoints = Basepoints.of(
        ChannelPubkeys(
            funding_pubkey=pubkeys[0],
            revocation_basepoint=pubkeys[1],
            payment_basepoint=pubkeys[2],
            delayed_payment_basepoint=pubkeys[3],
            htlc_basepoint=pubkeys[4],
            first_per_commitment_point=pubkeys[5],
            second_per_commitment_point=pubkeys[6],
        )
    )
    assert basepoints == Basepoints(
        revocation=pubkeys[1],
        payment=pubkeys[2],
        delayed_payment=pubkeys[3],
        htlc=pubkeys[4],
    )
