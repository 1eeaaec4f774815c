"""Which coins children need, in numbers: of transactions as they are published, and of purses.

A parent of 124 vbytes that pays 124 sat, and what its child costs: `tests/watch/test_bumping.py`.
"""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.test_close_limits import spend_of
from tests.watch.test_bumping import NO_ANCHOR, PARENT, child_of, outpoint, purse_of, wanted

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.exiting.lending import (
    Need,
    first_published,
    given_up_for,
    needs_of,
    outdated,
    returned,
    settled_coins,
)
from cromford.protocol.facts import Lacking
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.purses import Purses
from cromford.watch.bumping import Bumping

SPENT: Final = PARENT.inputs[0].outpoint
OTHER_SPENT: Final = outpoint(7)
NOTHING: Final[fx.Effect] = fx.DropPools(pool_ids=())


def published(bumping: Bumping | None, *, tx: Tx = PARENT, of: OutPoint = SPENT) -> fx.Effect:
    moved = replace(tx, inputs=(replace(tx.inputs[0], outpoint=of),))
    return fx.Broadcast(name="kickoff", tx=moved, bumping=bumping)


def need_of(*effects: fx.Effect) -> Need:
    (need,) = needs_of(effects)
    return need


def test_what_has_no_coin_needs_one_that_is_enough() -> None:
    need = need_of(NOTHING, published(wanted(10)))
    assert (need.outpoint, need.feerate_sat_per_kw, need.coins) == (SPENT, 2_500, ())
    assert (need.needed_sat, need.input_sat) == (2_976, 580)
    assert (need.held_sat, need.whole_sat) == (0, 2_976)
    # Its budget ends below what is wanted: so an input may not cost what is wanted, either.
    poor = need_of(published(wanted(10, budget_sat=998)))
    assert (poor.needed_sat, poor.input_sat) == (998 + 330, 305)


def test_coins_that_are_too_few_count_as_one_less_an_input_each() -> None:
    need = need_of(published(wanted(10, 1_000, 900)))
    assert need.held_sat == 1_000 + 900 - 580
    assert need.whole_sat == 1_900 + (2_976 - 1_320) + 580, "and one more costs an input more"
    many = need_of(published(wanted(20, *(1_000,) * 8, 1_200)))
    assert (many.input_sat, many.held_sat) == (1_160, 1_200 + 7_000 - 7 * 1_160)


@pytest.mark.parametrize(
    ("coins_sat", "budget_sat", "lacks"),
    [
        ((2_976,), 100_000, False),
        ((2_975,), 100_000, True),
        ((2_976 + 580 - 1_000, 1_000), 100_000, False),
        ((2_976 + 579 - 1_000, 1_000), 100_000, True),
        # All that may be spent, and dust, is enough in however many coins.
        ((665, 665), 1_000, False),
        ((665, 664), 1_000, True),
    ],
)
def test_a_coin_is_missing_until_those_that_are_there_reach(
    coins_sat: tuple[int, ...], budget_sat: int, *, lacks: bool
) -> None:
    effects = [published(wanted(10, *coins_sat, budget_sat=budget_sat))]
    assert bool(list(needs_of(effects))) is lacks


def test_what_pays_enough_or_may_cost_nothing_needs_no_coin() -> None:
    assert list(needs_of([published(wanted(2, fee_sat=248))])) == []
    assert list(needs_of([published(wanted(10, budget_sat=0))])) == []
    assert list(needs_of([published(None), NOTHING])) == []
    assert need_of(published(wanted(10), tx=NO_ANCHOR)).needed_sat == 2_120 + 330


def waits(*, needed_sat: int = 2_976, feerate: int = 2_500) -> dict[OutPoint, Lacking]:
    return {SPENT: Lacking(needed_sat, feerate)}


@pytest.mark.parametrize(
    ("known", "is_outdated"),
    [
        (waits(), False),
        (waits(needed_sat=3_720), False),  # A quarter more, and not above it.
        (waits(needed_sat=3_721), True),
        (waits(feerate=3_125), False),
        (waits(feerate=3_126), True),
        ({}, False),  # The house has lent it by now.
    ],
)
def test_who_waits_for_much_more_than_it_needs_gives_its_place_up(
    known: dict[OutPoint, Lacking], *, is_outdated: bool
) -> None:
    effects = [published(wanted(10))]
    assert list(outdated([SPENT], effects, known)) == ([SPENT] if is_outdated else [])


def test_who_needs_nothing_any_more_gives_its_place_up() -> None:
    assert list(outdated([SPENT], [], waits())) == [SPENT]
    assert list(outdated([SPENT], [published(wanted(2, fee_sat=248))], waits())) == [SPENT]
    assert list(outdated([SPENT, OTHER_SPENT], [], {})) == []


def purses(**amounts: int) -> Purses:
    known: Purses = Purses()
    for name, amount_sat in amounts.items():
        known = known.set({"lazy": OTHER_SPENT, "other": outpoint(8)}[name], purse_of(amount_sat))
    return known


@pytest.mark.parametrize(
    ("feerate", "amount_sat", "has_some", "gives"),
    [
        (2_001, 5_000, True, False),  # Of 1,601 that are wanted: a quarter more, and not above it.
        (2_002, 5_000, True, True),
        (4_000, 2_975, True, False),  # Too little for who has some already.
        (4_000, 2_975, False, True),
        (4_000, 2_976, True, True),
    ],
)
def test_the_least_hurried_gives_up_what_helps_who_hurries_much_more(
    feerate: int, amount_sat: int, *, has_some: bool, gives: bool
) -> None:
    held = purses(lazy=amount_sat)
    effects = [NOTHING, published(replace(wanted(8), feerate_sat_per_kw=1_601), of=OTHER_SPENT)]
    given = given_up_for(held, effects, waits(feerate=feerate), has_some=lambda _: has_some)
    assert given == (OTHER_SPENT if gives else None)


def test_what_nobody_publishes_any_more_gives_up_first_and_nobody_to_itself() -> None:
    held = purses(lazy=5_000, other=5_000)
    effects = [published(wanted(10), of=OTHER_SPENT)]
    assert given_up_for(held, effects, waits(feerate=9_000), has_some=bool) == outpoint(8)
    own = {OTHER_SPENT: Lacking(2_976, 9_000)}
    assert given_up_for(purses(lazy=5_000), effects, own, has_some=bool) is None
    assert given_up_for(purses(), effects, waits(feerate=9_000), has_some=bool) is None


def test_the_first_broadcast_is_remembered_once_with_the_highest_block_that_is_known() -> None:
    effects = [NOTHING, published(None, of=outpoint(9)), published(wanted(10))]
    (record,) = first_published(effects, {}, height=700)
    assert record == xr.FirstPublished(outpoint=SPENT.serialize(), height=700)
    assert list(first_published(effects, {SPENT: 600}, height=700)) == []


def test_coins_are_free_once_nothing_waits_for_them_or_they_are_gone() -> None:
    held = purses(lazy=5_000)
    in_a_block = KnownChain().confirmed.set(OTHER_SPENT.txid, 90)
    there = replace(KnownChain(), confirmed=in_a_block)
    gone = xr.CoinsReturned(outpoint=OTHER_SPENT.serialize(), cost_sat=0)
    assert list(settled_coins(held, there)) == []
    assert list(settled_coins(held, KnownChain())) == [gone], "what it spends left the chain"
    assert list(settled_coins(held, there, is_dead=True)) == [gone]
    ref = BlockRef(height=91, block_hash=Txid(bytes(32)))
    spent = there.with_block(ref, (spend_of(OTHER_SPENT, 1_000),))
    assert list(settled_coins(held, spent)) == [gone]
    (coin,) = held[OTHER_SPENT].coins

    def is_gone(coins: object) -> bool:
        return coins != [coin.outpoint]

    assert list(settled_coins(held, there, are_there=is_gone)) == [gone]
    # What was asked for and not lent yet is asked for in vain just so.
    assert list(settled_coins(purses(), there, asked=[OTHER_SPENT])) == []
    assert list(settled_coins(purses(), KnownChain(), asked=[OTHER_SPENT])) == [gone]


def test_a_purse_that_is_empty_has_nothing_to_give() -> None:
    """What its children have cost is kept, and no coin."""
    empty = purses().set(OTHER_SPENT, replace(purse_of(), cost_sat=5))
    assert list(settled_coins(empty, KnownChain())) == []
    assert given_up_for(empty, [], waits(feerate=9_000), has_some=lambda _: False) is None


def test_what_children_in_blocks_have_cost_is_remembered_with_what_is_free_again() -> None:
    purse = purse_of(5_000)
    child = child_of(wanted(10, 5_000))
    ref = BlockRef(height=91, block_hash=Txid(bytes(32)))
    chain = KnownChain().with_block(ref, (PARENT, child.tx))
    told = returned(SPENT, purse, chain)
    # Its fee, less the 240 sat of the anchor, which was no coin of ours.
    assert told == xr.CoinsReturned(outpoint=SPENT.serialize(), cost_sat=child.fee_sat - 240)
    assert returned(SPENT, None, chain).cost_sat == 0
    assert returned(SPENT, purse, KnownChain()).cost_sat == 0
