"""What both sides compute alike of an advance, and what a restored store is told of one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    BUYER,
    NEIGHBOUR,
    Moments,
    blocks,
    link_of,
    of_lsp,
    purchase,
    said,
)

from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.stage import HtlcStage, LiveHtlc
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.protocol.advancing.making import (
    is_quiet_at_our_side,
    is_rebased,
    leaf_with_next,
    lies_on_next,
    own_latest,
    peer_latest,
    sold_sat,
)
from cromford.protocol.advancing.sales import NotSold
from cromford.protocol.advancing.telling import tell_states
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import HeldCommitment
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def signed(moments: Moments) -> Link:
    """Return the buyer's channel once both commitments are on both fundings."""
    return link_of(moments.at(m.AdvanceDone, moments.market.buyer).buyer)


@pytest.fixture(scope="module")
def leaf(moments: Moments) -> Leaf:
    """Return the leaf once it is sold of."""
    found: Leaf = moments.market.pump.held(moments.market.buyer).leaf
    return found


def with_next(link: Link, **changes: Any) -> Link:
    assert link.next is not None
    return changed(link, next=changed(link.next, **changes))


def test_a_leaf_has_its_next_state_once_signed_or_not(leaf: Leaf) -> None:
    before, allocation = replace(leaf, states=leaf.states[:1]), leaf.allocation
    for known in (before, leaf):
        made = leaf_with_next(known, state_index=1, allocation=allocation)
        assert made.states == leaf.states
    assert sold_sat(leaf, 1) == AMOUNT_SAT
    again = leaf.sold(Purchase(buyer=NEIGHBOUR, amount_sat=1_000))
    assert sold_sat(again, 2) == 1_000
    assert sold_sat(again, 1) == AMOUNT_SAT


def test_the_latest_commitments_are_those_of_the_next_funding(signed: Link) -> None:
    assert signed.next is not None
    for commitment in (own_latest(signed), peer_latest(signed)):
        assert commitment.funding == signed.next.funding
    assert own_latest(signed).content.holder is signed.me
    assert peer_latest(signed).content.holder is signed.state.peer
    for latest in (own_latest, peer_latest):
        with pytest.raises(AssertionError, match="no next funding"):
            latest(changed(signed, next=None))


def test_a_channel_lies_on_the_next_funding_where_both_sides_could_publish_there(
    signed: Link,
) -> None:
    assert signed.next is not None
    assert signed.next.own is not None
    assert lies_on_next(signed)
    older = HeldCommitment(number=-1, signature=bytes(64), htlc_signatures=())
    for lacking in (
        changed(signed, next=None),
        with_next(signed, own=None),
        with_next(signed, own=older),
        with_next(signed, given=Map()),
    ):
        assert not lies_on_next(lacking)


def test_a_channel_is_rebased_where_it_is_in_the_new_state_or_a_newer_one(
    moments: Moments, signed: Link, leaf: Leaf
) -> None:
    grown = link_of(moments.market.buyer.state)
    assert not is_rebased(signed, leaf, 1)
    assert is_rebased(signed, leaf, 0)
    assert is_rebased(grown, leaf, 1)
    assert is_rebased(grown, leaf, 0)
    again = leaf.sold(Purchase(buyer=NEIGHBOUR, amount_sat=1_000))
    assert is_rebased(grown, again, 1)
    assert not is_rebased(grown, again, 2)


def test_our_side_is_quiet_where_nothing_that_we_said_is_on_its_way(
    moments: Moments, signed: Link
) -> None:
    """HTLCs may pend, and what the peer says of them may be on its way."""
    state = signed.state
    assert is_quiet_at_our_side(signed)

    def with_state(**changes: Any) -> Link:
        return changed(signed, state=changed(state, **changes))

    under_way = next(
        link.state.rebase
        for link in (link_of(one.buyer) for one in moments.all)
        if link.state.rebase is not None
    )
    for loud in (
        with_state(unacked=(moments.message(m.UpdateRebase),)),
        with_state(peer_signed=state.peer_signed + 1),
        with_state(rebase=under_way),
    ):
        assert not is_quiet_at_our_side(loud)
    first_of_ours, last_of_theirs = HtlcStage.LOCKED_IN, HtlcStage.LOCKED_IN
    for stage in HtlcStage:
        for party, is_quiet in (
            (state.me, stage >= first_of_ours),
            (state.peer, stage <= last_of_theirs),
        ):
            htlc = Htlc(
                offered_by=party, htlc_id=0, amount_msat=1, payment_hash=OTHER, cltv_expiry=1
            )
            pending = with_state(htlcs=(LiveHtlc(htlc=htlc, stage=stage),))
            assert is_quiet_at_our_side(pending) is is_quiet, (party, stage)


# What is told


def told(factory: Factory, facts: Facts = FRESH) -> tuple[bool, ...]:
    """Return which states the buyer is told of, by whether their poisons leave with them."""
    link = factory.book.links[factory.attempt.setting(BUYER).channel_id]
    (word,) = said(of_lsp(factory, lambda turn: tell_states(turn, link), facts))
    assert isinstance(word, m.LeafStates)
    leaf = factory.attempt.leaf(BUYER)
    assert [state.lstock_sat for state in word.states] == [
        leaf.allocation_at(index).lstock_sat for index in range(1, len(leaf.states))
    ]
    assert all(bool(one.stock_poison) == bool(one.channel_poison) for one in word.states)
    return tuple(bool(one.stock_poison) for one in word.states)


def with_kickoff(factory: Factory) -> Factory:
    kickoff = factory.attempt.leaf(BUYER).kickoff.tx
    return changed(factory, chain=blocks(factory.chain, 1, kickoff))


def unpoisoned(factory: Factory) -> Factory:
    name = factory.attempt.leaf_name(BUYER)
    states = tuple(replace(one, poisons=None) for one in factory.attempt.leaves[name])
    leaves = factory.attempt.leaves.set(name, states)
    return changed(factory, begun=replace(factory.attempt, leaves=leaves))


LEAVING: Final[dict[str, tuple[Callable[[Factory], Factory], bool, bool]]] = {
    "nothing of it is on chain": (lambda one: one, True, True),
    "the old state may be next": (with_kickoff, True, False),
    "they were never made": (unpoisoned, False, False),
}


@pytest.mark.parametrize("why", LEAVING)
def test_poisons_leave_where_they_could_have_left_or_were_held(moments: Moments, why: str) -> None:
    """Of a state that its channel has left a client held them once."""
    change, after, before = LEAVING[why]
    grown, held = moments.market.pump.factory, moments.at(m.AdvanceHeld).factory
    assert told(change(grown)) == (after,)
    assert told(change(held)) == (before,)
    assert told(moments.at(m.Buy).factory) == ()
    stale = replace(FRESH, stale="no block for hours")
    assert told(held, stale) == (False,), "it may be on chain"


def test_what_is_not_sold_says_why_and_that_nothing_is_missing() -> None:
    refused = NotSold("no_stock", "it is gone")
    assert (refused.code, refused.reason, refused.missing_msat) == ("no_stock", "it is gone", 0)
    assert str(refused) == "no_stock: it is gone"
    assert NotSold("insufficient_balance", "", missing_msat=7).missing_msat == 7
