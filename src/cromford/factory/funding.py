"""The funding transaction: the only one on chain, paid by the LSP alone."""

from collections.abc import Sequence
from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut

FUNDING_VERSION: Final = 2
CHANGE_MIN_SAT: Final = 10_000  # The change is the handle for CPFP, so it is worth spending.
CHANGE_VOUT: Final = 1


def least_higher_fee_sat(fee_sat: int, *, vsize: int) -> int:
    """Return the least fee of a fee ladder's next candidate, in sat.

    A quarter more than the one before it pays, and 1 sat/vB more: what is closer would neither be
    worth a ceremony's work nor leave room for a child of the one before.

    Args:
        fee_sat: What the candidate before pays.
        vsize: Of either, signed, in vB: they differ in nothing but their change.
    """
    return max(fee_sat + -(-fee_sat // 4), fee_sat + vsize)


def funding_tx_of(*, inputs: Sequence[OutPoint], factory_output: TxOut, change_output: TxOut) -> Tx:
    """Return the unsigned funding transaction: the factory first, the change second.

    With native-segwit inputs its txid is final before it is signed.

    Raises:
        ValueError: If there is no input, one stands twice, or an output is too small.
    """
    if not inputs:
        raise ValueError("a funding transaction needs a coin")
    if len(set(inputs)) != len(inputs):
        raise ValueError("a funding transaction spends a coin once")
    if factory_output.amount_sat < P2TR_DUST_SAT:
        raise ValueError(f"factory output of {factory_output.amount_sat} sat is dust")
    if change_output.amount_sat < CHANGE_MIN_SAT:
        raise ValueError(
            f"change of at least {CHANGE_MIN_SAT} sat, received {change_output.amount_sat}"
        )
    return Tx(
        version=FUNDING_VERSION,
        inputs=tuple(
            TxIn(outpoint=outpoint, nsequence=NSEQUENCE_REPLACEABLE) for outpoint in inputs
        ),
        outputs=(factory_output, change_output),
    )
