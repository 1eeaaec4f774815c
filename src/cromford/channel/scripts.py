"""The tapscripts and outputs of a commitment of type `taproot_zero_fee_commitments`.

The revocation key is the internal key wherever the holder could gain from an old commitment, so a
penalty is a plain key-path spend. Nobody needs an unspendable internal key.
"""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.script import (
    OP_CHECKLOCKTIMEVERIFY,
    OP_CHECKSEQUENCEVERIFY,
    OP_CHECKSIG,
    OP_CHECKSIGVERIFY,
    push_bytes,
    push_number,
)
from cromford.bitcoin.taproot import (
    TaprootOutput,
    merkle_path_of,
    merkle_root_of,
    tapleaf_hash,
    taproot_output,
)
from cromford.changed import computed
from cromford.channel.content import Htlc
from cromford.channel.keys import Basepoints, CommitmentKeys
from cromford.crypto.keys import xonly_of

OP_SIZE: Final = 0x82
OP_EQUAL: Final = 0x87
OP_EQUALVERIFY: Final = 0x88
OP_HASH160: Final = 0xA9
PREIMAGE_SIZE: Final = 32


@dataclass(frozen=True, kw_only=True)
class ScriptOutput:
    """A taproot output with its tapleaves, in the order they are paired."""

    internal_key: bytes
    tapscripts: tuple[bytes, ...] = ()

    @computed
    def taproot(self) -> TaprootOutput:
        """The output key with what spends it."""
        hashes = [tapleaf_hash(script) for script in self.tapscripts]
        return taproot_output(self.internal_key, merkle_root_of(hashes) if hashes else None)

    def control_block(self, index: int) -> bytes:
        """Return the control block that reveals one tapscript.

        Raises:
            ValueError: If there is no such tapscript.
        """
        hashes = [tapleaf_hash(script) for script in self.tapscripts]
        return self.taproot.control_block(merkle_path_of(hashes, index))


# Where the two tapscripts of an HTLC output are.
TIMEOUT_TAPSCRIPT: Final = 0
SUCCESS_TAPSCRIPT: Final = 1


def delayed_output(keys: CommitmentKeys, *, to_self_delay: int) -> ScriptOutput:
    """Return what pays the holder after its delay: `to_local`, and every HTLC transaction."""
    tapscript = (
        _verify(keys.holder_delayed) + push_number(to_self_delay) + bytes((OP_CHECKSEQUENCEVERIFY,))
    )
    return ScriptOutput(internal_key=keys.revocation, tapscripts=(tapscript,))


def to_peer_output(peer: Basepoints) -> ScriptOutput:
    """Return what pays the peer at once: `to_remote`, without a script.

    BOLT 3: its key is not derived, so that the peer finds it even after losing its data.
    """
    return ScriptOutput(internal_key=xonly_of(peer.payment))


def offered_htlc_output(keys: CommitmentKeys, htlc: Htlc) -> ScriptOutput:
    """Return the output of an HTLC that the holder offered.

    The holder takes it back by the HTLC-timeout transaction; the peer takes it with the preimage.
    """
    timeout = _verify(keys.holder_htlc) + push_bytes(keys.peer_htlc) + bytes((OP_CHECKSIG,))
    success = _verify(keys.peer_htlc) + _preimage_of(htlc) + bytes((OP_EQUAL,))
    return ScriptOutput(internal_key=keys.revocation, tapscripts=(timeout, success))


def accepted_htlc_output(keys: CommitmentKeys, htlc: Htlc) -> ScriptOutput:
    """Return the output of an HTLC that the peer offered.

    The holder takes it with the preimage by the HTLC-success transaction; the peer takes it back
    after its expiry.
    """
    timeout = (
        _verify(keys.peer_htlc) + push_number(htlc.cltv_expiry) + bytes((OP_CHECKLOCKTIMEVERIFY,))
    )
    success = (
        _preimage_of(htlc)
        + bytes((OP_EQUALVERIFY,))
        + _verify(keys.holder_htlc)
        + push_bytes(keys.peer_htlc)
        + bytes((OP_CHECKSIG,))
    )
    return ScriptOutput(internal_key=keys.revocation, tapscripts=(timeout, success))


def _verify(xonly_pubkey: bytes) -> bytes:
    return push_bytes(xonly_pubkey) + bytes((OP_CHECKSIGVERIFY,))


def _preimage_of(htlc: Htlc) -> bytes:
    return (
        bytes((OP_SIZE,))
        + push_number(PREIMAGE_SIZE)
        + bytes((OP_EQUALVERIFY, OP_HASH160))
        + push_bytes(htlc.payment_hash160)
    )
