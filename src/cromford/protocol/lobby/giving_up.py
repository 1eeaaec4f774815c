"""A funding that nobody takes is given up: a coin of it is paid back to the LSP.

A signed funding transaction cannot be taken back by a word: whoever has it may publish it. What
ends it is another transaction that spends one of its coins, as deep in the chain as a funding has
to be. Until then all its coins stay reserved; then the attempt is over for everybody, and each
client sees so on its own chain.
"""

from collections.abc import Iterable, Iterator, Sequence

from cromford import effects as fx
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB, sat_per_vb
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.house import House
from cromford.protocol.lobby.bumping import (
    check_change_is_free,
    check_coins_are_known,
    signed_entry,
)
from cromford.protocol.lobby.replacing import least_sat_above
from cromford.protocol.turn import Turn
from cromford.wallet.coins import InsufficientCoins, WalletCoin, wallet_tx_vsize
from cromford.wallet.spending import SpendingPlan, plan_return
from cromford.watch.feerates import OwnFees


def planned(
    house: House,
    attempt_id: bytes,
    *,
    feerate_sat_per_kw: int,
    fundings: Sequence[Tx],
    fees: OwnFees,
) -> SpendingPlan:
    """Return what pays the largest coin of a funding back to us.

    Of those in blocks: one that a reorganisation took away may never come back, and the others
    would be set aside for ever. Asked again with a higher feerate, it replaces what was published
    before.

    Args:
        house: The house.
        attempt_id: The factory's name.
        feerate_sat_per_kw: What it pays.
        fundings: The funding's candidates, signed, lowest feerate first.
        fees: What our own node asks for.

    Raises:
        Rejected: If there is no such funding without a block, its change is in use, its coins do
            not pay for it or are all off the chain, or with a fee ladder it pays too little to take
            the published candidate's place.
    """
    entry = signed_entry(house, attempt_id)
    if house.is_confirmed(entry):
        raise Rejected("factory_funded", "the funding is in a block")
    coins = _coins(house, entry.coins)
    if any(coin.spent_height is not None for coin in coins):
        raise Rejected("factory_dead", "a coin of the funding is spent already")
    if entry.replacement is None:
        check_change_is_free(house, attempt_id, fundings)
    if not coins:
        check_coins_are_known(house, entry)
    coin = max(coins, key=lambda coin: (coin.txout.amount_sat, coin.outpoint))
    try:
        plan = plan_return(house.wallet, coin, feerate_sat_per_kw=feerate_sat_per_kw)
    except InsufficientCoins as error:
        raise Rejected("insufficient_coins", str(error)) from error
    if is_outbid(house, attempt_id) and entry.replacement is None:
        _check_takes_place(house, attempt_id, fundings, plan, fees)
    return plan


def is_outbid(house: House, attempt_id: bytes) -> bool:
    """Say whether what ends a funding has to outbid it where it waits: no node has to refuse it.

    So it is with a fee ladder, unless a coin is off the chain: then it is not known what it pays.
    """
    entry = house.entries[attempt_id]
    return len(entry.funding_txids) > 1 and len(_coins(house, entry.coins)) == len(entry.coins)


def _check_takes_place(
    house: House, attempt_id: bytes, fundings: Sequence[Tx], plan: SpendingPlan, fees: OwnFees
) -> None:
    """Check that a mempool which has the published candidate takes this in its place.

    Raises:
        Rejected: If it pays too little, with the feerate that would do.
    """
    vsize = wallet_tx_vsize(n_inputs=1, n_outputs=1)
    least_sat = least_sat_above(house, attempt_id, fundings, vsize=vsize, fees=fees)
    if plan.fee_sat < least_sat:
        would_do = sat_per_vb(-(-SAT_PER_KW_OF_SAT_PER_VB * least_sat // vsize))
        raise Rejected(
            "feerate_too_low",
            f"feerate_sat_per_vb: expected at least {would_do} to take the place of the published "
            f"candidate ({least_sat} sat), received {plan.fee_sat} sat",
        )


def on_abandon_requested(
    turn: Turn[House], event: ev.FactoryAbandonRequested, fundings: Sequence[Tx]
) -> None:
    """Publish a funding no more, none of its candidates, and spend one of its coins.

    Raises:
        Rejected: If it cannot be given up; on a stale chain it may be in a block.
    """
    plan = planned(
        turn.state,
        event.attempt_id,
        feerate_sat_per_kw=event.feerate_sat_per_kw,
        fundings=fundings,
        fees=turn.facts.fees,
    )
    turn.check_fresh()
    turn.remember(
        lr.FundingAbandoned(
            attempt_id=event.attempt_id, tx=plan.tx.serialize(), reason=event.reason
        )
    )
    turn.ask(*_owed(turn.state, plan.tx))


def owed(house: House) -> Iterator[fx.SignSpending]:
    """Yield the effects that sign what replaces a funding, unless it was; then it is a payment."""
    for attempt_id in sorted(house.given_up):
        entry = house.entries[attempt_id]
        if entry.replacement is not None and not house.is_confirmed(entry):
            yield from _owed(house, entry.replacement)


def _owed(house: House, replacement: Tx) -> Iterator[fx.SignSpending]:
    wallet = house.wallet
    coins = _coins(house, [tx_in.outpoint for tx_in in replacement.inputs])
    is_signed = replacement.txid in {**wallet.payments, **wallet.ended_payments}
    is_there = len(coins) == len(replacement.inputs)
    if is_there and not is_signed and all(coin.spent_height is None for coin in coins):
        yield fx.SignSpending(
            tx=replacement,
            prevouts=tuple(coin.txout for coin in coins),
            paths=tuple(coin.path for coin in coins),
        )


def check_is_no_replacement(house: House, txid: Txid) -> None:
    """Check that a payment which the operator bumps, or gives up, does not end a funding.

    Raises:
        Rejected: If it does: it can be replaced, and never taken back.
    """
    for attempt_id in house.given_up:
        replacement = house.entries[attempt_id].replacement
        if replacement is not None and replacement.txid == txid:
            raise Rejected(
                "ends_a_funding",
                f"it ends the factory {attempt_id.hex()}: `factory abandon` with a higher "
                "feerate replaces it",
            )


def _coins(house: House, outpoints: Iterable[OutPoint]) -> list[WalletCoin]:
    coins = (house.wallet.coins.get(outpoint) for outpoint in outpoints)
    return [coin for coin in coins if coin is not None]
