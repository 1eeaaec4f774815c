"""A payment that no block takes is replaced by one that pays more (BIP 125), of the same coins.

No signature of ours hangs on its txid, unless a block had it before: then it stays. So this costs
less than a child, and does without a change.
"""

from collections.abc import Sequence

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.tx import Tx, TxOut, vsize_of
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import (
    N_INPUTS_MAX,
    InsufficientCoins,
    Wallet,
    WalletCoin,
    wallet_tx_weight,
)
from cromford.wallet.spending import (
    P2TR_SCRIPT_SIZE,
    DustSpending,
    SpendingPlan,
    is_worth_spending,
    least_output_sat,
    sum_sat,
    unsigned_payment,
)


class CoinsOffChain(Exception):
    """A reorganisation took a coin of the payment away: what it pays is not known."""


class ReplacementTooCheap(Exception):
    """The feerate is too low to take the payment's place. `least_sat_per_kw` would do."""

    def __init__(self, *, least_sat: int, least_sat_per_kw: int, received_sat: int) -> None:
        super().__init__(f"expected a fee of at least {least_sat} sat, received {received_sat} sat")
        self.least_sat = least_sat
        self.least_sat_per_kw = least_sat_per_kw
        self.received_sat = received_sat


def plan_bump(
    wallet: Wallet,
    tx: Tx,
    *,
    feerate_sat_per_kw: int,
    takes_from_amount: bool,
    incremental_sat_per_kw: int,
    others_sat: int,
    tip_height: int,
) -> SpendingPlan:
    """Return what takes the place of a payment: its coins, its outputs, and a higher fee.

    The change pays for it, then free coins, the largest first. The last output is the change if it
    pays to a change script of the wallet's: of a split it is one of the coins.

    Args:
        wallet: The wallet.
        tx: The payment, signed.
        feerate_sat_per_kw: What the other one is to pay.
        takes_from_amount: Whether the first output pays for it, and everything else is as it was.
        incremental_sat_per_kw: What our node asks for the relay of a replacement.
        others_sat: What transactions pay that hang on the payment: they end with it.
        tip_height: The height of the chain's tip, for the maturity of coinbase coins.

    Raises:
        CoinsOffChain: If a coin of the payment is in no block.
        ReplacementTooCheap: If no node would take it in the payment's place.
        DustSpending: If too little is left of the first output to be relayed.
        InsufficientCoins: If change and free coins do not reach.
    """
    paid_sat = wallet.fee_sat(tx)
    if paid_sat is None:
        raise CoinsOffChain(f"a coin of {tx.txid} is in no block: a reorganisation took it away")
    coins = [wallet.coins[tx_in.outpoint] for tx_in in tx.inputs]
    if takes_from_amount:
        plan = _less_paid(tx, coins, feerate_sat_per_kw)
    else:
        plan = _more_spent(wallet, tx, coins, feerate_sat_per_kw, tip_height)
    weight = _weight(len(plan.coins), plan.tx.outputs)
    least_sat = others_sat + replacement_fee_sat(
        weight,
        parent=None,
        rival=FeeAndWeight(paid_sat, tx.weight),
        incremental_sat_per_kw=incremental_sat_per_kw,
    )
    if plan.fee_sat < least_sat:
        raise ReplacementTooCheap(
            least_sat=least_sat,
            least_sat_per_kw=1000 * (least_sat - 1) // (4 * vsize_of(weight)) + 1,
            received_sat=plan.fee_sat,
        )
    return plan


def _less_paid(tx: Tx, coins: Sequence[WalletCoin], feerate_sat_per_kw: int) -> SpendingPlan:
    first, *others = tx.outputs
    fee_sat = _fee_sat(len(coins), tx.outputs, feerate_sat_per_kw)
    amount_sat = sum_sat(coins) - sum(out.amount_sat for out in others) - fee_sat
    least_sat = least_output_sat(first.script_pubkey)
    if amount_sat < least_sat:
        expected = f"expected at least {least_sat} left of it"
        raise DustSpending(f"amount_sat: {expected}, received {amount_sat}")
    reduced = TxOut(amount_sat=amount_sat, script_pubkey=first.script_pubkey)
    return _plan(coins, (reduced, *others), n_paid=1)


def _more_spent(
    wallet: Wallet, tx: Tx, coins: Sequence[WalletCoin], feerate_sat_per_kw: int, tip_height: int
) -> SpendingPlan:
    *payees, last = tx.outputs
    path = wallet.scripts.get(last.script_pubkey)
    has_change = path is not None and path.change == CHANGE
    if not has_change:
        payees.append(last)
    script = last.script_pubkey if has_change else wallet.next_script(CHANGE)
    paid_sat = sum(out.amount_sat for out in payees)
    spent = list(coins)
    more = [
        coin for coin in wallet.free(tip_height) if is_worth_spending(coin, feerate_sat_per_kw)
    ][: N_INPUTS_MAX - len(spent)]
    while True:
        change = TxOut(amount_sat=0, script_pubkey=script)
        change_sat = (
            sum_sat(spent) - paid_sat - _fee_sat(len(spent), [*payees, change], feerate_sat_per_kw)
        )
        if change_sat >= P2TR_DUST_SAT:
            change = TxOut(amount_sat=change_sat, script_pubkey=script)
            return _plan(spent, (*payees, change), n_paid=len(payees))
        # What is left over would be dust as a change output; it goes to the fee.
        fee_sat = _fee_sat(len(spent), payees, feerate_sat_per_kw)
        if payees and sum_sat(spent) - paid_sat >= fee_sat:
            return _plan(spent, tuple(payees), n_paid=len(payees))
        if not more:
            raise InsufficientCoins(needed_sat=paid_sat + fee_sat, available_sat=sum_sat(spent))
        spent.append(more.pop(0))


def _plan(coins: Sequence[WalletCoin], outputs: tuple[TxOut, ...], *, n_paid: int) -> SpendingPlan:
    total_sat = sum_sat(coins)
    return SpendingPlan(
        tx=unsigned_payment(coins, outputs),
        coins=tuple(coins),
        amount_sat=outputs[0].amount_sat,
        fee_sat=total_sat - sum(out.amount_sat for out in outputs),
        change_sat=sum(out.amount_sat for out in outputs[n_paid:]),
    )


def _fee_sat(n_inputs: int, outputs: Sequence[TxOut], feerate_sat_per_kw: int) -> int:
    vsize = vsize_of(_weight(n_inputs, outputs))
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)


def _weight(n_inputs: int, outputs: Sequence[TxOut]) -> int:
    longer = sum(len(out.script_pubkey) - P2TR_SCRIPT_SIZE for out in outputs)
    return wallet_tx_weight(n_inputs=n_inputs, n_outputs=len(outputs)) + 4 * longer
