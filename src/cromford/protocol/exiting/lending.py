"""Which coins children need, and when they need them no more: alike for both roles."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.exiting.confirming import cost_in_blocks_sat
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.purses import N_COINS_MAX, Purses
from cromford.watch.bumping import Bumping, coin_needed_sat
from cromford.watch.sweep import without_coins


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is missing for the children of what spends an outpoint.

    Attributes:
        outpoint: The outpoint.
        needed_sat: What all its coins have to hold.
        missing_sat: What those that it has do not.
        n_most: How many more it may have.
    """

    outpoint: OutPoint
    needed_sat: int
    missing_sat: int
    n_most: int


def needs_of(effects: Iterable[fx.Effect]) -> Iterator[Need]:
    """Yield what is missing so that what is published now confirms in time."""
    for effect in effects:
        match effect:
            case fx.Broadcast(tx=tx, bumping=Bumping() as bumping):
                yield from _need(tx, bumping)
            case fx.SignTakingTx(spend=spend, bumping=Bumping() as bumping):
                yield from _need(without_coins(spend), bumping)
            case _:
                continue


def settled_coins(purses: Purses, chain: KnownChain) -> Iterator[xr.CoinsReturned]:
    """Yield what is over: whatever spent these outpoints will not be undone."""
    for outpoint in sorted(purses):
        spender = chain.spends.get(outpoint)
        is_settled = spender is not None and chain.depth(spender.txid) >= RESOLVED_DEPTH
        if purses[outpoint].coins and is_settled:
            yield xr.CoinsReturned(
                outpoint=outpoint.serialize(), cost_sat=cost_in_blocks_sat(purses[outpoint], chain)
            )


def _need(tx: Tx, bumping: Bumping) -> Iterator[Need]:
    needed_sat = coin_needed_sat(tx, bumping)
    coins = () if bumping.purse is None else bumping.purse.coins
    missing_sat = needed_sat - (0 if bumping.purse is None else bumping.purse.amount_sat)
    if missing_sat > 0 and len(coins) < N_COINS_MAX:
        yield Need(
            outpoint=tx.inputs[0].outpoint,
            needed_sat=needed_sat,
            missing_sat=missing_sat,
            n_most=N_COINS_MAX - len(coins),
        )
