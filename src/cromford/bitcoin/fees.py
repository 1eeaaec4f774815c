"""Fees, feerates and dust. Amounts in satoshi, sizes in virtual bytes."""

from typing import Final

from cromford.bitcoin.tx import WITNESS_SCALE

ANCHOR_DUST_SAT: Final = 240  # Bitcoin Core's dust limit of a pay-to-anchor output.
P2TR_DUST_SAT: Final = 330  # Bitcoin Core's dust limit of a taproot output.
SEGWIT_DUST_SAT: Final = 354  # BOLT 3: the least that no segwit output falls below.
SAT_PER_KW_OF_SAT_PER_VB: Final = 250  # One virtual byte is four weight units.
MIN_RELAY_SAT_PER_KW: Final = 25  # 0.1 sat/vB, Bitcoin Core since version 30.
TRUC_VSIZE_MAX: Final = 10_000  # BIP 431.
TRUC_CHILD_VSIZE_MAX: Final = 1_000  # BIP 431.

# A signed transaction with taproot key-path inputs (BIP 341):
TX_FRAME_WEIGHT: Final = 10 * 4 + 2  # version, two counts, nLockTime; segwit marker and flag
P2TR_INPUT_WEIGHT: Final = 41 * 4 + 66  # outpoint, empty scriptSig, nSequence; one signature
P2TR_KEYPATH_TX_VSIZE: Final = (TX_FRAME_WEIGHT + P2TR_INPUT_WEIGHT) // WITNESS_SCALE
P2TR_OUTPUT_VSIZE: Final = 43
ANCHOR_OUTPUT_VSIZE: Final = 13


def fee_sat_of(*, vsize: int, feerate_sat_per_kw: int) -> int:
    """Return the fee of `vsize` virtual bytes, rounded up to a whole satoshi."""
    return -(-4 * vsize * feerate_sat_per_kw // 1000)


def keypath_tx_vsize(*, n_p2tr_outputs: int, n_anchors: int) -> int:
    """Return the size of a signed transaction with one taproot key-path input.

    Exact up to 252 outputs, because their count is one byte up to there. At the 10,000 vbytes of
    BIP 431 there are at most 230.
    """
    return (
        P2TR_KEYPATH_TX_VSIZE + P2TR_OUTPUT_VSIZE * n_p2tr_outputs + ANCHOR_OUTPUT_VSIZE * n_anchors
    )


def sat_per_vb(feerate_sat_per_kw: int) -> float:
    """Return the feerate that people read."""
    return feerate_sat_per_kw / SAT_PER_KW_OF_SAT_PER_VB
