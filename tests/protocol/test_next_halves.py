"""The LSP's half of a commitment on the next funding: what is taken of it, and when."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    Moments,
    link_of,
    purchase,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.errors import PeerViolation
from cromford.protocol import events as ev
from cromford.protocol.advancing import halves
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import HeldCommitment, NextFunding
from cromford.wire import messages as m
from cromford.wire.selling import NextHalf

OTHER: Final = b"\x07" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


def following_of(link: Link) -> NextFunding:
    assert link.next is not None
    return link.next


def half_of(moments: Moments) -> tuple[Link, m.AdvanceCommit]:
    commit = moments.message(m.AdvanceCommit)
    return link_of(moments.at(m.AdvanceCommit, moments.market.buyer).buyer), commit


def finished(link: Link, half: tuple[NextHalf, ...], message: m.AdvanceCommit) -> Any:
    return halves.finish_half(link, following_of(link), half, message)


def changed_next(link: Link, **changes: Any) -> Link:
    return changed(link, next=changed(following_of(link), **changes))


def test_a_half_is_finished_with_the_nonce_that_was_given_for_it(moments: Moments) -> None:
    link, commit = half_of(moments)
    wish = finished(link, commit.half, commit)
    number = link.state.own_signed
    own = following_of(link).own_nonces[number]
    assert isinstance(wish, fx.FinishNext)
    assert (wish.pool_id, wish.nonce_index) == (own.pool_id, own.index)
    assert (wish.half, wish.message) == (commit.half[0], commit)
    assert wish.commitment.content.number == number
    assert wish.commitment.funding == following_of(link).funding
    later_on = changed_next(link, is_agreed=False, is_dual=True)
    assert finished(later_on, commit.half, commit) == wish, "after a reconnection it comes again"


def held_number(number: int) -> HeldCommitment:
    return HeldCommitment(number=number, signature=bytes(64), htlc_signatures=())


def test_a_half_that_is_held_or_was_not_to_come_is_not_needed(moments: Moments) -> None:
    link, commit = half_of(moments)
    number = link.state.own_signed
    held = changed_next(link, own=held_number(number))
    assert finished(held, commit.half, commit) is None
    assert finished(held, (), commit) is None
    assert finished(held, (replace(commit.half[0], number=9),), commit) is None
    assert finished(changed_next(link, is_dual=True), (), commit) is None
    older = changed_next(link, own=held_number(number - 1))
    assert finished(older, commit.half, commit) is not None, "what is held is the one before"


BAD_HALVES: Final[dict[str, Callable[[NextHalf], tuple[NextHalf, ...]]]] = {
    "half: expected for commitment": lambda _: (),
    "half.number: expected": lambda one: (replace(one, number=one.number + 1),),
    "half.pubnonce: expected": lambda one: (replace(one, pubnonce=bytes(66)),),
    "half.partial_sig: expected a scalar": lambda one: (replace(one, partial_sig=b"\xff" * 32),),
}


@pytest.mark.parametrize("why", BAD_HALVES)
def test_a_half_that_is_none_is_named(moments: Moments, why: str) -> None:
    link, commit = half_of(moments)
    (half,) = commit.half
    with pytest.raises(PeerViolation, match=why):
        finished(link, BAD_HALVES[why](half), commit)


def test_a_half_is_not_taken_before_our_nonce_or_while_nothing_is_agreed(moments: Moments) -> None:
    link, commit = half_of(moments)
    for early in (
        changed_next(link, own_nonces=Map()),
        changed_next(link, own_nonces=Map(), is_dual=True),
        changed_next(link, is_agreed=False),
    ):
        with pytest.raises(PeerViolation, match="half: expected our nonce first, received one"):
            finished(early, commit.half, commit)


def test_a_finished_half_is_awaited_while_it_is_our_latest_and_on_the_same_funding(
    moments: Moments,
) -> None:
    link, commit = half_of(moments)
    asked = finished(link, commit.half, commit)
    event = ev.NextHalfMade(asked=asked, partial_sig=bytes(32))
    number = link.state.own_signed
    assert halves.still_awaits(link, event)
    assert halves.still_awaits(changed_next(link, own=held_number(number - 1)), event)
    for other in (
        changed(link, next=None),
        changed_next(link, advance_id=OTHER),
        changed_next(link, own=held_number(number)),
        changed_next(link, own=held_number(number + 1)),
        changed(link, state=changed(link.state, own_signed=number + 1)),
    ):
        assert not halves.still_awaits(other, event)
