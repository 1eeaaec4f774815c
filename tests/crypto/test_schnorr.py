"""BIP 340 signatures, against the BIP's vectors and a second library."""

from collections.abc import Callable

import pytest
import wallycore
from hypothesis import given
from hypothesis import strategies as st

from cromford.crypto import schnorr
from cromford.crypto.keys import pubkey_of

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))
messages = st.binary(min_size=32, max_size=32)


def test_all_vectors_of_bip_340_verify_as_they_should(
    csv_vectors: Callable[[str], list[dict[str, str]]],
) -> None:
    vectors = csv_vectors("bip340.csv")
    for vector in vectors:
        verdict = schnorr.verify(
            bytes.fromhex(vector["signature"]),
            bytes.fromhex(vector["message"]),
            bytes.fromhex(vector["public key"]),
        )
        assert verdict == (vector["verification result"] == "TRUE"), vector
    assert len(vectors) == 19


def test_all_vectors_of_bip_340_with_a_seckey_sign_to_the_byte(
    csv_vectors: Callable[[str], list[dict[str, str]]],
) -> None:
    """The last four messages are not 32 bytes long; we never sign such a thing."""
    n_signed = 0
    for vector in csv_vectors("bip340.csv"):
        if not vector["secret key"]:
            continue
        seckey = bytes.fromhex(vector["secret key"])
        message = bytes.fromhex(vector["message"])
        aux_rand = bytes.fromhex(vector["aux_rand"])
        assert pubkey_of(seckey)[1:] == bytes.fromhex(vector["public key"])
        if len(message) == 32:
            signature = schnorr.sign(message, seckey, aux_rand=aux_rand)
            assert signature == bytes.fromhex(vector["signature"]), vector
            n_signed += 1
        else:
            with pytest.raises(ValueError, match="32"):
                schnorr.sign(message, seckey, aux_rand=aux_rand)
    assert n_signed == 4


@given(seckey=seckeys, message=messages, aux_rand=st.binary(min_size=32, max_size=32))
def test_a_signature_is_the_one_another_library_makes(
    seckey: bytes, message: bytes, aux_rand: bytes
) -> None:
    signature = schnorr.sign(message, seckey, aux_rand=aux_rand)
    assert signature == bytes(
        wallycore.ec_sig_from_bytes_aux(seckey, message, aux_rand, wallycore.EC_FLAG_SCHNORR)
    )


@given(seckey=seckeys, message=messages, position=st.integers(0, 127), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_makes_a_signature_invalid(
    seckey: bytes, message: bytes, position: int, bit: int
) -> None:
    key = pubkey_of(seckey)[1:]
    signature = schnorr.sign(message, seckey)
    assert schnorr.verify(signature, message, key)
    everything = bytearray(signature + message + key)
    everything[position] ^= 1 << bit
    flipped = bytes(everything)
    assert not schnorr.verify(flipped[:64], flipped[64:96], flipped[96:])


def test_two_signatures_without_given_randomness_differ() -> None:
    seckey, message = bytes(31) + b"\x07", bytes(32)
    assert schnorr.sign(message, seckey) != schnorr.sign(message, seckey)


@given(signature=st.binary(max_size=70), message=st.binary(max_size=40), key=st.binary(max_size=66))
def test_verify_answers_for_any_bytes(signature: bytes, message: bytes, key: bytes) -> None:
    assert not schnorr.verify(signature, message, key)


@given(seckey=seckeys, message=messages)
def test_a_key_with_its_parity_is_not_an_x_only_key(seckey: bytes, message: bytes) -> None:
    signature = schnorr.sign(message, seckey)
    pubkey = pubkey_of(seckey)
    assert schnorr.verify(signature, message, pubkey[1:])
    assert not schnorr.verify(signature, message, pubkey)
    assert not schnorr.verify(signature, message, bytes(wallycore.ec_public_key_decompress(pubkey)))


def test_a_signature_has_64_bytes_and_nothing_behind_them() -> None:
    """One byte more is a hash type (BIP 341), and says that something else was signed."""
    seckey, message = bytes(31) + b"\x01", bytes(32)
    signature = schnorr.sign(message, seckey)
    for size in (63, 65):
        assert not schnorr.verify((signature + b"\x01")[:size], message, pubkey_of(seckey)[1:])


@pytest.mark.parametrize(
    ("message", "seckey", "aux_rand"),
    [
        (bytes(31), bytes(31) + b"\x01", None),
        (bytes(33), bytes(31) + b"\x01", None),
        (bytes(32), bytes(32), None),
        (bytes(32), ORDER.to_bytes(32, "big"), None),
        (bytes(32), bytes(31), None),
        (bytes(32), bytes(31) + b"\x01", bytes(31)),
    ],
)
def test_nothing_malformed_is_signed(message: bytes, seckey: bytes, aux_rand: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"32|private key"):
        schnorr.sign(message, seckey, aux_rand=aux_rand)
