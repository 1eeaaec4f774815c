"""HTLC-success and HTLC-timeout: what the holder of a commitment takes its HTLCs with.

Both parties sign, so that the holder's delay cannot be evaded: the amount goes to an output that
the peer can still punish (BOLT 3).
"""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import TRUC_VERSION, Tx, TxIn, TxOut
from cromford.changed import computed
from cromford.channel.commitment import Commitment, CommitmentOutput, CommitmentOutputKind
from cromford.channel.content import Htlc
from cromford.channel.htlc_sighash import SIGHASH_SINGLE_ANYONECANPAY, single_anyonecanpay_sighash
from cromford.channel.scripts import (
    PREIMAGE_SIZE,
    SUCCESS_TAPSCRIPT,
    TIMEOUT_TAPSCRIPT,
    ScriptOutput,
)

HTLC_NSEQUENCE: Final = 0  # bolts#1330: no relative delay in a version 3 channel.


@dataclass(frozen=True, kw_only=True)
class HtlcTx:
    """One HTLC transaction without its signatures.

    `is_offered` says which: HTLC-timeout for what the holder offered, else HTLC-success.
    """

    htlc: Htlc
    vout: int
    is_offered: bool
    prevout: TxOut
    scripts: ScriptOutput
    is_zero_fee: bool
    tx: Tx

    @property
    def tapscript(self) -> bytes:
        """The script that both sign for."""
        return self.scripts.tapscripts[self._tapscript_index]

    @property
    def _tapscript_index(self) -> int:
        return TIMEOUT_TAPSCRIPT if self.is_offered else SUCCESS_TAPSCRIPT

    @computed
    def peer_sighash(self) -> bytes:
        """What the peer signs with its HTLC key of this commitment, and sends."""
        if self.is_zero_fee:
            return single_anyonecanpay_sighash(
                self.tx, prevout=self.prevout, input_index=0, tapscript=self.tapscript
            )
        return self.holder_sighash

    @computed
    def holder_sighash(self) -> bytes:
        """What the holder signs with its own HTLC key, when it broadcasts."""
        return taproot_sighash(
            self.tx, prevouts=(self.prevout,), input_index=0, tapscript=self.tapscript
        )

    def signed(
        self, *, peer_signature: bytes, holder_signature: bytes, preimage: bytes | None = None
    ) -> Tx:
        """Return the transaction with both 64-byte signatures, which are not checked here.

        Args:
            peer_signature: Over `peer_sighash`.
            holder_signature: Over `holder_sighash`.
            preimage: Of the payment hash, for HTLC-success only.

        Raises:
            ValueError: If a preimage is missing, has no place, or has the wrong size.
        """
        if (preimage is None) is not self.is_offered:
            raise ValueError("HTLC-success needs a preimage, and HTLC-timeout none")
        if preimage is not None and len(preimage) != PREIMAGE_SIZE:
            raise ValueError(f"a preimage has {PREIMAGE_SIZE} bytes, received {len(preimage)}")
        hash_type = SIGHASH_SINGLE_ANYONECANPAY if self.is_zero_fee else b""
        unlocking = () if preimage is None else (preimage,)
        return self.tx.with_witnesses(
            (
                peer_signature + hash_type,
                holder_signature,
                *unlocking,
                self.tapscript,
                self.scripts.control_block(self._tapscript_index),
            )
        )


def htlc_txs(commitment: Commitment) -> tuple[HtlcTx, ...]:
    """Return the HTLC transactions of a commitment, in the order of its outputs.

    It is also the order of the signatures in `commitment_signed` (BOLT 2).
    """
    return tuple(
        _htlc_tx(commitment, vout, output, output.htlc)
        for vout, output in enumerate(commitment.outputs)
        if output.htlc is not None
    )


def _htlc_tx(commitment: Commitment, vout: int, output: CommitmentOutput, htlc: Htlc) -> HtlcTx:
    terms, scripts = commitment.terms, output.scripts
    assert scripts is not None  # noqa: S101 - the anchor alone has none
    is_offered = output.kind is CommitmentOutputKind.OFFERED_HTLC
    paid = TxOut(
        amount_sat=output.amount_sat - terms.htlc_tx_cost_sat(is_offered=is_offered),
        script_pubkey=commitment.delayed.taproot.script_pubkey,
    )
    anchor = TxOut(amount_sat=terms.paid_anchor_sat, script_pubkey=ANCHOR_SCRIPT)
    tx = Tx(
        version=TRUC_VERSION,
        inputs=(TxIn(outpoint=commitment.tx.outpoint(vout), nsequence=HTLC_NSEQUENCE),),
        outputs=(paid,) if terms.is_zero_fee else (paid, anchor),
        nlocktime=htlc.cltv_expiry if is_offered else 0,
    )
    return HtlcTx(
        htlc=htlc,
        vout=vout,
        is_offered=is_offered,
        prevout=output.txout,
        scripts=scripts,
        is_zero_fee=terms.is_zero_fee,
        tx=tx,
    )
