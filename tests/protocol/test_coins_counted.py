"""How many HTLCs need a coin each, and whose coins are left for one more."""

from dataclasses import replace
from functools import partial
from math import ceil
from typing import Final

import pytest
from immutables import Map
from tests.protocol.arrivals import moment
from tests.protocol.decisions import Known, in_client, in_factory
from tests.protocol.paying_clients import live_factory, newest_link
from tests.protocol.pump import Pump

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import vsize_of
from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import HtlcStage, LiveHtlc, Removal
from cromford.channel.terms import HTLC_SUCCESS_WEIGHT, MSAT_PER_SAT, ChannelTerms, Party
from cromford.protocol.channels.coins import check_coin, lacks_coin, n_needing_coins
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.watch.bumping import ONE_COIN_WEIGHT
from cromford.watch.feerates import OwnFees

LARGE_MSAT: Final = 2_000_000
DEAR_SAT_PER_KW: Final = 750


def terms() -> ChannelTerms:
    return alices().setting.terms


def alices() -> Link:
    return moment().factory.book.links[moment().key[0]]


def carols() -> Link:
    known = moment().factory.book.links.values()
    return next(link for link in known if link.node_id == moment().carol)


def dear(sat_per_kw: int = DEAR_SAT_PER_KW) -> Facts:
    return replace(FRESH, fees=OwnFees(mempool_min_sat_per_kw=sat_per_kw))


def htlc(number: int, *, by: Party = Party.ACCEPTER, amount_msat: int = LARGE_MSAT) -> LiveHtlc:
    return LiveHtlc(
        htlc=Htlc(
            offered_by=by,
            htlc_id=number,
            amount_msat=amount_msat,
            payment_hash=bytes([number]) * 32,
            cltv_expiry=1_000,
        ),
        stage=HtlcStage.LOCKED_IN,
    )


def with_htlcs(link: Link, *htlcs: LiveHtlc) -> Link:
    return changed(link, state=changed(link.state, htlcs=htlcs))


def book_of(*links: Link) -> Book:
    return changed(moment().factory.book, links=Map({link.channel_id: link for link in links}))


def factory_of(*links: Link) -> Factory:
    return changed(moment().factory, book=book_of(*links))


# (coins, HTLCs in this channel with the new one, in another, in other factories): is there one?
SHARED: Final = [
    (0, 1, 0, None, False),
    (1, 1, 0, None, True),
    (2, 1, 2, 0, False),
    (3, 1, 2, 0, True),
    (3, 1, 1, 2, False),
    (4, 1, 1, 2, True),
    (2, 1, 1, None, True),
    # More than one is for whoever comes first, and of the first half.
    (2, 2, 0, None, False),
    (3, 2, 0, None, True),
    (5, 2, 1, None, True),
    (5, 2, 2, None, False),
    (5, 3, 0, None, True),
    (5, 2, 0, 2, False),
    (7, 2, 0, 2, True),
]


@pytest.mark.parametrize(("coins", "here", "there", "elsewhere", "is_enough"), SHARED)
def test_half_of_a_houses_coins_are_for_who_comes_first_and_of_the_rest_each_channel_has_one(
    *, coins: int, here: int, there: int, elsewhere: int | None, is_enough: bool
) -> None:
    link = with_htlcs(alices(), *map(htlc, range(here)))
    other = with_htlcs(carols(), *map(htlc, range(there)))
    turn = in_factory(factory_of(link, other), dear(), Known(coins=coins, elsewhere=elsewhere))
    assert lacks_coin(turn, link, link.state.htlcs[-1].htlc) is not is_enough
    before = with_htlcs(alices(), *map(htlc, range(here - 1)))
    turn = in_factory(factory_of(before, other), dear(), Known(coins=coins, elsewhere=elsewhere))
    if is_enough:
        check_coin(turn, before, amount_msat=LARGE_MSAT)
        return
    with pytest.raises(UpdateRefused, match=f"coins: expected a coin .*, received {coins}"):
        check_coin(turn, before, amount_msat=LARGE_MSAT)


@pytest.mark.parametrize(("elsewhere", "is_enough"), [(None, True), (0, False)])
def test_a_channel_that_is_the_only_one_has_all_coins(
    elsewhere: int | None, *, is_enough: bool
) -> None:
    link = with_htlcs(alices(), htlc(0), htlc(1))
    turn = in_factory(factory_of(link), dear(), Known(coins=2, elsewhere=elsewhere))
    assert lacks_coin(turn, link, link.state.htlcs[-1].htlc) is not is_enough


def test_what_was_agreed_is_enough_until_the_mempools_minimum_is_above_it() -> None:
    for feerate, is_lacking in (
        (terms().feerate_per_kw, False),
        (terms().feerate_per_kw + 1, True),
    ):
        turn = in_factory(factory_of(alices()), dear(feerate))
        assert lacks_coin(turn, alices(), htlc(0).htlc) is is_lacking


def least_msat(*, is_offered: bool) -> int:
    """Return the least HTLC that has an output, offered or received."""
    cost_sat = terms().htlc_tx_cost_sat(is_offered=is_offered)
    return (terms().dust_limit_sat + cost_sat) * MSAT_PER_SAT


def test_what_has_no_output_needs_no_coin() -> None:
    """Of two that hold the same, the one that we offer costs less to claim."""
    offered, received = least_msat(is_offered=True), least_msat(is_offered=False)
    assert offered < received
    link = with_htlcs(alices())
    turn = in_factory(factory_of(link), dear())
    assert lacks_coin(turn, link, htlc(0, amount_msat=received).htlc)
    assert not lacks_coin(turn, link, htlc(0, amount_msat=received - 1).htlc)
    check_coin(turn, link, amount_msat=offered - 1)
    with pytest.raises(UpdateRefused):
        check_coin(turn, link, amount_msat=offered)
    counted = [
        (htlc(0, amount_msat=received), 1),
        (htlc(0, amount_msat=received - 1), 0),
        (htlc(0, by=Party.OPENER, amount_msat=offered), 1),
        (htlc(0, by=Party.OPENER, amount_msat=offered - 1), 0),
    ]
    for live, n in counted:
        assert n_needing_coins(book_of(with_htlcs(alices(), live))) == n


def test_an_htlc_that_is_decided_needs_no_coin() -> None:
    decided = changed(htlc(0), removal=Removal(reason=b"no"))
    link = with_htlcs(alices(), decided, htlc(1))
    assert n_needing_coins(book_of(link)) == 1


def test_of_a_channel_that_is_over_what_is_not_decided_still_needs_one() -> None:
    """What it brings is ours to claim; the rest is nobody's any more."""
    link = with_htlcs(alices(), htlc(0), htlc(1), htlc(0, by=Party.OPENER))
    over = changed(link, failure="over")
    first = (link.channel_id, 0)
    assert n_needing_coins(book_of(link)) == 3
    book = changed(book_of(over), arrived=Map(), owners=Map())
    assert n_needing_coins(book) == 0
    assert n_needing_coins(changed(book, arrived=Map({first: None}))) == 1
    assert n_needing_coins(changed(book, owners=Map({first: bytes(32)}))) == 1
    with_second = {(link.channel_id, 1): None}
    assert n_needing_coins(changed(book, arrived=Map(with_second))) == 1, "it is no HTLC of ours"
    assert n_needing_coins(changed(book, owners=Map({(link.channel_id, 1): bytes(32)}))) == 0


def least_coin_sat() -> int:
    """Return what pays for both to get in, with what the parent paid, and leaves no dust."""
    vsize = vsize_of(HTLC_SUCCESS_WEIGHT) + vsize_of(ONE_COIN_WEIGHT)
    paid_sat = terms().feerate_per_kw * HTLC_SUCCESS_WEIGHT // 1000
    return P2TR_DUST_SAT + ceil(DEAR_SAT_PER_KW * 4 * vsize / 1000) - paid_sat


def test_a_coin_counts_that_brings_the_heaviest_htlc_transaction_into_the_mempool() -> None:
    known = Known(coins=1)
    link = with_htlcs(alices())
    assert not lacks_coin(in_factory(factory_of(link), dear(), known), link, htlc(0).htlc)
    assert known.least_sat == least_coin_sat()


def client_with(*coins_sat: int) -> Pump:
    pump = live_factory(1)
    (client,) = pump.clients
    for coin_sat in coins_sat:
        pump.chain.fund(client.state.wallet.next_script(0), coin_sat)
    pump.sync()
    return pump


@pytest.mark.parametrize(
    ("less_sat", "n_here", "is_enough"), [(0, 1, True), (1, 1, False), (0, 2, False)]
)
def test_a_client_counts_its_own_coins(*, less_sat: int, n_here: int, is_enough: bool) -> None:
    (client,) = client_with(least_coin_sat() - less_sat).clients
    link = newest_link(client)
    known = Party.OPENER if link.me is Party.ACCEPTER else Party.ACCEPTER
    link = with_htlcs(link, *map(partial(htlc, by=known), range(n_here)))
    books = changed(client.state.book, links=Map({link.channel_id: link}))
    turn = in_client(changed(client.state, book=books), dear())
    assert lacks_coin(turn, link, link.state.htlcs[-1].htlc) is not is_enough


def test_a_client_counts_what_all_its_channels_need() -> None:
    (client,) = client_with(60_000, 60_000).clients
    link = newest_link(client)
    other = with_htlcs(changed(link, channel_id=bytes(32)), htlc(0, by=Party.OPENER))
    for n_others, is_enough in ((1, True), (2, False)):
        there = with_htlcs(other, *(htlc(n, by=Party.OPENER) for n in range(n_others)))
        links = Map({link.channel_id: link, there.channel_id: there})
        state = changed(client.state, book=changed(client.state.book, links=links))
        turn = in_client(state, dear())
        assert lacks_coin(turn, link, htlc(5, by=Party.OPENER).htlc) is not is_enough


def test_a_client_shares_its_coins_with_nobody() -> None:
    (client,) = client_with(60_000, 60_000).clients
    link = newest_link(client)
    other = with_htlcs(changed(link, channel_id=bytes(32)))
    here = with_htlcs(link, *(htlc(n, by=Party.OPENER) for n in range(2)))
    links = Map({link.channel_id: here, other.channel_id: other})
    turn = in_client(changed(client.state, book=changed(client.state.book, links=links)), dear())
    assert not lacks_coin(turn, here, here.state.htlcs[-1].htlc)
