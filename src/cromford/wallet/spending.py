"""A payment out of the wallet, or to itself: which coins, which fee, which transaction."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.fees import (
    P2TR_DUST_SAT,
    P2TR_INPUT_WEIGHT,
    SEGWIT_DUST_SAT,
    fee_sat_of,
)
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import Tx, Txid, TxIn, TxOut
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import (
    N_INPUTS_MAX,
    N_OUTPUTS_MAX,
    InsufficientCoins,
    Wallet,
    WalletCoin,
    wallet_tx_vsize,
)

SPENDING_VERSION: Final = 2
P2TR_SCRIPT_SIZE: Final = 34
N_SPLIT_MIN: Final = 2
N_SPLIT_MAX: Final = N_OUTPUTS_MAX - 1  # The last one is change.


class DustSpending(ValueError):
    """The amount is below what a node relays."""


class SplitOutOfRange(ValueError):
    """That many coins are not made in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What is remembered of a payment beside itself.

    Attributes:
        has_change: Whether it is the first that pays to the wallet's next change script.
        replaces: The payment in whose place it is published.
        external_id: What its payer calls it; empty if it does not.
        asked_sat: What was to be paid; None for all that was free.
    """

    has_change: bool = False
    replaces: Txid | None = None
    external_id: str = ""
    asked_sat: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingPlan:
    """An unsigned payment. Amounts in sat; `amount_sat` is what each output beside change holds."""

    tx: Tx
    coins: tuple[WalletCoin, ...]
    amount_sat: int
    fee_sat: int
    change_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Payee:
    """Who is paid, in how many outputs of one amount."""

    script_pubkey: bytes
    n_outputs: int = 1

    @property
    def least_sat(self) -> int:
        """What each output holds at least."""
        return least_output_sat(self.script_pubkey)


def least_output_sat(script_pubkey: bytes) -> int:
    """Return what an output holds at least, or nodes take it for dust: the longer, the more."""
    return SEGWIT_DUST_SAT if len(script_pubkey) > P2TR_SCRIPT_SIZE else P2TR_DUST_SAT


def plan_spending(
    wallet: Wallet,
    *,
    script_pubkey: bytes,
    amount_sat: int | None,
    feerate_sat_per_kw: int,
    tip_height: int,
) -> SpendingPlan:
    """Return a payment of the wallet's free coins, the largest first, at most `N_INPUTS_MAX`.

    A coin that is worth less than its own input costs is never spent: the payment would be
    the poorer for it.

    Args:
        wallet: The wallet.
        script_pubkey: Whom to pay.
        amount_sat: How much, or None for all that those coins hold, less the fee.
        feerate_sat_per_kw: The feerate.
        tip_height: The height of the chain's tip, for the maturity of coinbase coins.

    Raises:
        DustSpending: If the amount is too small to be relayed.
        InsufficientCoins: If the coins that are worth spending do not reach.
    """
    return _planned(
        wallet,
        _Payee(script_pubkey=script_pubkey),
        amount_sat=amount_sat,
        feerate_sat_per_kw=feerate_sat_per_kw,
        tip_height=tip_height,
    )


def plan_split(
    wallet: Wallet,
    *,
    n_coins: int,
    amount_sat: int | None,
    feerate_sat_per_kw: int,
    tip_height: int,
) -> SpendingPlan:
    """Return a payment to the wallet itself that makes coins of one amount; the rest is change.

    All its outputs pay to the next change script. A script of its own for each would soon pass the
    gap limit (BIP 44): a few splits that were given up, and a wallet that is restored from its
    seed no longer finds the next one.

    Args:
        wallet: The wallet.
        n_coins: How many coins to make, `N_SPLIT_MIN` to `N_SPLIT_MAX`.
        amount_sat: What each is to hold, or None to divide all that is free, less the fee.
        feerate_sat_per_kw: The feerate.
        tip_height: The height of the chain's tip, for the maturity of coinbase coins.

    Raises:
        SplitOutOfRange: If it is to make fewer coins or more.
        DustSpending: If the amount is too small to be relayed.
        InsufficientCoins: If the coins that are worth spending do not reach.
    """
    if not N_SPLIT_MIN <= n_coins <= N_SPLIT_MAX:
        raise SplitOutOfRange(
            f"n_coins: expected {N_SPLIT_MIN} to {N_SPLIT_MAX}, received {n_coins}"
        )
    return _planned(
        wallet,
        _Payee(script_pubkey=wallet.next_script(CHANGE), n_outputs=n_coins),
        amount_sat=amount_sat,
        feerate_sat_per_kw=feerate_sat_per_kw,
        tip_height=tip_height,
    )


def _planned(
    wallet: Wallet,
    payee: _Payee,
    *,
    amount_sat: int | None,
    feerate_sat_per_kw: int,
    tip_height: int,
) -> SpendingPlan:
    if amount_sat is not None and amount_sat < payee.least_sat:
        expected = f"expected at least {payee.least_sat}"
        raise DustSpending(f"amount_sat: {expected}, received {amount_sat}")
    free = wallet.free(tip_height)
    worth = [coin for coin in free if is_worth_spending(coin, feerate_sat_per_kw)]
    coins = worth[:N_INPUTS_MAX]
    if amount_sat is None:
        planned = _plan_all(wallet, payee, coins, feerate_sat_per_kw)
    else:
        planned = _plan_amount(wallet, payee, coins, feerate_sat_per_kw, amount_sat)
    if planned is not None:
        return planned
    fee_sat = _fee_sat(max(len(coins), 1), payee, feerate_sat_per_kw, has_change=False)
    raise InsufficientCoins(
        needed_sat=payee.n_outputs * (amount_sat or payee.least_sat) + fee_sat,
        available_sat=sum_sat(coins),
        worthless_sat=sum_sat(
            coin for coin in free if not is_worth_spending(coin, feerate_sat_per_kw)
        ),
        beyond_sat=sum_sat(worth[N_INPUTS_MAX:]),
    )


def plan_return(wallet: Wallet, coin: WalletCoin, *, feerate_sat_per_kw: int) -> SpendingPlan:
    """Return what pays one coin to the wallet itself, reserved or not.

    Raises:
        InsufficientCoins: If nothing that is relayed would be left of it.
    """
    payee = _Payee(script_pubkey=wallet.next_script(CHANGE))
    plan = _plan_all(wallet, payee, [coin], feerate_sat_per_kw)
    if plan is None:
        fee_sat = _fee_sat(1, payee, feerate_sat_per_kw, has_change=False)
        raise InsufficientCoins(
            needed_sat=P2TR_DUST_SAT + fee_sat, available_sat=coin.txout.amount_sat
        )
    return plan


def is_worth_spending(coin: WalletCoin, feerate_sat_per_kw: int) -> bool:
    """Say whether a coin holds no less than its own input costs."""
    return 1000 * coin.txout.amount_sat >= P2TR_INPUT_WEIGHT * feerate_sat_per_kw


def unsigned_payment(coins: Iterable[WalletCoin], outputs: Iterable[TxOut]) -> Tx:
    """Return what spends these coins, to be signed: it may be replaced (BIP 125)."""
    return Tx(
        version=SPENDING_VERSION,
        inputs=tuple(
            TxIn(outpoint=coin.outpoint, nsequence=NSEQUENCE_REPLACEABLE) for coin in coins
        ),
        outputs=tuple(outputs),
    )


def sum_sat(coins: Iterable[WalletCoin]) -> int:
    """Return what these coins hold, in sat."""
    return sum(coin.txout.amount_sat for coin in coins)


def _plan_all(
    wallet: Wallet, payee: _Payee, coins: list[WalletCoin], feerate_sat_per_kw: int
) -> SpendingPlan | None:
    """Return the payment of all these coins, or None if too little is left to be relayed.

    What cannot be divided, less than a satoshi for each output, goes to the fee.
    """
    total_sat = sum_sat(coins)
    fee_sat = _fee_sat(len(coins), payee, feerate_sat_per_kw, has_change=False)
    amount_sat = (total_sat - fee_sat) // payee.n_outputs
    if amount_sat < payee.least_sat:
        return None
    fee_sat = total_sat - payee.n_outputs * amount_sat
    return _plan(wallet, payee, coins, amount_sat=amount_sat, change_sat=0, fee_sat=fee_sat)


def _plan_amount(
    wallet: Wallet,
    payee: _Payee,
    coins: list[WalletCoin],
    feerate_sat_per_kw: int,
    amount_sat: int,
) -> SpendingPlan | None:
    """Return the payment of this amount with the fewest of these coins, or None."""
    paid_sat = payee.n_outputs * amount_sat
    total_sat = 0
    for n_inputs, coin in enumerate(coins, start=1):
        total_sat += coin.txout.amount_sat
        fee_sat = _fee_sat(n_inputs, payee, feerate_sat_per_kw, has_change=True)
        change_sat = total_sat - paid_sat - fee_sat
        if change_sat < P2TR_DUST_SAT:
            # What is left over would be dust as a change output; it goes to the fee.
            change_sat, fee_sat = 0, total_sat - paid_sat
            if fee_sat < _fee_sat(n_inputs, payee, feerate_sat_per_kw, has_change=False):
                continue
        return _plan(
            wallet,
            payee,
            coins[:n_inputs],
            amount_sat=amount_sat,
            change_sat=change_sat,
            fee_sat=fee_sat,
        )
    return None


def _fee_sat(n_inputs: int, payee: _Payee, feerate_sat_per_kw: int, *, has_change: bool) -> int:
    vsize = wallet_tx_vsize(n_inputs=n_inputs, n_outputs=payee.n_outputs + has_change)
    vsize += payee.n_outputs * (len(payee.script_pubkey) - P2TR_SCRIPT_SIZE)
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)


def _plan(
    wallet: Wallet,
    payee: _Payee,
    coins: list[WalletCoin],
    *,
    amount_sat: int,
    change_sat: int,
    fee_sat: int,
) -> SpendingPlan:
    outputs = [TxOut(amount_sat=amount_sat, script_pubkey=payee.script_pubkey)] * payee.n_outputs
    if change_sat:
        outputs.append(TxOut(amount_sat=change_sat, script_pubkey=wallet.next_script(CHANGE)))
    return SpendingPlan(
        tx=unsigned_payment(coins, outputs),
        coins=tuple(coins),
        amount_sat=amount_sat,
        fee_sat=fee_sat,
        change_sat=change_sat,
    )
