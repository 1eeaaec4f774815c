"""The coins of fundings that were found dead: whether the chain shows now that they may be spent.

A reorganisation may take back what a funding died of. Then it can confirm again, and its coins are
its own until something spends one of them in a block.
"""

from collections.abc import Iterable

from cromford.protocol.journal.entries import FactoryEntry
from cromford.wallet.coins import Wallet


def with_dead_coins(wallet: Wallet, dead: Iterable[FactoryEntry]) -> Wallet:
    """Return a wallet after blocks came or went, with the coins of dead fundings as is due.

    Set aside while no block spends one of them, and free once one does. What was spent for
    something else meanwhile stays set aside for that.
    """
    for entry in dead:
        coins = (wallet.coins.get(outpoint) for outpoint in entry.coins)
        is_over = any(coin is not None and coin.spent_height is not None for coin in coins)
        is_kept = entry.attempt_id in wallet.reserved_for
        if is_over and is_kept:
            wallet = wallet.released(entry.attempt_id)
        elif not (is_over or is_kept):
            free = [outpoint for outpoint in entry.coins if outpoint not in wallet.reserved]
            wallet = wallet.with_reserved(free, entry.attempt_id)
    return wallet
