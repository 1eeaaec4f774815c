"""Which coins children need, and when they need them no more: alike for both roles."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
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
        held_sat: What those hold that it has.
        n_most: How many more it may have.
    """

    outpoint: OutPoint
    needed_sat: int
    held_sat: int
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


def settled_coins(
    purses: Purses, chain: KnownChain, *, asked: Iterable[OutPoint] = ()
) -> Iterator[xr.CoinsReturned]:
    """Yield what is over: something in a block has spent these outpoints.

    At once, so that one coin serves a whole way out. If a reorganisation undoes it, coins are set
    aside anew.

    Args:
        purses: By outpoint.
        chain: What is in blocks.
        asked: Outpoints for which coins were asked for, and not lent yet.
    """
    waiting = {outpoint for outpoint in purses if purses[outpoint].coins} | set(asked)
    for outpoint in sorted(waiting):
        if outpoint in chain.spends:
            purse = purses.get(outpoint)
            cost_sat = 0 if purse is None else cost_in_blocks_sat(purse, chain)
            yield xr.CoinsReturned(outpoint=outpoint.serialize(), cost_sat=cost_sat)


def _need(tx: Tx, bumping: Bumping) -> Iterator[Need]:
    needed_sat = coin_needed_sat(tx, bumping)
    n_coins = 0 if bumping.purse is None else len(bumping.purse.coins)
    held_sat = 0 if bumping.purse is None else bumping.purse.amount_sat
    if needed_sat > held_sat and n_coins < N_COINS_MAX:
        yield Need(
            outpoint=tx.inputs[0].outpoint,
            needed_sat=needed_sat,
            held_sat=held_sat,
            n_most=N_COINS_MAX - n_coins,
        )
