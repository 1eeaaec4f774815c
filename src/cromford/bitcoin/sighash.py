"""BIP 341 message digests, for key path and script path, with SIGHASH_DEFAULT.

A factory signs no other hash type and no annex, so neither is a parameter. (The one exception of
the channel type, in HTLC transactions without a fee, lives in the channel room.)
"""

from collections.abc import Sequence
from typing import Final

from cromford.bitcoin.taproot import tapleaf_hash
from cromford.bitcoin.tx import Tx, TxOut, var_bytes
from cromford.crypto.keys import TaggedHash, sha256

SIGHASH_EPOCH: Final = b"\x00"
SIGHASH_DEFAULT: Final = b"\x00"
KEY_VERSION: Final = b"\x00"  # BIP 342
NO_CODESEPARATOR: Final = b"\xff\xff\xff\xff"

hash_tapsighash: Final = TaggedHash("TapSighash")


def taproot_sighash(
    tx: Tx, *, prevouts: Sequence[TxOut], input_index: int, tapscript: bytes | None = None
) -> bytes:
    """Return the digest that a signature of one input commits to.

    Args:
        tx: The transaction; its witnesses do not matter.
        prevouts: What each input spends, in order: amounts and scripts are signed too.
        input_index: The input to be signed.
        tapscript: The script of the tapleaf for a script-path spend (BIP 342), or None.

    Raises:
        ValueError: If the prevouts or the index do not match the inputs.
    """
    if len(prevouts) != len(tx.inputs):
        raise ValueError(f"{len(tx.inputs)} inputs and {len(prevouts)} prevouts")
    if not 0 <= input_index < len(tx.inputs):
        raise ValueError(f"input {input_index} of {len(tx.inputs)}")
    spend_type = 0 if tapscript is None else 2
    message = (
        SIGHASH_EPOCH
        + SIGHASH_DEFAULT
        + tx.version.to_bytes(4, "little")
        + tx.nlocktime.to_bytes(4, "little")
        + sha256(b"".join([tx_in.outpoint.serialize() for tx_in in tx.inputs]))
        + sha256(b"".join([prevout.amount_sat.to_bytes(8, "little") for prevout in prevouts]))
        + sha256(b"".join([var_bytes(prevout.script_pubkey) for prevout in prevouts]))
        + sha256(b"".join([tx_in.nsequence.to_bytes(4, "little") for tx_in in tx.inputs]))
        + sha256(tx.serialized_outputs)
        + bytes((spend_type,))
        + input_index.to_bytes(4, "little")
    )
    if tapscript is not None:
        message += tapleaf_hash(tapscript) + KEY_VERSION + NO_CODESEPARATOR
    return hash_tapsighash(message)
