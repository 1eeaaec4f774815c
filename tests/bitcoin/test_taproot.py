"""Taproot outputs and control blocks, against BIP 341's wallet vectors and another library."""

from collections.abc import Sequence
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
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))
xonly_pubkeys = seckeys.map(lambda seckey: pubkey_of(seckey)[1:])

# BIP 341, wallet-test-vectors.json: internal key, tapleaves, merkle root, tweak, script, address,
# control blocks. Three tapleaves stand in the order in which pairing from the left gives the
# BIP's tree. A tapleaf of a version other than 0xc0 is given as its hash: we never make one.
VECTORS: list[dict[str, Any]] = [
    {
        "internal_key": "d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d",
        "tapleaves": [],
        "merkle_root": None,
        "tweak": "b86e7be8f39bab32a6f2c0443abbc210f0edac0e2c53d501b36b64437d9c6c70",
        "output_key": "53a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343",
        "address": "bc1p2wsldez5mud2yam29q22wgfh9439spgduvct83k3pm50fcxa5dps59h4z5",
        "control_blocks": [],
    },
    {
        "internal_key": "187791b6f712a8ea41c8ecdd0ee77fab3e85263b37e1ec18a3651926b3a6cf27",
        "tapleaves": ["20d85a959b0290bf19bb89ed43c916be835475d013da4b362117393e25a48229b8ac"],
        "merkle_root": "5b75adecf53548f3ec6ad7d78383bf84cc57b55a3127c72b9a2481752dd88b21",
        "tweak": "cbd8679ba636c1110ea247542cfbd964131a6be84f873f7f3b62a777528ed001",
        "output_key": "147c9c57132f6e7ecddba9800bb0c4449251c92a1e60371ee77557b6620f3ea3",
        "address": "bc1pz37fc4cn9ah8anwm4xqqhvxygjf9rjf2resrw8h8w4tmvcs0863sa2e586",
        "control_blocks": ["c1187791b6f712a8ea41c8ecdd0ee77fab3e85263b37e1ec18a3651926b3a6cf27"],
    },
    {
        "internal_key": "93478e9488f956df2396be2ce6c5cced75f900dfa18e7dabd2428aae78451820",
        "tapleaves": ["20b617298552a72ade070667e86ca63b8f5789a9fe8731ef91202a91c9f3459007ac"],
        "merkle_root": "c525714a7f49c28aedbbba78c005931a81c234b2f6c99a73e4d06082adc8bf2b",
        "tweak": "6af9e28dbf9d6aaf027696e2598a5b3d056f5fd2355a7fd5a37a0e5008132d30",
        "output_key": "e4d810fd50586274face62b8a807eb9719cef49c04177cc6b76a9a4251d5450e",
        "address": "bc1punvppl2stp38f7kwv2u2spltjuvuaayuqsthe34hd2dyy5w4g58qqfuag5",
        "control_blocks": ["c093478e9488f956df2396be2ce6c5cced75f900dfa18e7dabd2428aae78451820"],
    },
    {
        "internal_key": "ee4fe085983462a184015d1f782d6a5f8b9c2b60130aff050ce221ecf3786592",
        "tapleaves": ["20387671353e273264c495656e27e39ba899ea8fee3bb69fb2a680e22093447d48ac"],
        "foreign_tapleaf": "f224a923cd0021ab202ab139cc56802ddb92dcfc172b9212261a539df79a112a",
        "merkle_root": "6c2dc106ab816b73f9d07e3cd1ef2c8c1256f519748e0813e4edd2405d277bef",
        "tweak": "9e0517edc8259bb3359255400b23ca9507f2a91cd1e4250ba068b4eafceba4a9",
        "output_key": "712447206d7a5238acc7ff53fbe94a3b64539ad291c7cdbc490b7577e4b17df5",
        "address": "bc1pwyjywgrd0ffr3tx8laflh6228dj98xkjj8rum0zfpd6h0e930h6saqxrrm",
        "control_blocks": [
            (
                "c0ee4fe085983462a184015d1f782d6a5f8b9c2b60130aff050ce221ecf3786592"
                "f224a923cd0021ab202ab139cc56802ddb92dcfc172b9212261a539df79a112a"
            )
        ],
    },
    {
        "internal_key": "f9f400803e683727b14f463836e1e78e1c64417638aa066919291a225f0e8dd8",
        "tapleaves": [
            "2044b178d64c32c4a05cc4f4d1407268f764c940d20ce97abfd44db5c3592b72fdac",
            "07546170726f6f74",
        ],
        "merkle_root": "ab179431c28d3b68fb798957faf5497d69c883c6fb1e1cd9f81483d87bac90cc",
        "tweak": "639f0281b7ac49e742cd25b7f188657626da1ad169209078e2761cefd91fd65e",
        "output_key": "77e30a5522dd9f894c3f8b8bd4c4b2cf82ca7da8a3ea6a239655c39c050ab220",
        "address": "bc1pwl3s54fzmk0cjnpl3w9af39je7pv5ldg504x5guk2hpecpg2kgsqaqstjq",
        "control_blocks": [
            (
                "c1f9f400803e683727b14f463836e1e78e1c64417638aa066919291a225f0e8dd8"
                "2cb2b90daa543b544161530c925f285b06196940d6085ca9474d41dc3822c5cb"
            ),
            (
                "c1f9f400803e683727b14f463836e1e78e1c64417638aa066919291a225f0e8dd8"
                "64512fecdb5afa04f98839b50e6f0cb7b1e539bf6f205f67934083cdcc3c8d89"
            ),
        ],
    },
    {
        "internal_key": "e0dfe2300b0dd746a3f8674dfd4525623639042569d829c7f0eed9602d263e6f",
        "tapleaves": [
            "202352d137f2f3ab38d1eaa976758873377fa5ebb817372c71e2c542313d4abda8ac",
            "207337c0dd4253cb86f2c43a2351aadd82cccb12a172cd120452b9bb8324f2186aac",
            "2072ea6adcf1d371dea8fba1035a09f3d24ed5a059799bae114084130ee5898e69ac",
        ],
        "merkle_root": "ccbd66c6f7e8fdab47b3a486f59d28262be857f30d4773f2d5ea47f7761ce0e2",
        "tweak": "b57bfa183d28eeb6ad688ddaabb265b4a41fbf68e5fed2c72c74de70d5a786f4",
        "output_key": "91b64d5324723a985170e4dc5a0f84c041804f2cd12660fa5dec09fc21783605",
        "address": "bc1pjxmy65eywgafs5tsunw95ruycpqcqnev6ynxp7jaasylcgtcxczs6n332e",
        "control_blocks": [
            (
                "c0e0dfe2300b0dd746a3f8674dfd4525623639042569d829c7f0eed9602d263e6f"
                "9e31407bffa15fefbf5090b149d53959ecdf3f62b1246780238c24501d5ceaf6"
                "2645a02e0aac1fe69d69755733a9b7621b694bb5b5cde2bbfc94066ed62b9817"
            ),
            (
                "c0e0dfe2300b0dd746a3f8674dfd4525623639042569d829c7f0eed9602d263e6f"
                "ba982a91d4fc552163cb1c0da03676102d5b7a014304c01f0c77b2b8e888de1c"
                "2645a02e0aac1fe69d69755733a9b7621b694bb5b5cde2bbfc94066ed62b9817"
            ),
            (
                "c0e0dfe2300b0dd746a3f8674dfd4525623639042569d829c7f0eed9602d263e6f"
                "ffe578e9ea769027e4f5a3de40732f75a88a6353a09d767ddeb66accef85e553"
            ),
        ],
    },
    {
        "internal_key": "55adf4e8967fbd2e29f20ac896e60c3b0f1d5b0efa9d34941b5958c7b0a0312d",
        "tapleaves": [
            "20d5094d2dbe9b76e2c245a2b89b6006888952e2faa6a149ae318d69e520617748ac",
            "20c440b462ad48c7a77f94cd4532d8f2119dcebbd7c9764557e62726419b08ad4cac",
            "2071981521ad9fc9036687364118fb6ccd2035b96a423c59c5430e98310a11abe2ac",
        ],
        "merkle_root": "2f6b2c5397b6d68ca18e09a3f05161668ffe93a988582d55c6f07bd5b3329def",
        "tweak": "6579138e7976dc13b6a92f7bfd5a2fc7684f5ea42419d43368301470f3b74ed9",
        "output_key": "75169f4001aa68f15bbed28b218df1d0a62cbbcf1188c6665110c293c907b831",
        "address": "bc1pw5tf7sqp4f50zka7629jrr036znzew70zxyvvej3zrpf8jg8hqcssyuewe",
        "control_blocks": [
            (
                "c155adf4e8967fbd2e29f20ac896e60c3b0f1d5b0efa9d34941b5958c7b0a0312d"
                "d7485025fceb78b9ed667db36ed8b8dc7b1f0b307ac167fa516fe4352b9f4ef7"
                "f154e8e8e17c31d3462d7132589ed29353c6fafdb884c5a6e04ea938834f0d9d"
            ),
            (
                "c155adf4e8967fbd2e29f20ac896e60c3b0f1d5b0efa9d34941b5958c7b0a0312d"
                "737ed1fe30bc42b8022d717b44f0d93516617af64a64753b7a06bf16b26cd711"
                "f154e8e8e17c31d3462d7132589ed29353c6fafdb884c5a6e04ea938834f0d9d"
            ),
            (
                "c155adf4e8967fbd2e29f20ac896e60c3b0f1d5b0efa9d34941b5958c7b0a0312d"
                "3cd369a528b326bc9d2133cbd2ac21451acb31681a410434672c8e34fe757e91"
            ),
        ],
    },
]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["address"] for vector in VECTORS])
def test_the_wallet_vectors_of_bip_341(vector: dict[str, Any]) -> None:
    leaf_hashes = [tapleaf_hash(bytes.fromhex(script)) for script in vector["tapleaves"]]
    if "foreign_tapleaf" in vector:
        leaf_hashes.append(bytes.fromhex(vector["foreign_tapleaf"]))
    merkle_root = merkle_root_of(leaf_hashes) if leaf_hashes else None
    internal_key = bytes.fromhex(vector["internal_key"])
    output = taproot_output(internal_key, merkle_root)
    assert (merkle_root.hex() if merkle_root else None) == vector["merkle_root"]
    assert taptweak(internal_key, merkle_root).hex() == vector["tweak"]
    assert output.output_key.hex() == vector["output_key"]
    assert output.script_pubkey.hex() == "5120" + vector["output_key"]
    assert address_of_script(output.script_pubkey, MAINNET) == vector["address"]
    control_blocks = [
        output.control_block(merkle_path_of(leaf_hashes, index)).hex()
        for index in range(len(vector["tapleaves"]))
    ]
    assert control_blocks == vector["control_blocks"]


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
