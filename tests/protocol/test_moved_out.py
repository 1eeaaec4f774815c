"""How much of a channel moves, how large the next has to be, and when nothing is left behind."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.moving_clients import (
    POLICY,
    factory_with_money,
    links_of,
    mine_to_dying,
)
from tests.protocol.paying_clients import book
from tests.protocol.pump import Pump

from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.stage import HtlcStage, LiveHtlc
from cromford.channel.terms import Party
from cromford.protocol.channels.lsp import is_dying
from cromford.protocol.channels.moved import has_moved_out
from cromford.protocol.dying.moved import least_capacity_sat, movable_msat
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.shelf import Shelf

HTLC = Htlc(
    offered_by=Party.OPENER, htlc_id=7, amount_msat=1_000, payment_hash=b"h" * 32, cltv_expiry=900
)


@cache
def moved() -> tuple[Pump, Link, Link]:
    """Return a world in which a client has moved, and both of its channels."""
    pump = factory_with_money(2)
    mine_to_dying(pump)
    pump.mine()
    old, new = links_of(pump, pump.clients[0])
    return pump, old, new


def with_balance(link: Link, msat: int) -> Link:
    """Return a channel in which this is due to the client."""
    whole_msat = link.state.opener_msat + link.state.accepter_msat
    state = changed(link.state, opener_msat=whole_msat - msat, accepter_msat=msat)
    return changed(link, state=state)


def is_out(old: Link, new: Link | None, chain: KnownChain, *, min_depth: int = 1) -> bool:
    return has_moved_out(old, new, chain, min_depth=min_depth)


def test_who_has_moved_is_out_by_both_ends_of_its_channels() -> None:
    pump, old, new = moved()
    assert is_out(old, new, pump.clients[0].state.chain)
    theirs = [book(pump.lsp).links[link.channel_id] for link in (old, new)]
    assert is_out(theirs[0], theirs[1], pump.factory.chain)


@pytest.mark.parametrize(("left_msat", "out"), [(0, True), (329_999, True), (330_000, False)])
def test_less_than_330_sat_may_stay_behind(left_msat: int, *, out: bool) -> None:
    pump, old, new = moved()
    assert is_out(with_balance(old, left_msat), new, pump.clients[0].state.chain) is out


def test_nobody_is_out_whose_new_money_is_not_final() -> None:
    pump, old, new = moved()
    chain = pump.clients[0].state.chain
    depth = chain.depth(new.path[0].outpoint.txid)
    assert is_out(old, new, chain, min_depth=depth)
    for why, is_left in {
        "no new channel": is_out(old, None, chain),
        "the same one": is_out(old, old, chain),
        "its funding is not deep enough": is_out(old, new, chain, min_depth=depth + 1),
        "its funding left the chain": is_out(old, new, replace(chain, confirmed=Shelf())),
        "the new one failed": is_out(old, changed(new, failure="over"), chain),
        "an HTLC in the old one": is_out(with_htlc(old, HtlcStage.LOCKED_IN), new, chain),
        "an update under way there": is_out(with_htlc(old, HtlcStage.ADD_SIGNED), new, chain),
        "an update under way in the new one": is_out(
            old, with_htlc(new, HtlcStage.REMOVE_SIGNED), chain
        ),
        "a commitment that is not revoked yet": is_out(
            changed(old, peer_unrevoked=old.finished.commitment.content), new, chain
        ),
        "state was lost": is_out(changed(old, is_behind=True), new, chain),
    }.items():
        assert not is_left, why


def with_htlc(link: Link, stage: HtlcStage) -> Link:
    live = LiveHtlc(htlc=HTLC, stage=stage)
    return changed(link, state=changed(link.state, htlcs=(live,)))


@pytest.mark.parametrize(
    ("left_msat", "movable"), [(0, 0), (329_999, 0), (330_000, 330_000), (7_000_001, 7_000_001)]
)
def test_all_of_a_balance_moves_or_nothing(left_msat: int, movable: int) -> None:
    _, old, new = moved()
    assert movable_msat(with_balance(old, left_msat), with_balance(new, 0)) == movable


def test_no_more_moves_than_the_new_channel_can_take() -> None:
    _, old, new = moved()
    full_msat = new.state.opener_msat + new.state.accepter_msat
    reserve_msat = 1000 * new.state.terms.reserve_sat(
        Party.OPENER, capacity_sat=new.state.capacity_sat
    )
    for free_msat, movable in ((329_999, 0), (330_000, 330_000), (5_000_000, 5_000_000)):
        filled = with_balance(new, full_msat - reserve_msat - free_msat)
        assert movable_msat(with_balance(old, 40_000_000), filled) == movable


@given(balance_msat=st.integers(0, 10**12))
def test_a_channel_of_the_least_capacity_takes_the_whole_balance(balance_msat: int) -> None:
    _, old, _ = moved()
    terms = old.setting.terms
    capacity_sat = least_capacity_sat(balance_msat, terms)
    kept_sat = terms.reserve_sat(Party.OPENER, capacity_sat=capacity_sat)
    assert 1000 * (capacity_sat - kept_sat) >= balance_msat
    if balance_msat:
        less_sat = capacity_sat - 2
        kept_sat = terms.reserve_sat(Party.OPENER, capacity_sat=less_sat)
        assert 1000 * (less_sat - kept_sat) < balance_msat, "and it is the least, but for rounding"


def test_a_channel_dies_for_the_lsp_at_the_height_at_which_it_does_for_its_client() -> None:
    pump, old, _ = moved()
    factory = pump.lsp.state.factory(0)
    dying_height = old.exit_deadline_height - POLICY.dying_blocks
    assert pump.clients[0].state.attempts[old.attempt_id].lifetime.dying_height == dying_height
    link = factory.book.links[old.channel_id]
    for height, dies in ((dying_height - 1, False), (dying_height, True)):
        tip = (replace(factory.chain.recent[-1], height=height),)
        assert is_dying(factory.at(tip), link) is dies
