"""Which coins children need, and when they need them no more: alike for both roles."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.fees import P2TR_DUST_SAT, P2TR_INPUT_WEIGHT, fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx, vsize_of
from cromford.protocol.exiting.confirming import cost_in_blocks_sat
from cromford.protocol.facts import Lacking
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.purses import N_COINS_MAX, Purses
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import ONE_COIN_WEIGHT, Bumping, coin_needed_sat
from cromford.watch.sweep import without_coins

MUCH_MORE: Final = Fraction(5, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is missing for the children of what spends an outpoint.

    Attributes:
        outpoint: The outpoint.
        needed_sat: What its coin has to hold, if it is one.
        input_sat: What each coin after the first costs: an input more.
        coins: Those that it has.
        feerate_sat_per_kw: What is wanted: the more, the more it hurries.
    """

    outpoint: OutPoint
    needed_sat: int
    input_sat: int
    coins: tuple[SpentCoin, ...]
    feerate_sat_per_kw: int

    @property
    def held_sat(self) -> int:
        """What those pay that fit in a child, as if they were one: each more costs an input."""
        amounts_sat = sorted((coin.txout.amount_sat for coin in self.coins), reverse=True)
        worth_sat = [amount_sat - self.input_sat for amount_sat in amounts_sat[:N_COINS_MAX]]
        return sum(worth_sat) + self.input_sat if worth_sat else 0

    @property
    def whole_sat(self) -> int:
        """What all its coins hold once it has one more that is enough."""
        held_sat = sum(coin.txout.amount_sat for coin in self.coins)
        return held_sat + self.needed_sat - self.held_sat + (self.input_sat if self.coins else 0)


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


def is_much_more(wanted: int, than: int) -> bool:
    """Say whether a sum, or a feerate, is so much more than another that it is said anew."""
    return wanted * MUCH_MORE.denominator > than * MUCH_MORE.numerator


def outdated(
    asked: Iterable[OutPoint], effects: Iterable[fx.Effect], waiting: Mapping[OutPoint, Lacking]
) -> Iterator[OutPoint]:
    """Yield what waits for coins that are needed no more, or for much less, or hurry much less.

    As long as it waits by what it said when fees were higher, coins go to it before who needs them.

    Args:
        asked: For what coins were asked.
        effects: What is to be published now, or signed and published.
        waiting: What waits for coins, by outpoint, and how soon.
    """
    needs = {need.outpoint: need for need in needs_of(effects)}
    for outpoint in sorted(asked):
        known, need = waiting.get(outpoint), needs.get(outpoint)
        if known is not None and (
            need is None
            or is_much_more(known.needed_sat, need.whole_sat)
            or is_much_more(known.feerate_sat_per_kw, need.feerate_sat_per_kw)
        ):
            yield outpoint


def given_up_for(
    purses: Purses,
    effects: Iterable[fx.Effect],
    waiting: Mapping[OutPoint, Lacking],
    *,
    has_some: Callable[[OutPoint], bool],
) -> OutPoint | None:
    """Return whose coins go to what hurries much more and waits for some; None if nobody's do.

    What cannot pay today's rate out of its budget would keep its coins until fees fall, and what
    has a deadline would miss it. The least hurried gives its own back, where these are enough for
    the other one, or that has none; it is lent some again as soon as there are more.

    Args:
        purses: By outpoint.
        effects: What is to be published now, or signed and published.
        waiting: What waits for coins, by outpoint, and how soon.
        has_some: Says whether something that waits has coins already, and too few.
    """
    hurries = dict(_wanted_of(effects))
    held = [outpoint for outpoint in purses if purses[outpoint].coins]
    for outpoint in sorted(held, key=lambda one: (hurries.get(one, 0), one)):
        feerate, amount_sat = hurries.get(outpoint, 0), purses[outpoint].amount_sat
        for other, wanted in waiting.items():
            helps = amount_sat >= wanted.needed_sat or not has_some(other)
            if other != outpoint and helps and is_much_more(wanted.feerate_sat_per_kw, feerate):
                return outpoint
    return None


def _wanted_of(effects: Iterable[fx.Effect]) -> Iterator[tuple[OutPoint, int]]:
    """Yield the feerates that are wanted now, by what is spent."""
    for effect in effects:
        match effect:
            case fx.Broadcast(tx=tx, bumping=Bumping() as bumping):
                yield tx.inputs[0].outpoint, bumping.wanted_sat_per_kw
            case fx.SignTakingTx(spend=spend, bumping=Bumping() as bumping):
                yield spend.tx.inputs[0].outpoint, bumping.wanted_sat_per_kw
            case _:
                continue


def first_published(
    effects: Iterable[fx.Effect], published: Mapping[OutPoint, int], *, height: int
) -> Iterator[xr.FirstPublished]:
    """Yield what is published now for the first time, of what may be paid for.

    Args:
        effects: What is to be published, or signed and published.
        published: What was before, by what it spends.
        height: The highest that is known of, read or not.
    """
    for effect in effects:
        match effect:
            case fx.Broadcast(tx=tx, bumping=Bumping()):
                outpoint = tx.inputs[0].outpoint
            case fx.SignTakingTx(spend=spend, bumping=Bumping()):
                outpoint = spend.tx.inputs[0].outpoint
            case _:
                continue
        if outpoint not in published:
            yield xr.FirstPublished(outpoint=outpoint.serialize(), height=height)


def settled_coins(
    purses: Purses,
    chain: KnownChain,
    *,
    asked: Iterable[OutPoint] = (),
    is_dead: bool = False,
    are_there: Callable[[Sequence[OutPoint]], bool] = lambda _: True,
) -> Iterator[xr.CoinsReturned]:
    """Yield what is over: something in a block has spent these outpoints, or no block has them.

    At once, so that one coin serves a whole way out. If a reorganisation undoes it, coins are set
    aside anew; and what it took off the chain holds no coin back from what has to confirm before.

    Args:
        purses: By outpoint.
        chain: What is in blocks.
        asked: Outpoints for which coins were asked for, and not lent yet.
        is_dead: Whether nothing of the factory will ever be in a block.
        are_there: Says whether coins are in blocks, unspent: for others that went, more are asked.
    """
    waiting = {outpoint for outpoint in purses if purses[outpoint].coins} | set(asked)
    for outpoint in sorted(waiting):
        purse = purses.get(outpoint)
        coins = () if purse is None else purse.coins
        is_over = outpoint in chain.spends or outpoint.txid not in chain.confirmed or is_dead
        if is_over or not are_there([coin.outpoint for coin in coins]):
            yield returned(outpoint, purse, chain)


def returned(outpoint: OutPoint, purse: Purse | None, chain: KnownChain) -> xr.CoinsReturned:
    """Return that coins for what spends an outpoint are free again, and what they have cost."""
    cost_sat = 0 if purse is None else cost_in_blocks_sat(outpoint, purse, chain)
    return xr.CoinsReturned(outpoint=outpoint.serialize(), cost_sat=cost_sat)


def _need(tx: Tx, bumping: Bumping) -> Iterator[Need]:
    needed_sat = coin_needed_sat(tx, bumping)
    need = Need(
        outpoint=tx.inputs[0].outpoint,
        needed_sat=needed_sat,
        input_sat=_input_sat(tx, bumping, paid_sat=bumping.fee_sat + needed_sat),
        coins=() if bumping.purse is None else bumping.purse.coins,
        feerate_sat_per_kw=bumping.wanted_sat_per_kw,
    )
    # All that it may cost is enough, however many coins hold it.
    most_sat = bumping.budget_sat + P2TR_DUST_SAT
    if need.held_sat < need.needed_sat and sum(c.txout.amount_sat for c in need.coins) < most_sat:
        yield need


def _input_sat(tx: Tx, bumping: Bumping, *, paid_sat: int) -> int:
    """Return what one more input costs, at what is wanted, or less where the budget ends below."""
    possible = 1000 * paid_sat // (tx.weight + ONE_COIN_WEIGHT)
    feerate = min(possible, bumping.wanted_sat_per_kw)
    return fee_sat_of(vsize=vsize_of(P2TR_INPUT_WEIGHT), feerate_sat_per_kw=feerate)
