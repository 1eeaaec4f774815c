"""The one message digest that is not SIGHASH_DEFAULT: a peer's HTLC signature at feerate 0.

It commits to one input and one output only, so that the holder can add inputs that pay the fee
(BOLT 5). With a feerate the HTLC pays by itself and both sign everything.
"""

from typing import Final

from cromford.bitcoin.sighash import (
    KEY_VERSION,
    NO_CODESEPARATOR,
    SIGHASH_EPOCH,
    hash_tapsighash,
)
from cromford.bitcoin.taproot import tapleaf_hash
from cromford.bitcoin.tx import Tx, TxOut
from cromford.crypto.keys import sha256

SIGHASH_SINGLE_ANYONECANPAY: Final = b"\x83"
_SCRIPT_PATH: Final = b"\x02"  # BIP 341's spend type: an extension, no annex.


def single_anyonecanpay_sighash(
    tx: Tx, *, prevout: TxOut, input_index: int, tapscript: bytes
) -> bytes:
    """Return the digest of one input's script path with SIGHASH_SINGLE|ANYONECANPAY (BIP 341).

    Raises:
        ValueError: If there is no such input, or no output at its place.
    """
    if not 0 <= input_index < min(len(tx.inputs), len(tx.outputs)):
        raise ValueError(
            f"input {input_index} of {len(tx.inputs)} inputs and {len(tx.outputs)} outputs"
        )
    tx_in = tx.inputs[input_index]
    message = (
        SIGHASH_EPOCH
        + SIGHASH_SINGLE_ANYONECANPAY
        + tx.version.to_bytes(4, "little")
        + tx.nlocktime.to_bytes(4, "little")
        + _SCRIPT_PATH
        + tx_in.outpoint.serialize()
        + prevout.serialize()
        + tx_in.nsequence.to_bytes(4, "little")
        + sha256(tx.outputs[input_index].serialize())
        + tapleaf_hash(tapscript)
        + KEY_VERSION
        + NO_CODESEPARATOR
    )
    return hash_tapsighash(message)
