"""BIP 341: from an internal key and at most a few tapleaves to an output key.

Every output of a factory has a key path for everybody involved and at most one tapleaf. The
general tree is here all the same, because a control block for one leaf is its special case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.tx import var_bytes
from cromford.crypto import keys
from cromford.crypto.musig2 import AggregateKey

A = TypeVar("A", bound=AggregateKey)
TAPLEAF_VERSION: Final = 0xC0  # BIP 342 tapscript.

_hash_tapleaf: Final = keys.TaggedHash("TapLeaf")
_hash_tapbranch: Final = keys.TaggedHash("TapBranch")
_hash_taptweak: Final = keys.TaggedHash("TapTweak")


def tapleaf_hash(script: bytes) -> bytes:
    """Return the hash of one tapleaf."""
    return _hash_tapleaf(bytes((TAPLEAF_VERSION,)) + var_bytes(script))


def tapbranch_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees, which BIP 341 sorts."""
    return _hash_tapbranch(min(left, right) + max(left, right))


def taptweak(internal_key: bytes, merkle_root: bytes | None) -> bytes:
    """Return the tweak: without a script it commits to the internal key alone (BIP 86)."""
    return _hash_taptweak(internal_key + (merkle_root or b""))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaprootOutput:
    """An output key, and what is needed to spend it by either path."""

    internal_key: bytes
    merkle_root: bytes | None
    output_key: bytes
    parity: int

    @property
    def script_pubkey(self) -> bytes:
        """The script that pays to it."""
        return p2tr_script(self.output_key)

    def control_block(self, merkle_path: Sequence[bytes] = ()) -> bytes:
        """Return the control block of a tapleaf; its path is empty for a tree of one leaf."""
        return bytes((TAPLEAF_VERSION | self.parity,)) + self.internal_key + b"".join(merkle_path)


def taproot_output(internal_key: bytes, merkle_root: bytes | None) -> TaprootOutput:
    """Return the output of an x-only internal key and a merkle root or none.

    Raises:
        ValueError: If the internal key is not on the curve.
    """
    output_key, parity = keys.xonly_tweak(internal_key, taptweak(internal_key, merkle_root))
    return TaprootOutput(
        internal_key=internal_key, merkle_root=merkle_root, output_key=output_key, parity=parity
    )


def tweaked_key_agg(key_agg: A, merkle_root: bytes | None) -> A:
    """Return the MuSig2 aggregate that signs for the key path of such an output.

    Args:
        key_agg: The aggregate that is the internal key.
        merkle_root: Of the output's tapleaves, or None for key path only.
    """
    return key_agg.tweaked(taptweak(key_agg.internal_key, merkle_root))


def merkle_root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the merkle root of tapleaf hashes, paired from the left.

    Raises:
        ValueError: If there is none.
    """
    if not leaf_hashes:
        raise ValueError("a taptree has at least one tapleaf")
    level = list(leaf_hashes)
    while len(level) > 1:
        level = [
            tapbranch_hash(*level[i : i + 2]) if i + 1 < len(level) else level[i]
            for i in range(0, len(level), 2)
        ]
    return level[0]


def merkle_path_of(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the siblings from one tapleaf up to the root that `merkle_root_of` gives.

    Raises:
        ValueError: If there is no such tapleaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise ValueError(f"tapleaf {index} of {len(leaf_hashes)}")
    path: list[bytes] = []
    level = list(leaf_hashes)
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level = [
            tapbranch_hash(*level[i : i + 2]) if i + 1 < len(level) else level[i]
            for i in range(0, len(level), 2)
        ]
        index //= 2
    return tuple(path)
