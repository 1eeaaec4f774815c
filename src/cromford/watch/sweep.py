"""Transactions that take a channel's outputs, ready to be signed.

A spend holds no seckey: it says what is to be signed with which key, and puts the signatures in
their places. What a sweep costs is measured on its own bytes: BIP 341 signatures always have one
size, so it is known before anybody signs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import (
    WITNESS_SCALE,
    OutPoint,
    Tx,
    TxIn,
    TxOut,
    var_bytes,
    var_list,
    vsize_of,
)
from cromford.channel.claims import Claim
from cromford.channel.htlc_tx import HtlcTx
from cromford.signing.derivation import ClaimKey
from cromford.wallet.account import WalletPath
from cromford.wallet.coins import Purse, SpentCoin

SWEEP_FEERATE_SAT_PER_KW: Final = 500  # 2 sat/vB, where the terms' own feerate is zero.
SWEEP_VSIZE: Final = 130  # Of one delayed output; a test measures it.
SWEEP_VERSION: Final = 2  # Only confirmed outputs are swept, so BIP 431 has nothing to give.
BLANK_SIGNATURE: Final = bytes(64)  # As long as a real one (BIP 340), to measure with.


@dataclass(frozen=True, kw_only=True)
class ClaimInput:
    """One output that goes to the wallet.

    Attributes:
        claim: How it is spent.
        secret_or_point: What the key is derived with, as `Signer.sign_claim` wants it.
        preimage: Shown in the witness, where the claim needs one.
    """

    claim: Claim
    secret_or_point: bytes
    preimage: bytes | None = None

    @property
    def outpoint(self) -> OutPoint:
        """What is spent."""
        return self.claim.outpoint

    @property
    def prevout(self) -> TxOut:
        """Its amount and script."""
        return self.claim.prevout

    @property
    def key(self) -> ClaimKey:
        """Who signs."""
        return self.claim.key

    @property
    def tweak(self) -> bytes | None:
        """What the seckey is tweaked with, for a key-path spend (BIP 341)."""
        return self.claim.tweak

    @property
    def tapscript(self) -> bytes | None:
        """The script, for a script-path spend."""
        return self.claim.tapscript

    def witness(self, signature: bytes) -> tuple[bytes, ...]:
        """Return the input's witness.

        Raises:
            ValueError: If a preimage is missing, has no place, or has the wrong size.
        """
        return self.claim.witness(signature, preimage=self.preimage)

    def fee_sat(self, feerate_sat_per_kw: int) -> int:
        """Return what this input adds to a transaction's fee."""
        tx_in = TxIn(outpoint=self.outpoint, nsequence=self.claim.nsequence)
        witness = var_list([var_bytes(item) for item in self.witness(BLANK_SIGNATURE)])
        weight = WITNESS_SCALE * len(tx_in.serialize()) + len(witness)
        return fee_sat_of(vsize=vsize_of(weight), feerate_sat_per_kw=feerate_sat_per_kw)


@dataclass(frozen=True, kw_only=True)
class HtlcInput:
    """The one input of an HTLC transaction that pays for itself.

    Attributes:
        htlc_tx: HTLC-success or HTLC-timeout, of this party's commitment.
        peer_signature: What the peer sent with `commitment_signed`.
        secret_or_point: This party's per-commitment point.
        preimage: For HTLC-success only.
    """

    htlc_tx: HtlcTx
    peer_signature: bytes
    secret_or_point: bytes
    preimage: bytes | None = None

    key: ClassVar[ClaimKey] = ClaimKey.HTLC
    tweak: ClassVar[bytes | None] = None

    @property
    def outpoint(self) -> OutPoint:
        """What is spent."""
        return self.htlc_tx.tx.inputs[0].outpoint

    @property
    def prevout(self) -> TxOut:
        """Its amount and script."""
        return self.htlc_tx.prevout

    @property
    def tapscript(self) -> bytes:
        """The script."""
        return self.htlc_tx.tapscript

    def witness(self, signature: bytes) -> tuple[bytes, ...]:
        """Return the input's witness.

        Raises:
            ValueError: If a preimage is missing, has no place, or has the wrong size.
        """
        signed = self.htlc_tx.signed(
            peer_signature=self.peer_signature, holder_signature=signature, preimage=self.preimage
        )
        return signed.inputs[0].witness


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinInput:
    """A coin of the wallet that pays for what pays nothing itself."""

    coin: SpentCoin

    @property
    def outpoint(self) -> OutPoint:
        """What is spent."""
        return self.coin.outpoint

    @property
    def prevout(self) -> TxOut:
        """Its amount and script."""
        return self.coin.txout

    def witness(self, signature: bytes) -> tuple[bytes, ...]:
        """Return the input's witness (BIP 86: the key path)."""
        return (signature,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinSignatureNeeded:
    """A signature by the wallet's key of a path."""

    path: WalletPath
    sighash: bytes


@dataclass(frozen=True, kw_only=True)
class SignatureNeeded:
    """The arguments of one `Signer.sign_claim`, but for the channel's name."""

    key: ClaimKey
    secret_or_point: bytes
    sighash: bytes
    tweak: bytes | None


@dataclass(frozen=True, kw_only=True)
class TakingTx:
    """Sign this transaction and broadcast it now: it can be in the next block.

    Attributes:
        name: For logs and lists.
        tx: Without signatures.
        inputs: What is known of each of its inputs.
    """

    name: str
    tx: Tx
    inputs: tuple[ClaimInput | HtlcInput | CoinInput, ...]

    @property
    def prevouts(self) -> tuple[TxOut, ...]:
        """What the inputs spend."""
        return tuple(one.prevout for one in self.inputs)

    @cached_property
    def signatures_needed(self) -> tuple[SignatureNeeded | CoinSignatureNeeded, ...]:
        """What is to be signed, input by input."""
        return tuple(self._needed(index, one) for index, one in enumerate(self.inputs))

    def _needed(
        self, index: int, one: ClaimInput | HtlcInput | CoinInput
    ) -> SignatureNeeded | CoinSignatureNeeded:
        sighash = taproot_sighash(
            self.tx,
            prevouts=self.prevouts,
            input_index=index,
            tapscript=None if isinstance(one, CoinInput) else one.tapscript,
        )
        if isinstance(one, CoinInput):
            return CoinSignatureNeeded(path=one.coin.path, sighash=sighash)
        return SignatureNeeded(
            key=one.key, secret_or_point=one.secret_or_point, sighash=sighash, tweak=one.tweak
        )

    def signed(self, signatures: Sequence[bytes]) -> Tx:
        """Return the transaction with its 64-byte signatures, which are not checked here.

        Raises:
            ValueError: If there is not one signature for each input.
        """
        return self.tx.with_witnesses(
            *(
                one.witness(signature)
                for one, signature in zip(self.inputs, signatures, strict=True)
            )
        )

    @cached_property
    def vsize(self) -> int:
        """The virtual bytes of the signed transaction."""
        return self.signed([BLANK_SIGNATURE] * len(self.inputs)).vsize

    @property
    def fee_sat(self) -> int:
        """What it pays."""
        spent_sat = sum(prevout.amount_sat for prevout in self.prevouts)
        return spent_sat - sum(txout.amount_sat for txout in self.tx.outputs)


def htlc_spend(name: str, one: HtlcInput) -> TakingTx:
    """Return an HTLC transaction as a spend: its bytes were agreed with the peer."""
    return TakingTx(name=name, tx=one.htlc_tx.tx, inputs=(one,))


def with_coins(
    spend: TakingTx, purse: Purse, *, fee_sat: Callable[[int], int | None]
) -> TakingTx | None:
    """Return an HTLC transaction without a fee with coins that pay one, the fewest that reach.

    The peer signed the HTLC's input and output only (bolts#1330), so inputs and a change can be
    added.

    Args:
        spend: The transaction: one input, one output.
        purse: The coins.
        fee_sat: Says what the signed transaction pays, by its virtual bytes; None for too much.

    Returns:
        The transaction; None if all coins do not reach, or it would cost too much.
    """
    coins = purse.largest_first
    for n_coins in range(1, len(coins) + 1):
        added = tuple(CoinInput(coin=coin) for coin in coins[:n_coins])
        held_sat = sum(one.prevout.amount_sat for one in added)
        draft = _with_added(spend, added, change_sat=held_sat, script=purse.change_script)
        paid_sat = fee_sat(draft.vsize)
        if paid_sat is None:
            return None
        if held_sat - paid_sat >= P2TR_DUST_SAT:
            change_sat = held_sat - paid_sat
            return _with_added(spend, added, change_sat=change_sat, script=purse.change_script)
    return None


def without_coins(spend: TakingTx) -> Tx:
    """Return a transaction as it would be signed without the coins that pay for it."""
    own = tuple(one for one in spend.inputs if not isinstance(one, CoinInput))
    tx = spend.tx
    if len(own) < len(spend.inputs):
        tx = replace(tx, inputs=tx.inputs[: len(own)], outputs=tx.outputs[:-1])
    return replace(spend, tx=tx, inputs=own).signed([BLANK_SIGNATURE] * len(own))


def _with_added(
    spend: TakingTx, added: tuple[CoinInput, ...], *, change_sat: int, script: bytes
) -> TakingTx:
    tx = replace(
        spend.tx,
        inputs=(
            *spend.tx.inputs,
            *(TxIn(outpoint=one.outpoint, nsequence=NSEQUENCE_REPLACEABLE) for one in added),
        ),
        outputs=(*spend.tx.outputs, TxOut(amount_sat=change_sat, script_pubkey=script)),
    )
    return replace(spend, tx=tx, inputs=(*spend.inputs, *added))


def sweep(
    name: str,
    inputs: Sequence[ClaimInput],
    *,
    payout_script: bytes,
    fee_sat: Callable[[int], int | None],
) -> TakingTx | None:
    """Return one transaction that takes these outputs to one script.

    Args:
        name: For logs and lists.
        inputs: Outputs that are confirmed, whose delays are over, and that are worth their fee.
        payout_script: Who gets all of it, a taproot output.
        fee_sat: Says what the signed transaction pays, by its virtual bytes; None for too much.

    Returns:
        The transaction; None if less than dust would be left.
    """
    spent_sat = sum(one.prevout.amount_sat for one in inputs)
    draft = TakingTx(name=name, tx=_payout(inputs, payout_script, spent_sat), inputs=tuple(inputs))
    paid_sat = fee_sat(draft.vsize)
    if paid_sat is None or spent_sat - paid_sat < P2TR_DUST_SAT:
        return None
    return replace(draft, tx=_payout(inputs, payout_script, spent_sat - paid_sat))


def _payout(inputs: Sequence[ClaimInput], payout_script: bytes, amount_sat: int) -> Tx:
    return Tx(
        version=SWEEP_VERSION,
        inputs=tuple(TxIn(outpoint=one.outpoint, nsequence=one.claim.nsequence) for one in inputs),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=payout_script),),
        nlocktime=max(one.claim.nlocktime_min for one in inputs),
    )
