"""Coins of the wallet that are set aside for the children of our transactions: how they fold.

A purse belongs to an outpoint, whatever spends it in the end. It is kept until that is settled.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from immutables import Map

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.journal import exit_records as xr
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import Purse, SpentCoin, Wallet

Purses = Map[OutPoint, Purse]
V = TypeVar("V")
N_COINS_MAX: Final = 8  # Of one child, which then has some 550 of the 1,000 vbytes of BIP 431.


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinsWanted:
    """What a factory asked its house for: its stream, what the coins have to hold, and how soon.

    The higher the feerate that is wanted, the more it hurries.
    """

    stream: str
    needed_sat: int
    feerate_sat_per_kw: int = 0


def least_of_use_sat(coins: Iterable[SpentCoin]) -> int:
    """Return what a coin has to hold more than, to be one of the most that a child spends."""
    amounts_sat = sorted((coin.txout.amount_sat for coin in coins), reverse=True)
    return amounts_sat[N_COINS_MAX - 1] if len(amounts_sat) >= N_COINS_MAX else 0


def filled(known: Purse | None, added: tuple[SpentCoin, ...], *, change_script: bytes) -> Purse:
    """Return a purse with more coins; what settled children of it have cost stays."""
    if known is None:
        return Purse(coins=added, change_script=change_script)
    return replace(known, coins=(*known.coins, *added), change_script=change_script)


def with_lent(wallet: Wallet, purses: Purses, record: xr.CoinsLent) -> tuple[Wallet, Purses]:
    """Return wallet and purses after coins were set aside.

    Raises:
        AssertionError: If one of them is none of the wallet's.
    """
    outpoint = OutPoint.parse(record.outpoint)
    known = purses.get(outpoint)
    coins = [OutPoint.parse(coin) for coin in record.coins]
    if known is None:
        wallet = wallet.with_address_used(CHANGE)
    added = tuple(_coin_of(wallet, coin) for coin in coins)
    purse = filled(known, added, change_script=record.change_script)
    return wallet.with_reserved(coins, record.outpoint), purses.set(outpoint, purse)


def with_settled(purses: Purses, outpoint: OutPoint, *, cost_sat: int) -> Purses:
    """Return purses after the coins of one are free again: their cost stays, and which they were.

    A reorganisation may fill it again. An outpoint is spent once, so its costs do not add up.
    """
    known = purses.get(outpoint)
    if known is None:
        return purses
    settled = replace(
        known, coins=(), returned=known.ever_held, cost_sat=max(known.cost_sat, cost_sat)
    )
    return purses.set(outpoint, settled)


def change_script_of(wallet: Wallet, purses: Purses, outpoint: OutPoint) -> bytes:
    """Return where the change of an outpoint's children goes: as before, or a fresh script."""
    known = purses.get(outpoint)
    return wallet.next_script(CHANGE) if known is None else known.change_script


def without(known: Map[OutPoint, V], outpoint: OutPoint) -> Map[OutPoint, V]:
    """Return a map without an outpoint, whether or not it is in it."""
    return known.delete(outpoint) if outpoint in known else known


def _coin_of(wallet: Wallet, outpoint: OutPoint) -> SpentCoin:
    coin = wallet.coins.get(outpoint)
    if coin is None:
        raise AssertionError(f"{outpoint} is no coin of the wallet")
    return coin.to_spend
