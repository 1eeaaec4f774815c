"""Keys and tagged hashes, against a second libsecp256k1 build (wallycore) and published numbers."""

import hashlib

import pytest
import wallycore
from btclib_secp256k1 import lib
from hypothesis import assume, given
from hypothesis import strategies as st

from cromford.crypto import curve, keys
from cromford.crypto.musig2 import KeyAgg
from cromford.crypto.points import weighted_sum

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FIELD = 2**256 - 2**32 - 977
# BIP 340: lift_x of these x coordinates fails; the first is no square, the second not in the field.
NOT_ON_CURVE = bytes(31) + b"\x05"
NOT_IN_FIELD = FIELD.to_bytes(32, "big")

scalars = st.integers(1, ORDER - 1)
seckeys = scalars.map(lambda scalar: scalar.to_bytes(32, "big"))
out_of_range = st.sampled_from([bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32])


@given(seckey=seckeys)
def test_a_pubkey_is_what_another_library_says(seckey: bytes) -> None:
    pubkey = keys.pubkey_of(seckey)
    assert pubkey == bytes(wallycore.ec_public_key_from_private_key(seckey))
    assert keys.is_pubkey(pubkey)
    assert keys.is_seckey(seckey)
    assert keys.xonly_of(pubkey) == pubkey[1:]


@given(seckey=out_of_range)
def test_a_scalar_out_of_range_is_no_seckey(seckey: bytes) -> None:
    assert not keys.is_seckey(seckey)
    with pytest.raises(ValueError, match="private key"):
        keys.pubkey_of(seckey)


@given(seckey=st.binary(max_size=70))
def test_a_seckey_has_exactly_32_bytes(seckey: bytes) -> None:
    assert keys.is_seckey(seckey) == (
        len(seckey) == 32 and 0 < int.from_bytes(seckey, "big") < ORDER
    )


@given(data=st.binary(max_size=70))
def test_is_pubkey_answers_for_any_bytes(data: bytes) -> None:
    assert keys.is_pubkey(data) in {True, False}


@given(seckey=seckeys)
def test_only_the_compressed_form_is_a_pubkey(seckey: bytes) -> None:
    compressed = keys.pubkey_of(seckey)
    uncompressed = bytes(wallycore.ec_public_key_decompress(compressed))
    hybrid = bytes((6 + uncompressed[-1] % 2,)) + uncompressed[1:]
    assert not keys.is_pubkey(uncompressed)
    assert not keys.is_pubkey(hybrid)
    assert not keys.is_pubkey(compressed[1:])
    for prefix in (0, 1, 4, 5, 6, 7, 0x82):
        assert not keys.is_pubkey(bytes((prefix,)) + compressed[1:])


@pytest.mark.parametrize("x", [NOT_ON_CURVE, NOT_IN_FIELD])
def test_an_x_without_a_point_is_no_key(x: bytes) -> None:
    assert not keys.is_pubkey(b"\x02" + x)
    with pytest.raises(ValueError, match="public key"):
        keys.pubkey_add(b"\x02" + x, bytes(31) + b"\x01")
    with pytest.raises(ValueError, match="public key"):
        keys.xonly_tweak(x, bytes(31) + b"\x01")


@given(seckey=seckeys, tweak=seckeys)
def test_adding_to_a_seckey_adds_modulo_the_order(seckey: bytes, tweak: bytes) -> None:
    total = (int.from_bytes(seckey, "big") + int.from_bytes(tweak, "big")) % ORDER
    assume(total)
    assert keys.seckey_add(seckey, tweak) == total.to_bytes(32, "big")


@given(seckey=seckeys)
def test_a_sum_of_zero_is_refused(seckey: bytes) -> None:
    negated = (ORDER - int.from_bytes(seckey, "big")).to_bytes(32, "big")
    with pytest.raises(ValueError, match="tweak"):
        keys.seckey_add(seckey, negated)


@given(seckey=seckeys, tweak=seckeys)
def test_adding_to_a_pubkey_is_adding_to_its_seckey(seckey: bytes, tweak: bytes) -> None:
    assume((int.from_bytes(seckey, "big") + int.from_bytes(tweak, "big")) % ORDER)
    pubkey = keys.pubkey_of(seckey)
    assert keys.pubkey_add(pubkey, tweak) == keys.pubkey_of(keys.seckey_add(seckey, tweak))
    assert keys.pubkey_add(pubkey, tweak) == bytes(wallycore.ec_public_key_tweak(pubkey, tweak))


@given(seckey=seckeys)
def test_a_pubkey_plus_its_negative_is_no_pubkey(seckey: bytes) -> None:
    negated = (ORDER - int.from_bytes(seckey, "big")).to_bytes(32, "big")
    with pytest.raises(ValueError, match="tweak"):
        keys.pubkey_add(keys.pubkey_of(seckey), negated)


@given(
    seckey=seckeys, factor=st.one_of(out_of_range, st.just(b""), st.just(bytes(31) + b"\x01" * 2))
)
def test_a_product_with_no_scalar_is_refused(seckey: bytes, factor: bytes) -> None:
    pubkey = keys.pubkey_of(seckey)
    with pytest.raises(ValueError, match="factor"):
        weighted_sum(pubkey, seckey, pubkey, factor)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_what_has_another_size_is_not_read(size: int) -> None:
    """The library would read past its end, or leave the rest of it unsaid."""
    pubkey = keys.pubkey_of(bytes(31) + b"\x01")
    for refused in (
        lambda: keys.pubkey_of(bytes(size)),
        lambda: keys.pubkey_add(pubkey, bytes(size)),
        lambda: keys.pubkey_add(pubkey[:size] + bytes(size // 33), bytes(32)),
        lambda: keys.xonly_tweak(pubkey[1:], bytes(size)),
        lambda: KeyAgg([pubkey]).tweaked(bytes(size)),
    ):
        with pytest.raises(ValueError, match=r"expected 3[23] bytes, received \d+"):
            refused()


@given(mine=seckeys, theirs=seckeys)
def test_two_strangers_share_the_secret_another_library_computes(
    mine: bytes, theirs: bytes
) -> None:
    secret = keys.shared_secret(keys.pubkey_of(theirs), mine)
    assert secret == keys.shared_secret(keys.pubkey_of(mine), theirs)
    assert secret == bytes(wallycore.ecdh(keys.pubkey_of(theirs), mine))


@pytest.mark.parametrize(
    ("pubkey", "seckey"),
    [(b"\x02" + NOT_ON_CURVE, bytes(31) + b"\x01"), (b"\x02" + b"\x01" * 32, bytes(32))],
)
def test_no_secret_is_shared_with_nobody(pubkey: bytes, seckey: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        keys.shared_secret(pubkey, seckey)


@given(seckey=seckeys, tweak=st.sampled_from([ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x01"]))
def test_a_tweak_out_of_range_is_refused(seckey: bytes, tweak: bytes) -> None:
    with pytest.raises(ValueError, match="tweak"):
        keys.seckey_add(seckey, tweak)
    with pytest.raises(ValueError, match="tweak"):
        keys.xonly_tweak(keys.pubkey_of(seckey)[1:], tweak)
    with pytest.raises(ValueError, match="tweak"):
        keys.xonly_tweak_seckey(seckey, tweak)


@given(seckey=seckeys)
def test_a_tweak_to_infinity_is_refused(seckey: bytes) -> None:
    pubkey = keys.pubkey_of(seckey)
    negate = pubkey[0] == 2  # BIP 340 signs with the seckey of the even point.
    tweak = (ORDER - int.from_bytes(seckey, "big")).to_bytes(32, "big") if negate else seckey
    with pytest.raises(ValueError, match="invalid tweak"):
        keys.xonly_tweak(pubkey[1:], tweak)
    with pytest.raises(ValueError, match="invalid tweak"):
        keys.xonly_tweak_seckey(seckey, tweak)


@given(seckey=seckeys, tweak=seckeys)
def test_the_tweaked_seckey_belongs_to_the_tweaked_key(seckey: bytes, tweak: bytes) -> None:
    assume(
        (int.from_bytes(seckey, "big") + int.from_bytes(tweak, "big")) % ORDER and seckey != tweak
    )
    xonly_pubkey = keys.xonly_of(keys.pubkey_of(seckey))
    tweaked, parity = keys.xonly_tweak(xonly_pubkey, tweak)
    pubkey = keys.pubkey_of(keys.xonly_tweak_seckey(seckey, tweak))
    assert pubkey == bytes((2 + parity,)) + tweaked
    assert pubkey == bytes(wallycore.ec_public_key_tweak(b"\x02" + xonly_pubkey, tweak))


@given(seckey=seckeys, tweak=seckeys)
def test_an_x_only_key_is_32_bytes_and_nothing_else(seckey: bytes, tweak: bytes) -> None:
    """A 33-byte key would be tweaked as its x, while the tweak had been hashed with its parity."""
    pubkey = keys.pubkey_of(seckey)
    for wrong in (pubkey, pubkey[2:], b"", bytes(wallycore.ec_public_key_decompress(pubkey))):
        with pytest.raises(ValueError, match=f"received {len(wrong)}"):
            keys.xonly_tweak(wrong, tweak)


@given(tag=st.text(max_size=20), data=st.binary(max_size=100))
def test_a_tagged_hash_is_what_bip_340_says(tag: str, data: bytes) -> None:
    tag_hash = hashlib.sha256(tag.encode()).digest()
    expected = hashlib.sha256(tag_hash + tag_hash + data).digest()
    assert keys.TaggedHash(tag)(data) == expected


@given(data=st.binary(min_size=1, max_size=100))
def test_hashes_are_what_another_library_says(data: bytes) -> None:
    assert keys.sha256(data) == bytes(wallycore.sha256(data))
    assert keys.sha256d(data) == bytes(wallycore.sha256d(data))
    assert keys.TaggedHash("TapLeaf")(data) == bytes(wallycore.bip340_tagged_hash(data, "TapLeaf"))


def test_no_more_points_are_kept_parsed_than_there_may_be() -> None:
    known = curve._Known(
        "secp256k1_xonly_pubkey *",
        lib.secp256k1_xonly_pubkey_parse,
        size_bytes=32,
        name="x-only public key",
        limit=6,
    )
    points = [keys.xonly_of(keys.pubkey_of(bytes(31) + bytes((n,)))) for n in range(1, 30)]
    for point in points:
        assert known[point] is known[point]
        assert len({**known._older, **known}) <= 6
    assert set(known) <= set(points[-3:])
