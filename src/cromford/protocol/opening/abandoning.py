"""A funding that nobody takes is given up: a coin of it is paid back to the LSP.

A signed funding transaction cannot be taken back by a word: whoever has it may publish it. What
ends it is another transaction that spends one of its coins, as deep in the chain as a funding has
to be. Until then all its coins stay reserved; then the attempt is over for everybody, and each
client sees so on its own chain.
"""

from collections.abc import Iterator
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.lsp_attempt import Funded, LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import Turn
from cromford.wallet.coins import InsufficientCoins, WalletCoin
from cromford.wallet.spending import SpendingPlan, plan_return
from cromford.wire import messages as m

DIED: Final = "a coin of the funding was spent by another transaction"


def planned(state: LspState, attempt_id: bytes, *, feerate_sat_per_kw: int) -> SpendingPlan:
    """Return what pays the largest coin of a funding back to us.

    Asked again with a higher feerate, it replaces what was published before.

    Raises:
        Rejected: If there is no such funding without a block, or its coins do not pay for it.
    """
    attempt = state.attempts.get(attempt_id)
    funded = None if attempt is None else attempt.funded
    if attempt is None or funded is None:
        raise Rejected("factory_not_found", f"no signed funding of {attempt_id.hex()}")
    if state.chain.depth(attempt.funding_tx.txid) > 0:
        raise Rejected("factory_funded", "the funding is in a block")
    coins = [coin for coin in _coins(state, attempt.funding_tx) if coin.spent_height is None]
    if funded.is_dead or not coins:
        raise Rejected("factory_dead", "a coin of the funding is spent already")
    coin = max(coins, key=lambda coin: (coin.txout.amount_sat, coin.outpoint))
    try:
        return plan_return(state.wallet, coin, feerate_sat_per_kw=feerate_sat_per_kw)
    except InsufficientCoins as error:
        raise Rejected("insufficient_coins", str(error)) from error


def on_abandon_requested(turn: Turn[LspState], event: ev.FactoryAbandonRequested) -> None:
    """Publish a funding no more, and spend one of its coins.

    Raises:
        Rejected: If it cannot be given up; on a stale chain it may be in a block.
    """
    plan = planned(turn.state, event.attempt_id, feerate_sat_per_kw=event.feerate_sat_per_kw)
    turn.check_fresh()
    turn.remember(
        op.FundingAbandoned(
            attempt_id=event.attempt_id, tx=plan.tx.serialize(), reason=event.reason
        )
    )
    turn.ask(*owed(turn.state, plan.tx))


def owed(state: LspState, replacement: Tx) -> Iterator[fx.SignSpending]:
    """Yield the effect that signs what replaces a funding, unless it was; then it is a payment."""
    wallet = state.wallet
    coins = _coins(state, replacement)
    is_signed = replacement.txid in {**wallet.payments, **wallet.ended_payments}
    if not is_signed and all(coin.spent_height is None for coin in coins):
        yield fx.SignSpending(
            tx=replacement,
            prevouts=tuple(coin.txout for coin in coins),
            paths=tuple(coin.path for coin in coins),
            has_change=False,
        )


def check_is_no_replacement(state: LspState, txid: Txid) -> None:
    """Check that a payment which the operator gives up does not end a funding.

    Raises:
        Rejected: If it does: it can be replaced, and never taken back.
    """
    for attempt in state.attempts.values():
        replacement = None if attempt.funded is None else attempt.funded.replacement
        if replacement is not None and replacement.txid == txid:
            raise Rejected(
                "ends_a_funding",
                f"it ends the factory {attempt.attempt_id.hex()}: `factory abandon` with a higher "
                "feerate replaces it",
            )


def end_if_dead(turn: Turn[LspState], attempt: LspAttempt, funded: Funded) -> None:
    """Free the coins of a funding that will not confirm, and tell everybody."""
    if funded.is_dead or turn.chain.rival_depth(attempt.funding_tx) < attempt.terms.min_depth:
        return
    turn.remember(op.FundingDied(attempt_id=attempt.attempt_id))
    for seat in attempt.seats:
        turn.send(seat.node_id, m.Abort(attempt_id=attempt.attempt_id, reason=DIED))


def _coins(state: LspState, tx: Tx) -> list[WalletCoin]:
    coins = (state.wallet.coins.get(tx_in.outpoint) for tx_in in tx.inputs)
    return [coin for coin in coins if coin is not None]
