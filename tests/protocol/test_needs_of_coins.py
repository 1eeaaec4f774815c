"""Which coins children need, which they have, and when these are free: in amounts and rates."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.seen_blocks import buried, spending, up_to
from tests.protocol.test_confirming import CHANGE, PARENT, PARENT_OUT, coin, tx_of
from tests.protocol.unanswered import chain_at

from cromford import effects as fx
from cromford.bitcoin.fees import P2TR_DUST_SAT, P2TR_INPUT_WEIGHT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, vsize_of
from cromford.protocol.exiting.lending import (
    Need,
    first_published,
    given_up_for,
    needs_of,
    outdated,
    settled_coins,
)
from cromford.protocol.facts import Lacking
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.purses import N_COINS_MAX, Purses
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import ONE_COIN_WEIGHT, Bumping, coin_needed_sat
from cromford.watch.feerates import MOST_SAT_PER_KW, OwnFees

FEES: Final = OwnFees(mempool_min_sat_per_kw=250)
OTHER_OUT: Final = OutPoint(txid=Txid(b"\x0b" * 32), vout=1)
OTHER: Final = replace(PARENT, inputs=tx_of([OTHER_OUT]).inputs)


def coins(*amounts_sat: int) -> tuple[SpentCoin, ...]:
    return tuple(coin(number, sat) for number, sat in enumerate(amounts_sat, start=1))


def purse_of(*amounts_sat: int) -> Purse:
    return Purse(coins=coins(*amounts_sat), change_script=CHANGE)


def bumping(*amounts_sat: int, feerate: int = 2_000, budget_sat: int = 50_000) -> Bumping:
    return Bumping(
        fee_sat=100,
        feerate_sat_per_kw=feerate,
        budget_sat=budget_sat,
        fees=FEES,
        purse=purse_of(*amounts_sat) if amounts_sat else None,
    )


def published(tx: Tx = PARENT, of: Bumping | None = None) -> fx.Broadcast:
    return fx.Broadcast(name="x", tx=tx, bumping=of)


def need_of(of: Bumping) -> Need:
    (need,) = needs_of([published(of=of)])
    return need


# How much is missing


@pytest.mark.parametrize(
    ("amounts_sat", "held_sat", "whole_sat"),
    [
        ((), 0, 10_000),
        ((5_000,), 5_000, 10_100),
        ((5_000, 3_000), 7_900, 10_200),
        ((500,) * N_COINS_MAX, 3_300, 10_800),
        ((*(500,) * (N_COINS_MAX - 1), 200, 5_000), 7_800, 11_000),
    ],
)
def test_of_several_coins_each_after_the_first_costs_an_input_and_the_largest_fit(
    amounts_sat: Sequence[int], held_sat: int, whole_sat: int
) -> None:
    """With one more that is enough, its purse holds `whole_sat`."""
    need = Need(
        outpoint=PARENT_OUT,
        needed_sat=10_000,
        input_sat=100,
        coins=coins(*amounts_sat),
        feerate_sat_per_kw=1,
    )
    assert (need.held_sat, need.whole_sat) == (held_sat, whole_sat)


def test_coins_are_missing_until_those_there_are_pay_what_is_wanted() -> None:
    needed_sat = coin_needed_sat(PARENT, bumping())
    assert need_of(bumping()).needed_sat == needed_sat
    assert need_of(bumping(needed_sat - 1)).coins == coins(needed_sat - 1)
    assert list(needs_of([published(of=bumping(needed_sat))])) == []
    assert list(needs_of([published(), published(of=bumping())])) == [need_of(bumping())]


def test_nothing_is_missing_where_coins_hold_all_that_it_may_cost() -> None:
    """However many they are: what their inputs cost is what the budget has not."""
    poor = {"feerate": 20_000, "budget_sat": 3_000}
    assert coin_needed_sat(PARENT, bumping(**poor)) == 3_000 + P2TR_DUST_SAT
    assert list(needs_of([published(of=bumping(2_000, 1_330, **poor))])) == []
    assert need_of(bumping(2_000, 1_329, **poor)).held_sat < 3_330


def test_an_input_more_costs_what_is_wanted_or_its_share_of_what_the_budget_pays() -> None:
    weight, input_weight = PARENT.weight + ONE_COIN_WEIGHT, 4 * vsize_of(P2TR_INPUT_WEIGHT)
    assert need_of(bumping(feerate=20_000)).input_sat == 20 * input_weight
    most_sat = MOST_SAT_PER_KW * input_weight // 1_000
    for budget_sat in (3_000, 900_000, 9_000_000):
        need = need_of(bumping(feerate=100_000_000, budget_sat=budget_sat))
        shared_sat = (100 + need.needed_sat) * input_weight // weight
        assert need.input_sat == pytest.approx(min(shared_sat, most_sat), abs=1)


# What was asked for, and is not needed any more


@pytest.mark.parametrize(
    ("known", "is_outdated"),
    [
        (None, False),
        ((0, 0), False),
        ((5, 0), True),
        ((0, 5), True),
    ],
)
def test_what_is_needed_much_less_or_later_is_asked_for_anew(
    known: tuple[int, int] | None, *, is_outdated: bool
) -> None:
    need = need_of(bumping())
    # A quarter more, and by one more than that.
    amounts = (need.whole_sat * 5 // 4, need.feerate_sat_per_kw * 5 // 4)
    waiting = {}
    if known is not None:
        waiting[PARENT_OUT] = Lacking(*(x + y for x, y in zip(amounts, known, strict=True)))
    found = list(outdated([PARENT_OUT], [published(of=bumping())], waiting))
    assert found == ([PARENT_OUT] if is_outdated else [])


def test_what_waits_and_is_published_no_more_is_not_needed() -> None:
    waiting = {PARENT_OUT: Lacking(1, 1), OTHER_OUT: Lacking(1, 1)}
    effects = [published(of=bumping())]
    assert list(outdated([PARENT_OUT, OTHER_OUT], effects, waiting)) == [OTHER_OUT]
    assert list(outdated([PARENT_OUT], effects, waiting)) == []
    assert list(outdated([OTHER_OUT], effects, {})) == [], "it has not come to the house yet"


def test_the_least_hurried_that_has_coins_gives_them_back() -> None:
    third = OutPoint(txid=Txid(b"\x0d" * 32), vout=0)
    purses: Purses = Map({PARENT_OUT: purse_of(5_000), OTHER_OUT: purse_of(6_000)})
    empty: Purses = purses.set(third, purse_of())
    slow, fast = bumping(feerate=1_000), bumping(feerate=3_000)
    waiting = {third: Lacking(1, 9_000)}

    def given_up(
        *effects: fx.Effect, purses: Purses = empty, has_some: bool = True
    ) -> OutPoint | None:
        return given_up_for(purses, effects, waiting, has_some=lambda _: has_some)

    other = published(OTHER)
    assert given_up(other, published(of=slow), published(OTHER, fast)) == PARENT_OUT
    assert given_up(other, published(of=fast), published(OTHER, slow)) == OTHER_OUT
    assert given_up(other, published(of=fast)) == OTHER_OUT, "it is not bumped at all"
    assert given_up(purses=Map({PARENT_OUT: purse_of()}), has_some=False) is None, "it has none"


def test_the_first_broadcast_of_what_may_be_paid_for_is_dated_by_all_that_is_known_of() -> None:
    effects = [published(), published(of=bumping()), published(OTHER, bumping())]
    (first, second) = first_published(effects, {}, height=70)
    assert [first.outpoint, second.outpoint] == [PARENT_OUT.serialize(), OTHER_OUT.serialize()]
    assert {first.height, second.height} == {70}
    assert list(first_published(effects, {PARENT_OUT: 3}, height=70)) == [second]
    assert list(first_published(effects[:1], {}, height=70)) == []


# When coins are free again


def free(purses: Purses, chain: KnownChain, **about: Any) -> list[OutPoint]:
    return [OutPoint.parse(one.outpoint) for one in settled_coins(purses, chain, **about)]


def test_coins_are_free_once_what_they_are_for_is_spent_or_gone() -> None:
    purses: Purses = Map({PARENT_OUT: purse_of(5_000)})
    chain = chain_at(100)
    there = replace(chain, confirmed=chain.confirmed.update({PARENT_OUT.txid: 90}))
    assert free(purses, there) == []
    assert free(purses, chain) == [PARENT_OUT], "a reorganisation took its parent"
    assert free(purses, buried(there, 1, spending(PARENT_OUT))) == [PARENT_OUT]
    assert free(purses, there, is_dead=True) == [PARENT_OUT]
    assert free(purses, up_to(there, 200)) == []
    assert free(Map({PARENT_OUT: purse_of()}), chain) == [], "it has none to give back"


def test_coins_that_went_elsewhere_are_given_back_so_that_others_are_asked_for() -> None:
    purses: Purses = Map({PARENT_OUT: purse_of(5_000, 7_000)})
    chain = chain_at(100)
    there = replace(
        chain, confirmed=chain.confirmed.update({PARENT_OUT.txid: 90, OTHER_OUT.txid: 90})
    )
    asked_for: list[list[OutPoint]] = []

    def are_there(outpoints: Sequence[OutPoint]) -> bool:
        asked_for.append(list(outpoints))
        return not outpoints

    held = [one.outpoint for one in coins(5_000, 7_000)]
    assert free(purses, there, asked=[OTHER_OUT], are_there=are_there) == [PARENT_OUT]
    assert sorted(asked_for) == [[], held]
    assert free(purses, there, asked=[OTHER_OUT], are_there=lambda _: True) == []


def test_what_was_asked_for_and_not_lent_has_cost_nothing_and_is_asked_for_no_more() -> None:
    (returned,) = settled_coins(Map(), chain_at(100), asked=[OTHER_OUT])
    assert (returned.outpoint, returned.cost_sat) == (OTHER_OUT.serialize(), 0)
    spent = buried(chain_at(100), 1, spending(OTHER_OUT))
    assert list(settled_coins(Map(), spent, asked=[OTHER_OUT])) == [returned]
    child = tx_of([PARENT.outpoint(0), coin(1, 5_000).outpoint], (4_100, CHANGE))
    chain = buried(chain_at(100), 1, PARENT, child)
    (returned,) = settled_coins(Map({PARENT_OUT: purse_of(5_000)}), chain)
    assert (returned.outpoint, returned.cost_sat) == (PARENT_OUT.serialize(), 900)
