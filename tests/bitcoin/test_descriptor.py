"""Descriptors: checksums as BIP 380, `musig()` as BIP 390, scripts as another library derives."""

import pytest
import wallycore
from btclib_secp256k1 import keys as secp256k1_keys
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.descriptor import (
    INPUT_CHARSET,
    musig_expression,
    tr_descriptor,
    with_checksum,
)
from cromford.bitcoin.script import OP_CHECKSIG, push_bytes
from cromford.bitcoin.taproot import tapleaf_hash, taproot_output, tweaked_key_agg
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
# BIP 386: the x-only keys and scripts of its own examples.
A_KEY = "a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd"
KEY_SCRIPT = "512077aab6e066f8a7419c5ab714c12c67d25007ed55a43cadcacb4d7a970a093f11"
LEAF_KEY = "669b8afcec803a0d323e9a17f3ea8e68e8abe5a278020a929adbec52421adbd0"
LEAF_SCRIPT = "512017cf18db381d836d8923b1bdb246cfcd818da1a9f0e6e7907f187f0b2f937754"
# BIP 390: three keys in the order it writes them, and what it says they pay to.
MUSIG_PUBKEYS = [
    "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
    "03dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
    "023590a94e768f8e1815c2f24b4d80a8e3149316c3518ce7b7ad338368d038ca66",
]
MUSIG_TR_SCRIPT = "512079e6c3e628c9bfbce91de6b7fb28e2aec7713d377cf260ab599dcbc40e542312"
MUSIG_RAWTR_SCRIPT = "5120789d937bade6673538f3e28d8368dda4d0512f94da44cf477a505716d26a1575"

seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))


def test_the_checksum_of_bip_380() -> None:
    assert with_checksum("raw(deadbeef)") == "raw(deadbeef)#89f8spxm"
    assert with_checksum("raw(deedbeef)") != "raw(deedbeef)#89f8spxm"


def test_a_character_outside_the_set_of_bip_380_is_refused() -> None:
    with pytest.raises(ValueError, match="Ü"):
        with_checksum("raw(Ü)")


@given(body=st.text(alphabet=INPUT_CHARSET, max_size=60), data=st.data())
def test_one_changed_character_changes_the_checksum(body: str, data: st.DataObject) -> None:
    whole, _, checksum = with_checksum(body).rpartition("#")
    assert whole == body
    assert len(checksum) == 8
    if body:
        position = data.draw(st.integers(0, len(body) - 1))
        char = data.draw(st.sampled_from(INPUT_CHARSET))
        if char != body[position]:
            changed = body[:position] + char + body[position + 1 :]
            assert with_checksum(changed)[-8:] != checksum


@given(seckey=seckeys)
def test_another_library_accepts_the_checksum_and_derives_the_script(seckey: bytes) -> None:
    internal_key = pubkey_of(seckey)[1:]
    descriptor = tr_descriptor(internal_key.hex())
    parsed = wallycore.descriptor_parse(descriptor, None, wallycore.WALLY_NETWORK_NONE, 0)
    assert wallycore.descriptor_get_checksum(parsed, 0) == descriptor[-8:]
    derived = bytes(wallycore.descriptor_to_script(parsed, 0, 0, 0, 0, 0, 0))
    assert derived == taproot_output(internal_key, None).script_pubkey
    broken = descriptor[:-1] + ("q" if descriptor[-1] != "q" else "p")
    with pytest.raises(ValueError, match="Invalid"):
        wallycore.descriptor_parse(broken, None, wallycore.WALLY_NETWORK_NONE, 0)


def test_the_scripts_of_bip_390_come_from_the_same_keys_in_any_order() -> None:
    pubkeys = [bytes.fromhex(pubkey) for pubkey in MUSIG_PUBKEYS]
    sorted_hex = [MUSIG_PUBKEYS[2], MUSIG_PUBKEYS[0], MUSIG_PUBKEYS[1]]
    for order in (pubkeys, pubkeys[::-1]):
        assert "5120" + KeyAgg(order).internal_key.hex() == MUSIG_RAWTR_SCRIPT
        assert "5120" + tweaked_key_agg(KeyAgg(order), None).output_key.hex() == MUSIG_TR_SCRIPT
        assert musig_expression(order) == f"musig({','.join(sorted_hex)})"
    assert secp256k1_keys.pubkey_sort(pubkeys) == sorted(pubkeys)


@pytest.mark.parametrize(
    ("leaf_key", "script_pubkey"), [(None, KEY_SCRIPT), (LEAF_KEY, LEAF_SCRIPT)]
)
def test_a_descriptor_pays_to_the_script_of_bip_386(
    leaf_key: str | None, script_pubkey: str
) -> None:
    merkle_root, body = None, f"tr({A_KEY})"
    if leaf_key is not None:
        merkle_root = tapleaf_hash(push_bytes(bytes.fromhex(leaf_key)) + bytes((OP_CHECKSIG,)))
        body = f"tr({A_KEY},pk({leaf_key}))"
    output = taproot_output(bytes.fromhex(A_KEY), merkle_root)
    assert output.script_pubkey.hex() == script_pubkey
    tapleaf = None if leaf_key is None else f"pk({leaf_key})"
    assert tr_descriptor(A_KEY, tapleaf) == with_checksum(body)
