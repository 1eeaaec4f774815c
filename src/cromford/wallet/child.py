"""A child that pays for a transaction of the wallet's own, out of what that pays back to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.wallet.coins import N_INPUTS_MAX, InsufficientCoins, WalletCoin, wallet_tx_weight
from cromford.wallet.spending import SPENDING_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """An unsigned child. Amounts in sat.

    Attributes:
        tx: It spends the parent's output first, then confirmed coins, if it needs any.
        coins: Those.
        fee_sat: What it pays.
        change_sat: What it leaves of all this.
    """

    tx: Tx
    coins: tuple[WalletCoin, ...]
    fee_sat: int
    change_sat: int


def plan_child(
    outpoint: OutPoint,
    amount_sat: int,
    *,
    script_pubkey: bytes,
    coins: Sequence[WalletCoin],
    fee_sat_of_weight: Callable[[int], int],
) -> ChildPlan:
    """Return a child with one output, paid for by the parent's output, then by coins in order.

    Args:
        outpoint: What the parent pays to the wallet.
        amount_sat: How much.
        script_pubkey: Where what is left goes, a taproot output.
        coins: Confirmed ones that may help.
        fee_sat_of_weight: Returns what a child of a weight has to pay.

    Raises:
        InsufficientCoins: If nothing that is relayed would be left of all of them.
    """
    total_sat, taken = amount_sat, 0
    while True:
        fee_sat = fee_sat_of_weight(wallet_tx_weight(n_inputs=1 + taken, n_outputs=1))
        change_sat = total_sat - fee_sat
        if change_sat >= P2TR_DUST_SAT:
            break
        if taken == min(len(coins), N_INPUTS_MAX - 1):
            raise InsufficientCoins(needed_sat=fee_sat + P2TR_DUST_SAT, available_sat=total_sat)
        total_sat += coins[taken].txout.amount_sat
        taken += 1
    spent = (outpoint, *(coin.outpoint for coin in coins[:taken]))
    tx = Tx(
        version=SPENDING_VERSION,
        inputs=tuple(TxIn(outpoint=one, nsequence=NSEQUENCE_REPLACEABLE) for one in spent),
        outputs=(TxOut(amount_sat=change_sat, script_pubkey=script_pubkey),),
    )
    return ChildPlan(tx=tx, coins=tuple(coins[:taken]), fee_sat=fee_sat, change_sat=change_sat)
