"""How each output of a commitment that reached the chain is taken, as data to sign.

The peer of the holder takes its own balance, HTLCs by preimage or expiry, and everything if the
commitment was revoked. The holder takes what is delayed for it; its HTLCs it takes with the
transactions of `htlc_tx` first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taptweak
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE, nsequence_of_delay
from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.channel.commitment import Commitment, CommitmentOutput, CommitmentOutputKind
from cromford.channel.content import Htlc
from cromford.channel.scripts import (
    PREIMAGE_SIZE,
    SUCCESS_TAPSCRIPT,
    TIMEOUT_TAPSCRIPT,
    ScriptOutput,
)
from cromford.signing.derivation import ClaimKey


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One input of a transaction that takes an output.

    Attributes:
        outpoint: What is spent.
        prevout: Its amount and script.
        key: Who signs.
        nsequence: What the input must carry.
        nlocktime_min: What the transaction's nLockTime must be at least.
        tweak: For a key-path spend, what the seckey is tweaked with (BIP 341); else None.
        tapscript: For a script-path spend, else None.
        control_block: For a script-path spend, else None.
        htlc: The HTLC that is taken, if any.
        needs_preimage: Whether the witness shows the preimage of the HTLC's payment hash.
    """

    outpoint: OutPoint
    prevout: TxOut
    key: ClaimKey
    nsequence: int = NSEQUENCE_REPLACEABLE
    nlocktime_min: int = 0
    tweak: bytes | None = None
    tapscript: bytes | None = None
    control_block: bytes | None = None
    htlc: Htlc | None = None
    needs_preimage: bool = False

    def sighash(self, tx: Tx, *, prevouts: Sequence[TxOut], input_index: int) -> bytes:
        """Return what is signed when this is input `input_index` of `tx`.

        Raises:
            ValueError: If the prevouts or the index do not match the inputs.
        """
        return taproot_sighash(
            tx, prevouts=prevouts, input_index=input_index, tapscript=self.tapscript
        )

    def witness(self, signature: bytes, *, preimage: bytes | None = None) -> tuple[bytes, ...]:
        """Return the witness of the input.

        Raises:
            ValueError: If a preimage is missing, has no place, or has the wrong size.
        """
        if (preimage is not None) is not self.needs_preimage:
            raise ValueError("a preimage is needed exactly where an HTLC is taken by its hash")
        if preimage is not None and len(preimage) != PREIMAGE_SIZE:
            raise ValueError(f"a preimage has {PREIMAGE_SIZE} bytes, received {len(preimage)}")
        if self.tapscript is None:
            return (signature,)
        assert self.control_block is not None  # noqa: S101 - a script path has both
        # The tapscript checks the signature first, so it lies on top of the preimage.
        unlocking = () if preimage is None else (preimage,)
        return (*unlocking, signature, self.tapscript, self.control_block)


def holder_claims(commitment: Commitment) -> tuple[Claim, ...]:
    """Return what the holder takes of its own commitment after its delay, without HTLCs."""
    return tuple(
        delayed_claim(commitment, outpoint=commitment.tx.outpoint(vout), prevout=output.txout)
        for vout, output in enumerate(commitment.outputs)
        if output.kind is CommitmentOutputKind.TO_HOLDER
    )


def delayed_claim(commitment: Commitment, *, outpoint: OutPoint, prevout: TxOut) -> Claim:
    """Return how the holder takes a delayed output: its balance's, or an HTLC transaction's."""
    delay = commitment.terms.to_self_delay(commitment.content.holder)
    return Claim(
        outpoint=outpoint,
        prevout=prevout,
        key=ClaimKey.DELAYED,
        nsequence=nsequence_of_delay(delay),
        tapscript=commitment.delayed.tapscripts[0],
        control_block=commitment.delayed.control_block(0),
    )


def peer_claims(commitment: Commitment) -> tuple[Claim, ...]:
    """Return what the peer may take of a commitment that was not revoked.

    Its balance at once; HTLCs that it offered, after their expiry; HTLCs offered to it, with
    their preimage.
    """
    return tuple(
        claim
        for vout, output in enumerate(commitment.outputs)
        for claim in _peer_claim(commitment, vout, output)
    )


def _peer_claim(commitment: Commitment, vout: int, output: CommitmentOutput) -> tuple[Claim, ...]:
    outpoint, scripts = commitment.tx.outpoint(vout), output.scripts
    if scripts is None or output.kind is CommitmentOutputKind.TO_HOLDER:
        return ()
    if output.htlc is None:
        return (_key_path(outpoint, output.txout, scripts, ClaimKey.PAYMENT),)
    is_offered = output.kind is CommitmentOutputKind.OFFERED_HTLC
    index = SUCCESS_TAPSCRIPT if is_offered else TIMEOUT_TAPSCRIPT
    claim = Claim(
        outpoint=outpoint,
        prevout=output.txout,
        key=ClaimKey.HTLC,
        nlocktime_min=0 if is_offered else output.htlc.cltv_expiry,
        tapscript=scripts.tapscripts[index],
        control_block=scripts.control_block(index),
        htlc=output.htlc,
        needs_preimage=is_offered,
    )
    return (claim,)


def to_peer_claims(tx: Tx, scripts: ScriptOutput) -> tuple[Claim, ...]:
    """Return what pays the peer at once in a commitment that it does not know.

    BOLT 3: the key of `to_remote` is not derived, so the script tells, whatever else is in there.

    Args:
        tx: What spent the channel's output.
        scripts: The peer's `to_remote`.
    """
    return tuple(
        _key_path(tx.outpoint(vout), txout, scripts, ClaimKey.PAYMENT)
        for vout, txout in enumerate(tx.outputs)
        if txout.script_pubkey == scripts.taproot.script_pubkey
    )


def penalty_claims(commitment: Commitment) -> tuple[Claim, ...]:
    """Return how the peer takes every output of a revoked commitment, its own balance included.

    Key-path spends all, so they can share one transaction that waits for nothing. An HTLC output
    that the cheater spent first is found again by `htlc_tx_penalties`.
    """
    claims = []
    for vout, output in enumerate(commitment.outputs):
        if output.scripts is None:
            continue
        key = (
            ClaimKey.PAYMENT if output.kind is CommitmentOutputKind.TO_PEER else ClaimKey.REVOCATION
        )
        outpoint = commitment.tx.outpoint(vout)
        claims.append(_key_path(outpoint, output.txout, output.scripts, key, output.htlc))
    return tuple(claims)


def htlc_tx_penalties(commitment: Commitment, spender: Tx) -> tuple[Claim, ...]:
    """Return how the peer takes what a transaction made of a revoked commitment's HTLCs.

    At feerate 0 the cheater may have put several HTLC transactions into one, with other inputs;
    each HTLC's output is at the place of its input (BOLT 5). Whatever else the cheater delays for
    itself there is the peer's, too.

    Args:
        commitment: The revoked commitment.
        spender: A transaction on chain that spends some of its outputs.
    """
    htlcs = {
        commitment.tx.outpoint(vout): output.htlc for vout, output in enumerate(commitment.outputs)
    }
    script = commitment.delayed.taproot.script_pubkey
    return tuple(
        _key_path(
            spender.outpoint(place),
            spender.outputs[place],
            commitment.delayed,
            ClaimKey.REVOCATION,
            htlcs[tx_in.outpoint],
        )
        for place, tx_in in enumerate(spender.inputs[: len(spender.outputs)])
        if tx_in.outpoint in htlcs and spender.outputs[place].script_pubkey == script
    )


def _key_path(
    outpoint: OutPoint,
    prevout: TxOut,
    scripts: ScriptOutput,
    key: ClaimKey,
    htlc: Htlc | None = None,
) -> Claim:
    taproot = scripts.taproot
    return Claim(
        outpoint=outpoint,
        prevout=prevout,
        key=key,
        tweak=taptweak(taproot.internal_key, taproot.merkle_root),
        htlc=htlc,
    )
