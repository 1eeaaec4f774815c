"""A payment out of the wallet: which coins, which fee, which transaction."""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import (
    N_INPUTS_MAX,
    InsufficientCoins,
    Wallet,
    WalletCoin,
    wallet_tx_vsize,
)

PAYMENT_VERSION: Final = 2
P2TR_SCRIPT_SIZE: Final = 34


class DustPayment(ValueError):
    """The amount is below what a node relays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentPlan:
    """An unsigned payment. Amounts in sat."""

    tx: Tx
    coins: tuple[WalletCoin, ...]
    amount_sat: int
    fee_sat: int
    change_sat: int


def plan_payment(
    wallet: Wallet,
    *,
    script_pubkey: bytes,
    amount_sat: int | None,
    feerate_sat_per_kw: int,
    tip_height: int,
) -> PaymentPlan:
    """Return a payment of the wallet's free coins, the largest first, at most `N_INPUTS_MAX`.

    Args:
        wallet: The wallet.
        script_pubkey: Whom to pay.
        amount_sat: How much, or None for all that those coins hold, less the fee.
        feerate_sat_per_kw: The feerate.
        tip_height: The height of the chain's tip, for the maturity of coinbase coins.

    Raises:
        DustPayment: If the amount is too small to be relayed.
        InsufficientCoins: If the free coins do not reach.
    """
    free = wallet.free(tip_height)[:N_INPUTS_MAX]
    if amount_sat is not None and amount_sat < P2TR_DUST_SAT:
        raise DustPayment(f"amount_sat: at least {P2TR_DUST_SAT}, received {amount_sat}")
    chosen: list[WalletCoin] = []
    total_sat = fee_sat = 0
    for coin in free:
        chosen.append(coin)
        total_sat += coin.txout.amount_sat
        if amount_sat is None:
            continue
        fee_sat = _fee_sat(len(chosen), script_pubkey, feerate_sat_per_kw, has_change=True)
        change_sat = total_sat - amount_sat - fee_sat
        if change_sat >= P2TR_DUST_SAT:
            return _plan(
                wallet,
                script_pubkey,
                chosen,
                amount_sat=amount_sat,
                change_sat=change_sat,
                fee_sat=fee_sat,
            )
        fee_sat = _fee_sat(len(chosen), script_pubkey, feerate_sat_per_kw, has_change=False)
        if total_sat >= amount_sat + fee_sat:
            # What is left over would be dust as a change output; it goes to the fee.
            return _plan(
                wallet,
                script_pubkey,
                chosen,
                amount_sat=amount_sat,
                change_sat=0,
                fee_sat=total_sat - amount_sat,
            )
    if amount_sat is None:
        fee_sat = _fee_sat(len(chosen), script_pubkey, feerate_sat_per_kw, has_change=False)
        if total_sat - fee_sat >= P2TR_DUST_SAT:
            return _plan(
                wallet,
                script_pubkey,
                chosen,
                amount_sat=total_sat - fee_sat,
                change_sat=0,
                fee_sat=fee_sat,
            )
    raise InsufficientCoins(
        needed_sat=(P2TR_DUST_SAT if amount_sat is None else amount_sat) + fee_sat,
        available_sat=sum(coin.txout.amount_sat for coin in free),
    )


def _fee_sat(
    n_inputs: int, script_pubkey: bytes, feerate_sat_per_kw: int, *, has_change: bool
) -> int:
    vsize = wallet_tx_vsize(n_inputs=n_inputs, n_outputs=1 + has_change)
    vsize += len(script_pubkey) - P2TR_SCRIPT_SIZE
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)


def _plan(
    wallet: Wallet,
    script_pubkey: bytes,
    coins: list[WalletCoin],
    *,
    amount_sat: int,
    change_sat: int,
    fee_sat: int,
) -> PaymentPlan:
    outputs = [TxOut(amount_sat=amount_sat, script_pubkey=script_pubkey)]
    if change_sat:
        outputs.append(TxOut(amount_sat=change_sat, script_pubkey=wallet.next_script(CHANGE)))
    tx = Tx(
        version=PAYMENT_VERSION,
        inputs=tuple(
            TxIn(outpoint=coin.outpoint, nsequence=NSEQUENCE_REPLACEABLE) for coin in coins
        ),
        outputs=tuple(outputs),
    )
    return PaymentPlan(
        tx=tx, coins=tuple(coins), amount_sat=amount_sat, fee_sat=fee_sat, change_sat=change_sat
    )
