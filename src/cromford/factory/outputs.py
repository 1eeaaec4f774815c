"""The outputs of a factory: one constructor each, with script and descriptor.

An output belongs to the signers of the transaction that spends it. The script paths are
miniscript, so that `tr(musig(...),...)` tells other software everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cromford.bitcoin.descriptor import musig_expression, tr_descriptor, with_checksum
from cromford.bitcoin.script import ANCHOR_SCRIPT, p2tr_script
from cromford.bitcoin.taproot import tapleaf_hash, taproot_output, tweaked_key_agg
from cromford.bitcoin.timelocked import LockKind, Timelock
from cromford.bitcoin.tx import TxOut
from cromford.changed import computed
from cromford.crypto.keys import xonly_of
from cromford.crypto.musig2 import AggregateKey, KeyAgg

ALIKE_CACHED: Final = 4  # Of the outputs, and script paths, that are alike in a factory.
ANCHOR_DESCRIPTOR: Final = with_checksum(f"raw({ANCHOR_SCRIPT.hex()})")


class OutputKind(StrEnum):
    """What an output is for. The value is its name in exports."""

    CHILD = "child"  # the funding output, and every output down to a kickoff or its state
    CHANNEL = "channel"
    LSTOCK = "lstock"
    ANCHOR = "anchor"


@dataclass(frozen=True, kw_only=True)
class Tapleaf:
    """The one script path of an output: one key alone, after a timelock."""

    xonly_pubkey: bytes
    lock: Timelock

    @property
    def script(self) -> bytes:
        """Its bytes."""
        return self.lock.script(self.xonly_pubkey)

    @property
    def miniscript(self) -> str:
        """The same as miniscript."""
        return self.lock.miniscript(self.xonly_pubkey)

    @computed
    def merkle_root(self) -> bytes:
        """The root of a taptree with this single tapleaf."""
        return tapleaf_hash(self.script)


# Every output of a factory that the LSP may take after its expiry has the same one.
@lru_cache(maxsize=ALIKE_CACHED)
def expiry_tapleaf(lsp_pubkey: bytes, expiry_height: int) -> Tapleaf:
    """Return the timeout path: the LSP alone, from the block after `expiry_height` on (BIP 65)."""
    lock = Timelock(kind=LockKind.AFTER, number=expiry_height)
    return Tapleaf(xonly_pubkey=xonly_of(lsp_pubkey), lock=lock)


@lru_cache(maxsize=ALIKE_CACHED)
def lstock_tapleaf(lsp_pubkey: bytes, csv_blocks: int) -> Tapleaf:
    """Return the L-stock's path: the LSP alone, `csv_blocks` after the leaf confirmed (BIP 112)."""
    lock = Timelock(kind=LockKind.OLDER, number=csv_blocks)
    return Tapleaf(xonly_pubkey=xonly_of(lsp_pubkey), lock=lock)


@dataclass(frozen=True, kw_only=True)
class SignersOutput:
    """An output of MuSig2 signers, with at most one tapleaf. Amounts are elsewhere.

    Args:
        key_agg: The untweaked aggregate of the signers, who need not be known.
        tapleaf: The script path, or None for key path only.
    """

    key_agg: AggregateKey
    tapleaf: Tapleaf | None = None

    @property
    def merkle_root(self) -> bytes | None:
        """What the output key commits to besides the internal key."""
        return None if self.tapleaf is None else self.tapleaf.merkle_root

    @computed
    def spending_key_agg(self) -> AggregateKey:
        """The tweaked aggregate, which signs for the key path."""
        return tweaked_key_agg(self.key_agg, self.merkle_root)

    @computed
    def script_pubkey(self) -> bytes:
        """The taproot script."""
        return p2tr_script(self.spending_key_agg.output_key)

    @computed
    def without_signers(self) -> "SignersOutput":
        """The same output, of which it is not known who signs."""
        bare = SignersOutput(key_agg=self.key_agg.without_signers, tapleaf=self.tapleaf)
        bare.__dict__["spending_key_agg"] = self.spending_key_agg.without_signers
        return bare

    @property
    def control_block(self) -> bytes:
        """What a spend by the tapleaf shows last (BIP 341)."""
        output = taproot_output(self.key_agg.internal_key, self.merkle_root)
        return output.control_block()

    @property
    def signers(self) -> tuple[bytes, ...]:
        """The pubkeys of its signers, in `KeySort` order.

        Raises:
            ValueError: If they are not known.
        """
        if not isinstance(self.key_agg, KeyAgg):
            raise ValueError("it is not known who signs for this output")
        return self.key_agg.pubkeys

    @property
    def descriptor(self) -> str:
        """The output descriptor with checksum (BIP 386; BIP 390 if the signers are known)."""
        if isinstance(self.key_agg, KeyAgg):
            internal = musig_expression(self.key_agg.pubkeys)
        else:
            internal = self.key_agg.internal_key.hex()
        return tr_descriptor(
            internal,
            None if self.tapleaf is None else self.tapleaf.miniscript,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOutput:
    """One output of a tree transaction.

    `signers_output` is None for an anchor, and where only the script is known: a neighbour's
    channel, as a client sees it. `client` is the participant index of a channel's client.
    """

    kind: OutputKind
    amount_sat: int
    script_pubkey: bytes
    signers_output: SignersOutput | None = field(default=None, compare=False)
    client: int | None = None

    @property
    def descriptor(self) -> str | None:
        """The output descriptor with checksum; None where only the script is known."""
        if self.kind is OutputKind.ANCHOR:
            return ANCHOR_DESCRIPTOR
        return None if self.signers_output is None else self.signers_output.descriptor

    @property
    def txout(self) -> TxOut:
        """The output's bytes as a value."""
        return TxOut(amount_sat=self.amount_sat, script_pubkey=self.script_pubkey)


def channel_output(pubkeys: Sequence[bytes]) -> SignersOutput:
    """Return the output of a channel's two funding keys: key path only, BIP 86 tweak.

    Raises:
        InvalidContribution: If a pubkey is not a point.
        ValueError: If the two are equal.
    """
    return SignersOutput(key_agg=KeyAgg(pubkeys))


# Every transaction of a factory has the same one.
@lru_cache(maxsize=ALIKE_CACHED)
def anchor_output(amount_sat: int) -> TreeOutput:
    """Return the pay-to-anchor output that anybody may spend to raise the fee (BIP 433)."""
    return TreeOutput(
        kind=OutputKind.ANCHOR,
        amount_sat=amount_sat,
        script_pubkey=ANCHOR_SCRIPT,
    )
