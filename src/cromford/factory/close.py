"""A cooperative close: one transaction that pays out an output which all its signers share.

It spends the funding's output, an output of the tree that is on chain, or a channel's, by key path,
and pays each client in scope its balance, the LSP the rest. Version 3 with an anchor: as version 2
a large, cheap child would pin every exit from the same output (BIP 431).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from cromford.bitcoin.fees import (
    ANCHOR_DUST_SAT,
    P2TR_DUST_SAT,
    TRUC_VSIZE_MAX,
    fee_sat_of,
    keypath_tx_vsize,
)
from cromford.bitcoin.script import ANCHOR_SCRIPT, is_usual_segwit
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxIn, TxOut
from cromford.crypto.musig2 import KeyAgg
from cromford.factory.key_path import InvalidSignature
from cromford.factory.outputs import SignersOutput
from cromford.factory.vertices import TreeNode
from cromford.signing.task import SigningTask

CLOSE_NSEQUENCE: Final = 0xFFFFFFFD  # Replaceable (BIP 125), no relative delay (BIP 68).
CLOSE_DUST_SAT: Final = P2TR_DUST_SAT  # For every script type, so that all compute the same.
CLOSE_CLIENTS_MAX: Final = 229  # As many as a version 3 transaction has room for (BIP 431).
USUAL_SCRIPTS: Final = "P2WPKH, P2WSH or P2TR"  # What a close pays to.
_BLANK_SIGNATURE: Final = bytes(64)


class CannotClose(ValueError):
    """No such close can be made: names the field, what it should be, and what it is."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


@dataclass(frozen=True, kw_only=True)
class CloseScope:
    """What a close spends, and who signs it.

    Attributes:
        name: The name of what spends it otherwise: a transaction of the tree, or `channel N`.
        outpoint: Where it is.
        amount_sat: What it holds.
        output: Whose it is: all signers together, by key path. They need not be known.
        clients: The participant indices of the clients whose channels are below it, or it is, in
            placement order.
    """

    name: str
    outpoint: OutPoint
    amount_sat: int
    output: SignersOutput
    clients: tuple[int, ...]

    @property
    def prevout(self) -> TxOut:
        """What is spent."""
        return TxOut(amount_sat=self.amount_sat, script_pubkey=self.output.script_pubkey)

    @property
    def vsize_max(self) -> int:
        """The most virtual bytes of a signed close of this scope whose payouts are all taproot."""
        return keypath_tx_vsize(n_p2tr_outputs=len(self.clients) + 1, n_anchors=1)

    def signed_by(self, pubkeys: Sequence[bytes]) -> "CloseScope":
        """Return the scope with the keys of its signers, which its output key commits to.

        Who finds other keys that add up to the same could forge any signature of these (BIP 327).

        Raises:
            CannotClose: If a key is no point or is there twice, or they add up to something else.
        """
        expected = self.output.key_agg.internal_key.hex()
        try:
            key_agg = KeyAgg(pubkeys)
        except ValueError as error:
            raise CannotClose("signers", expected=expected, received=error) from error
        if key_agg.internal_key.hex() != expected:
            raise CannotClose("signers", expected=expected, received=key_agg.internal_key.hex())
        return replace(self, output=SignersOutput(key_agg=key_agg, tapleaf=self.output.tapleaf))

    def task(self, tx: Tx) -> SigningTask:
        """Return what has to be signed of a transaction whose one input spends this."""
        return SigningTask(
            name=f"close {self.name} {tx.txid}",
            sighash=taproot_sighash(tx, prevouts=[self.prevout], input_index=0),
            key_agg=self.output.spending_key_agg,
        )

    def signed(self, tx: Tx, signature: bytes) -> Tx:
        """Return a close with its signature.

        Raises:
            InvalidSignature: If it does not verify.
        """
        task = self.task(tx)
        if not task.is_signed_by(signature, self.output.spending_key_agg.output_key):
            raise InvalidSignature(task.name)
        return tx.with_witnesses((signature,))


def scope_of(node: TreeNode) -> CloseScope:
    """Return the scope of what a transaction of the tree spends: a close takes its place."""
    return CloseScope(
        name=node.name,
        outpoint=node.tx.inputs[0].outpoint,
        amount_sat=node.input_amount_sat,
        output=node.spends,
        clients=tuple(node.shape.clients),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """What a close owes one client, in msat, and where it is paid."""

    script_pubkey: bytes
    due_msat: int

    @property
    def amount_sat(self) -> int:
        """What it is paid: whole satoshi, and nothing below the dust limit."""
        amount_sat = self.due_msat // 1000
        return amount_sat if amount_sat >= CLOSE_DUST_SAT else 0


@dataclass(frozen=True, kw_only=True)
class CloseTx:
    """An unsigned close, and what it pays to whom.

    Attributes:
        scope: What it spends.
        tx: The transaction.
        payouts: What was due to each client of the scope, in its order.
        lsp_sat: What the LSP gets of it: at most one output.
    """

    scope: CloseScope
    tx: Tx
    payouts: tuple[Payout, ...]
    lsp_sat: int

    @cached_property
    def fee_sat(self) -> int:
        """What it pays itself, the anchor not counted."""
        return self.scope.amount_sat - sum(output.amount_sat for output in self.tx.outputs)

    @property
    def vsize(self) -> int:
        """The virtual bytes of the signed transaction."""
        return vsize_of_close(self.tx)

    @property
    def omitted(self) -> tuple[int, ...]:
        """The clients who are due something, and too little for an output: the LSP keeps it."""
        return tuple(
            client
            for client, payout in zip(self.scope.clients, self.payouts, strict=True)
            if payout.due_msat and not payout.amount_sat
        )


def check_is_close(scope: CloseScope, tx: Tx) -> None:
    """Check that a transaction has a close's form: so it is none of the tree, and no commitment.

    Those have another nSequence, whatever else they say: 0xffffffff, a delay of blocks (BIP 68), or
    the number that BOLT 3 hides in it.

    Raises:
        CannotClose: If it has not; names the field.
    """
    form = [
        ("version", TRUC_VERSION, tx.version),
        ("inputs", [scope.outpoint], [tx_in.outpoint for tx_in in tx.inputs]),
        ("nsequence", [CLOSE_NSEQUENCE], [tx_in.nsequence for tx_in in tx.inputs]),
        ("nlocktime", 0, tx.nlocktime),
    ]
    for field, expected, received in form:
        if expected != received:
            raise CannotClose(field, expected=expected, received=received)


def vsize_of_close(tx: Tx) -> int:
    """Return the virtual bytes of a close once it is signed."""
    return tx.with_witnesses((_BLANK_SIGNATURE,)).vsize


def build_close(
    scope: CloseScope,
    payouts: Sequence[Payout],
    *,
    lsp_script: bytes,
    feerate_sat_per_kw: int,
) -> CloseTx:
    """Return the close of a scope.

    The LSP pays fee and anchor, and has what is too small for an output. Where less than the dust
    limit is left for itself, that goes to the fee.

    Args:
        scope: What is spent.
        payouts: What each of its clients is due, in its order.
        lsp_script: Where the LSP is paid.
        feerate_sat_per_kw: What the close pays itself.

    Raises:
        CannotClose: If there are too many clients, one is paid to a script that nodes do not relay,
            or the LSP's part does not carry the fee.
    """
    if len(payouts) != len(scope.clients):
        raise CannotClose("payouts", expected=len(scope.clients), received=len(payouts))
    if len(payouts) > CLOSE_CLIENTS_MAX:
        raise CannotClose(
            "clients",
            expected=f"at most {CLOSE_CLIENTS_MAX}: close a part of the tree at a time",
            received=len(payouts),
        )
    paid = tuple(
        TxOut(amount_sat=payout.amount_sat, script_pubkey=payout.script_pubkey)
        for payout in payouts
        if payout.amount_sat
    )
    for output in paid:
        if not is_usual_segwit(output.script_pubkey):
            # No node would relay the close, and all its channels would wait for it in vain.
            received = output.script_pubkey.hex()
            raise CannotClose("payout_script", expected=USUAL_SCRIPTS, received=received)
    anchor = TxOut(amount_sat=ANCHOR_DUST_SAT, script_pubkey=ANCHOR_SCRIPT)
    left_sat = scope.amount_sat - ANCHOR_DUST_SAT - sum(output.amount_sat for output in paid)

    def made(*own: TxOut) -> Tx:
        return Tx(
            version=TRUC_VERSION,
            inputs=(TxIn(outpoint=scope.outpoint, nsequence=CLOSE_NSEQUENCE),),
            outputs=(*paid, *own, anchor),
        )

    blank = made(TxOut(amount_sat=0, script_pubkey=lsp_script))
    vsize = vsize_of_close(blank)
    if vsize > TRUC_VSIZE_MAX:
        raise CannotClose("vsize", expected=f"at most {TRUC_VSIZE_MAX}", received=vsize)
    lsp_sat = left_sat - fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)
    tx = made(TxOut(amount_sat=lsp_sat, script_pubkey=lsp_script))
    if lsp_sat < CLOSE_DUST_SAT:
        lsp_sat, tx = 0, made()
        least_sat = fee_sat_of(vsize=vsize_of_close(tx), feerate_sat_per_kw=feerate_sat_per_kw)
        if left_sat < least_sat:
            raise CannotClose("fee", expected=f"at least {least_sat} sat", received=left_sat)
    return CloseTx(scope=scope, tx=tx, payouts=tuple(payouts), lsp_sat=lsp_sat)
