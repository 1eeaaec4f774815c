"""Taproot outputs and control blocks, against BIP 341's wallet vectors and another library."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import wallycore
from btclib.script import taproot as btclib_taproot
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import MAINNET
from cromford.bitcoin.taproot import (
    TAPLEAF_VERSION,
    TaprootOutput,
    merkle_path_of,
    merkle_root_of,
    tapbranch_hash,
    tapleaf_hash,
    taproot_output,
    taptweak,
    tweaked_key_agg,
)
from cromford.bitcoin.tx import var_bytes
from cromford.crypto.keys import TaggedHash, pubkey_of
from cromford.crypto.musig2 import KeyAgg

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))
xonly_pubkeys = seckeys.map(lambda seckey: pubkey_of(seckey)[1:])

Vectors = Callable[[str], Any]
WALLET_VECTORS = "bip341/wallet-test-vectors.json"


def leaves_of(tree: Any) -> list[Any]:
    """List a tree's tapleaves in the order in which pairing from the left gives this tree."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [tree]
    left, right = sorted(map(leaves_of, tree), key=len, reverse=True)
    return left + right


def hash_of_leaf(leaf: dict[str, Any]) -> bytes:
    script = bytes.fromhex(leaf["script"])
    if leaf["leafVersion"] == TAPLEAF_VERSION:
        return tapleaf_hash(script)
    return TaggedHash("TapLeaf")(bytes((leaf["leafVersion"],)) + var_bytes(script))


@pytest.mark.parametrize("case", range(7))
def test_the_wallet_vectors_of_bip_341(json_vectors: Vectors, case: int) -> None:
    vectors = json_vectors(WALLET_VECTORS)["scriptPubKey"]
    assert len(vectors) == 7
    given, between, expected = (
        vectors[case][part] for part in ("given", "intermediary", "expected")
    )
    leaves = leaves_of(given["scriptTree"])
    leaf_hashes = [hash_of_leaf(leaf) for leaf in leaves]
    merkle_root = merkle_root_of(leaf_hashes) if leaf_hashes else None
    internal_key = bytes.fromhex(given["internalPubkey"])
    output = taproot_output(internal_key, merkle_root)
    assert (merkle_root.hex() if merkle_root else None) == between["merkleRoot"]
    assert taptweak(internal_key, merkle_root).hex() == between["tweak"]
    assert output.output_key.hex() == between["tweakedPubkey"]
    assert output.script_pubkey.hex() == expected["scriptPubKey"]
    assert address_of_script(output.script_pubkey, MAINNET) == expected["bip350Address"]
    for place, leaf in enumerate(leaves):
        assert leaf_hashes[place].hex() == between["leafHashes"][leaf["id"]]
        control_block = output.control_block(merkle_path_of(leaf_hashes, place))
        published = bytes.fromhex(expected["scriptPathControlBlocks"][leaf["id"]])
        assert control_block[1:] == published[1:]
        # A tapleaf of another version than BIP 342's is never made here, only hashed beside ours.
        assert control_block[0] ^ TAPLEAF_VERSION == published[0] ^ leaf["leafVersion"]


def pair_from_the_left(level: list[Any]) -> Any:
    """Nest tapleaves for btclib as `merkle_root_of` pairs their hashes."""
    while len(level) > 1:
        level = [
            level[i : i + 2] if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)
        ]
    return level[0]


@settings(max_examples=60)
@given(
    internal_key=xonly_pubkeys,
    leaf_keys=st.lists(xonly_pubkeys, min_size=1, max_size=8),
    n=st.data(),
)
def test_another_library_builds_the_same_tree_and_accepts_every_control_block(
    internal_key: bytes, leaf_keys: list[bytes], n: st.DataObject
) -> None:
    commands: list[list[Any]] = [[key.hex(), "OP_CHECKSIG"] for key in leaf_keys]
    scripts = [btclib_taproot.serialize(command) for command in commands]
    tree = pair_from_the_left([[(TAPLEAF_VERSION, command)] for command in commands])
    _, btclib_root = btclib_taproot.tree_helper(tree)

    leaf_hashes = [tapleaf_hash(script) for script in scripts]
    merkle_root = merkle_root_of(leaf_hashes)
    assert merkle_root == btclib_root
    output = taproot_output(internal_key, merkle_root)
    assert (output.output_key, output.parity) == (
        btclib_taproot.output_pubkey_from_merkle_root_var(internal_key, merkle_root)
    )
    for index, script in enumerate(scripts):
        control_block = output.control_block(merkle_path_of(leaf_hashes, index))
        assert btclib_taproot.check_output_pubkey(output.output_key, script, control_block)
        wallycore.bip341_control_block_verify(control_block)
        flipped = bytearray(control_block)
        flipped[n.draw(st.integers(33, len(flipped) - 1)) if len(flipped) > 33 else 0] ^= 1
        assert not proves(output.output_key, script, bytes(flipped))
        assert not proves(output.output_key, script + b"\x51", control_block)


def proves(output_key: bytes, script: bytes, control_block: bytes) -> bool:
    """Check a control block as BIP 341's verifier does, with btclib's hashes."""
    merkle = btclib_taproot.leaf_hash(control_block[0] & 0xFE, script)
    for i in range(33, len(control_block), 32):
        left, right = sorted([merkle, control_block[i : i + 32]])
        merkle = bytes(wallycore.bip340_tagged_hash(left + right, "TapBranch"))
    key, parity = btclib_taproot.output_pubkey_from_merkle_root_var(control_block[1:33], merkle)
    return (key, parity) == (output_key, control_block[0] & 1)


@given(
    internal_key=xonly_pubkeys,
    merkle_root=st.one_of(st.none(), st.binary(min_size=32, max_size=32)),
)
def test_two_other_libraries_tweak_to_the_same_output_key(
    internal_key: bytes, merkle_root: bytes | None
) -> None:
    output = taproot_output(internal_key, merkle_root)
    by_wally = bytes(wallycore.ec_public_key_bip341_tweak(b"\x02" + internal_key, merkle_root, 0))
    by_btclib = btclib_taproot.output_pubkey_from_merkle_root_var(internal_key, merkle_root or b"")
    assert by_wally == bytes((2 + output.parity,)) + output.output_key
    assert by_btclib == (output.output_key, output.parity)
    assert output == TaprootOutput(
        internal_key=internal_key,
        merkle_root=merkle_root,
        output_key=output.output_key,
        parity=output.parity,
    )


@given(script=st.binary(max_size=300))
def test_a_tapleaf_hash_is_another_librarys(script: bytes) -> None:
    assert tapleaf_hash(script) == btclib_taproot.leaf_hash(TAPLEAF_VERSION, script)


@given(left=st.binary(min_size=32, max_size=32), right=st.binary(min_size=32, max_size=32))
def test_a_branch_does_not_know_left_from_right(left: bytes, right: bytes) -> None:
    assert tapbranch_hash(left, right) == tapbranch_hash(right, left)


@given(cohort=st.lists(seckeys, min_size=1, max_size=8, unique_by=pubkey_of), root=st.booleans())
def test_the_aggregate_signs_for_the_output_it_tweaks_to(cohort: list[bytes], root: bool) -> None:  # noqa: FBT001 - drawn
    merkle_root = tapleaf_hash(b"\x51") if root else None
    key_agg = tweaked_key_agg(KeyAgg([pubkey_of(seckey) for seckey in cohort]), merkle_root)
    output = taproot_output(key_agg.internal_key, merkle_root)
    assert key_agg.output_key == output.output_key != key_agg.internal_key


@pytest.mark.parametrize(
    "internal_key", [b"", bytes(31) + b"\x05", b"\xff" * 32, pubkey_of(bytes(31) + b"\x01")]
)
def test_an_internal_key_that_is_no_x_only_pubkey_is_refused(internal_key: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        taproot_output(internal_key, None)


def test_a_tree_has_a_tapleaf() -> None:
    with pytest.raises(ValueError, match="at least one tapleaf"):
        merkle_root_of([])


@pytest.mark.parametrize(("n_leaves", "index"), [(0, 0), (1, 1), (1, -1), (3, 3), (3, -1)])
def test_there_is_no_path_to_a_tapleaf_that_is_not_there(n_leaves: int, index: int) -> None:
    leaf_hashes: Sequence[bytes] = [bytes((n,)) * 32 for n in range(n_leaves)]
    with pytest.raises(ValueError, match=f"tapleaf {index} of {n_leaves}"):
        merkle_path_of(leaf_hashes, index)
