"""An LSP's streams seen together: what is in memory, what sleeps, and what they come to."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.frozen_state import LSP
from tests.protocol.houses import ALICE, BOB, CAROL, EXPIRY, entry, house_of, spend_of, txid_of
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book import Book, Forward, Held, HtlcKey, Payment
from cromford.protocol.journal.entries import BUILDING, DEAD, HousePayment
from cromford.protocol.journal.factory import Factory, new_factory
from cromford.protocol.journal.gathered import Build
from cromford.protocol.journal.house import House, new_house
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_state import (
    LspState,
    apply,
    new_lsp,
    pending,
    settled,
    taken_by,
    tip_of,
)
from cromford.protocol.journal.mail import Letter, Post
from cromford.protocol.journal.scan import Scan
from cromford.protocol.journal.sleep import Asleep
from cromford.protocol.journal.streams import CHAIN, HOUSE
from cromford.shelf import Shelf

HELD: Final[Map[HtlcKey, Held]] = Map({(b"channel", 3): Held(payee=ALICE, reason="away")})


def asleep(**changes: Any) -> Asleep:
    known: dict[str, Any] = {
        "wake_height": 2_000,
        "status": "live",
        "earned_msat": 5,
        "n_finished": 2,
        "locked_sat": 70,
        "totals": Map({"own_msat": 9, "peer_msat": 4}),
        "taken": Map({HOUSE: 6}),
    }
    return Asleep(**(known | changes))


def lsp_of(house: House | None = None, *factories: Factory, **sleeping: Asleep) -> LspState:
    """Return an LSP with factories in memory, and others that sleep: `_2` is the second."""
    found = {int(name[1:]): one for name, one in sleeping.items()}
    state = LspState(
        house=house_of() if house is None else house,
        find=found.get,
        load=lambda number: changed(new_factory(LSP, number), n_closes=100 + number),
        due=lambda height: sorted(n for n, one in found.items() if one.wake_height <= height),
    )
    for number, one in found.items():
        state = state.without_factory(number, one)
    for factory in factories:
        state = state.with_factory(factory)
    return state


def factory(number: int, *, finished: Iterable[Forward] = (), **changes: Any) -> Factory:
    """Return a factory in memory whose book has these finished forwards, and these changes."""
    one = changed(new_factory(LSP, number), **changes)
    ended = [*finished]
    book = changed(one.book, finished=Map(enumerate(ended)), n_finished=len(ended))
    return changed(one, book=book) if ended else one


def forward(number: int) -> Forward:
    return Forward(
        payment_hash=b"%d" % number,
        incoming=(b"c", number),
        to=HOUSE,
        payee=ALICE,
        amount_msat=number,
        fee_msat=1,
    )


# In memory, and asleep


def test_a_factory_is_the_one_in_memory_or_what_its_journal_says_or_new() -> None:
    state = lsp_of(None, factory(1, n_closes=7), _2=asleep())
    assert [state.factory(number).n_closes for number in (1, 2, 3)] == [7, 102, 0]
    assert [*state.asleep] == [], "the house knows of none"
    assert [one.number for one in state.all_factories()] == [1]


def test_who_sleeps_is_found_by_number_in_the_order_of_the_house() -> None:
    house = house_of(*(entry(number) for number in (1, 2, 3, 4)))
    state = lsp_of(house, factory(3), _4=asleep(), _2=asleep(wake_height=1_500))
    assert [*state.asleep] == [2, 4]
    assert len(state.asleep) == 2
    assert state.asleep[2].wake_height == 1_500
    for number in (1, 3):
        with pytest.raises(KeyError):
            state.asleep[number]
    woken = state.with_factory(state.factory(2))
    assert ([*woken.asleep], len(woken.asleep)) == ([4], 1)
    with pytest.raises(KeyError):
        woken.asleep[2]
    assert [[*one.due_at(2_000)] for one in (state, woken)] == [[2, 4], [4]]
    assert [[*one.due_at(1_999)] for one in (state, woken)] == [[2], []]


def test_what_sleeps_is_added_up_and_taken_off_again_as_it_wakes() -> None:
    one, other = asleep(period="dying"), asleep(status="closed", totals=Map({"own_msat": 1}))
    state = lsp_of(None, _2=one, _3=other)
    sums = state.resting
    assert (sums.n, sums.earned_msat, sums.n_finished, sums.locked_sat) == (2, 10, 4, 140)
    assert sums.totals == Map({"own_msat": 10, "peer_msat": 4})
    assert sums.statuses == Map({"live": 1, "closed": 1})
    assert sums.periods == Map({"dying": 1, "": 1})
    for number in (2, 2, 3):
        state = state.with_factory(state.factory(number))
    assert state.resting == new_lsp(LSP).resting, "each counts once, and leaves no name"


def test_what_is_found_by_its_factory_goes_with_it_and_comes_back() -> None:
    """A channel by its id, and the factories in which HTLCs wait."""
    book = Book(links=Map({b"x": newest(), b"y": newest()}), held=HELD)
    quiet = changed(book, held=Map())
    state = lsp_of(None, factory(1, book=book), factory(2))
    assert state.channels == Map({b"x": 1, b"y": 1})
    assert state.holding == {1}
    once = state.with_factory(factory(1, book=quiet))
    assert (once.channels, once.holding) == (state.channels, frozenset())
    assert once.with_factory(factory(1, book=quiet)).holding == frozenset()
    assert once.with_factory(factory(1, book=book)).holding == {1}
    grown = once.with_factory(factory(2, book=Book(links=Map({b"z": newest()}))))
    assert grown.channels == Map({b"x": 1, b"y": 1, b"z": 2})
    gone = state.without_factory(1, asleep())
    assert (gone.channels, gone.holding, [*gone.factories]) == (Map(), frozenset(), [2])
    assert [*gone.restless.asked] == [2]
    assert gone.with_factory(factory(1, book=book)).channels == state.channels
    assert state.without_factory(3, asleep()).factories == state.factories, "it was not here"


def newest() -> Any:
    """Stand in for a channel where only its id matters."""
    return None


@pytest.mark.parametrize(
    ("expiry_height", "wake_height", "outlasts"),
    [(0, 5, False), (5, 5, False), (4, 5, True), (6, 5, False), (1, 5, True)],
)
def test_what_sleeps_beyond_its_expiry_is_listed(
    expiry_height: int,
    wake_height: int,
    outlasts: bool,  # noqa: FBT001 - a table
) -> None:
    one = asleep(expiry_height=expiry_height, wake_height=wake_height)
    assert one.outlasts is outlasts
    assert ([*lsp_of(None, _2=one).outlasting.items()] == [(2, expiry_height)]) is outlasts


def test_who_sleeps_for_ever_while_its_house_lends_in_it_is_told_until_its_expiry() -> None:
    """Older versions told no house of channels that were settled on chain."""
    for_ever = asleep(expiry_height=EXPIRY, wake_height=10**9)
    over = frozenset({1})
    house = house_of(
        entry(2, ALICE),
        entry(3, ALICE, settled=over),
        entry(4, ALICE, status=DEAD),
        entry(5, ALICE),
        entry(6, ALICE, BOB, settled=over),
        height=EXPIRY - 2,
    )
    state = lsp_of(house, _2=for_ever, _3=for_ever, _4=for_ever, _5=for_ever, _6=for_ever)
    assert [*state.asleep_for_ever()] == [2, 5, 6]
    state = state.with_factory(state.factory(5))
    assert [*state.asleep_for_ever()] == [2, 6]
    at_last = house_of(entry(2, ALICE), height=EXPIRY - 1)
    assert [*lsp_of(at_last, _2=for_ever).asleep_for_ever()] == [2]
    at_end = house_of(entry(2, ALICE, expiry_height=EXPIRY + 9), height=EXPIRY)
    assert [*lsp_of(at_end, _2=for_ever).asleep_for_ever()] == []


# Seats


def test_who_is_built_for_or_waited_for_or_has_a_channel_has_a_seat() -> None:
    house = house_of(entry(1, ALICE), entry(2, BOB, status=BUILDING))
    assert [lsp_of(house).has_seat(name) for name in (ALICE, BOB, CAROL)] == [True, False, False]
    signing = changed(house, under_way=b"attempt 2")
    assert [lsp_of(signing).has_seat(name) for name in (BOB, CAROL)] == [True, False]
    build = Build(
        attempt=None, node_ids=(CAROL,), reasons=(), capacity_sat=(), min_clients=1, max_clients=1
    )
    building = changed(house, build=build)
    assert [lsp_of(building).has_seat(name) for name in (BOB, CAROL)] == [False, True]
    expired = house_of(entry(1, ALICE), height=EXPIRY)
    assert not lsp_of(expired).has_seat(ALICE)
    again = house_of(entry(1, ALICE), entry(3, ALICE, expiry_height=EXPIRY + 1), height=EXPIRY)
    assert lsp_of(again).has_seat(ALICE), "one of its factories stands"


@cache
def live() -> tuple[LspState, bytes, bytes]:
    """Return an LSP with one live factory, and its client and its channel."""
    pump = live_factory(1)
    state = pump.lsp.state
    assert isinstance(state, LspState)
    link = lsp_link(pump, newest_link(pump.clients[0]))
    return state, link.node_id, link.channel_id


def test_a_channel_that_was_brought_on_chain_before_the_expiry_keeps_its_seat() -> None:
    state, client, channel_id = live()
    (one,) = state.all_factories()
    link = one.book.links[channel_id]
    tip = (block(link.expiry_height),)
    expired = changed(state.house, chain=changed(state.house.chain, recent=tip))
    state = replace(state, house=expired, scan=changed(state.scan, recent=tip))
    one = one.at(tip)
    assert not state.has_seat(client)
    on_chain = dict.fromkeys((step.txid for step in link.path), 10)
    chain = changed(one.chain, confirmed=one.chain.confirmed.update(on_chain))
    settled_one = changed(one, chain=chain)
    assert link.is_settled(chain)
    assert state.with_factory(settled_one).has_seat(client)
    assert not state.with_factory(settled_one).has_seat(CAROL)
    failed = changed(link, failure="it was published")
    book = changed(one.book, links=one.book.links.set(channel_id, failed))
    assert not state.with_factory(changed(settled_one, book=book)).has_seat(client)
    assert not state.without_factory(one.number, asleep()).has_seat(client)


# What they come to


def test_payments_and_channels_of_all_factories_are_seen_as_one_book() -> None:
    """What was forwarded and earned is counted for those that sleep, too; the newest come first."""
    first = factory(1, finished=[forward(1), forward(2)])
    first = changed(first, book=changed(first.book, earned_msat=30, held=HELD))
    second = factory(2, finished=[forward(3)])
    state = lsp_of(None, first, second, _3=asleep())
    book = state.book
    assert book.held == HELD
    assert (book.n_finished, book.earned_msat) == (2 + 3, 5 + 30)
    newest_first = [book.finished[n].amount_msat for n in sorted(book.finished, reverse=True)]
    assert newest_first == [3, 2, 1]
    assert max(book.finished) == book.n_finished - 1


def test_a_payment_is_what_became_of_it_where_the_house_ordered_it_last() -> None:
    asked = mail.PayAsked(
        payment_hash=b"h",
        payment_secret=b"",
        payee=ALICE,
        amount_msat=1,
        description="",
        min_final_cltv_expiry_delta=1,
        text="",
    )
    tries = [
        Payment(
            payment_hash=b"h",
            payee=ALICE,
            amount_msat=1,
            fee_msat=fee_msat,
            description="",
            text="",
            htlc=(b"c", 1),
            number=1,
        )
        for fee_msat in (1, 2)
    ]
    factories = [
        factory(number, book=Book(payments=Map({b"h": one})))
        for number, one in enumerate(tries, start=1)
    ]
    for number in (1, 2):
        ordered = HousePayment(asked=asked, to=f"factory:{number}", number=7, label="rent")
        house = changed(house_of(), payments=Map({b"h": ordered}))
        shown = lsp_of(house, *factories).book.payments[b"h"]
        assert (shown.fee_msat, shown.number, shown.label) == (number, 7, "rent")


def test_a_book_whose_oldest_forwards_are_forgotten_is_read_from_where_it_begins() -> None:
    one = factory(1, finished=[forward(n) for n in range(4)])
    kept = changed(one.book, finished=one.book.finished.delete(0).delete(1))
    book = lsp_of(None, changed(one, book=kept)).book
    assert {n: one.amount_msat for n, one in book.finished.items()} == {3: 3, 2: 2}


def test_the_attempt_that_is_open_is_the_one_whose_ceremony_is_under_way() -> None:
    state, client, _ = live()
    assert client in {one.node_id for one in state.book.links.values()}
    (one,) = state.all_factories()
    assert state.attempts == {one.attempt.attempt_id: one.attempt}
    assert state.open_attempt is None
    begun = changed(state.house, under_way=one.attempt.attempt_id)
    assert replace(state, house=begun).open_attempt == one.attempt
    assert [*state.with_factory(new_factory(LSP, 9)).attempts] == [*state.attempts]


def test_what_the_chain_has_of_any_factory_is_seen() -> None:
    coins = [OutPoint(txid=txid_of(n), vout=0) for n in (1, 2)]
    factories = []
    for number, coin in enumerate(coins, start=1):
        tx = spend_of(coin)
        chain = KnownChain(
            confirmed=Shelf({tx.txid: 10 + number}),
            spends={coin: tx},
            refused={txid_of(50 + number): ("low fee",)},
        )
        factories.append(changed(new_factory(LSP, number), chain=chain))
    seen = lsp_of(None, *factories).chain
    assert set(seen.spends) == set(coins)
    assert seen.refused == {txid_of(51): ("low fee",), txid_of(52): ("low fee",)}
    assert sorted(seen.confirmed.values()) == [11, 12]


# Mail


def block(height: int) -> BlockRef:
    return BlockRef(height=height, block_hash=txid_of(height))


def found(height: int) -> mail.Found:
    return mail.Found(height=height, block_hash=bytes(txid_of(height)), txs=())


def test_a_factory_stands_at_the_newest_block_of_which_it_heard_everything() -> None:
    scan = Scan(recent=tuple(block(n) for n in (7, 8, 9)))
    assert tip_of(new_factory(LSP, 1), scan) == (block(9),)
    scan = changed(scan, post=Post().with_sent((Letter("factory:1", found(8)),)))
    one = new_factory(LSP, 1)
    assert tip_of(one, scan) == (block(7),)
    assert tip_of(new_factory(LSP, 2), scan) == (block(9),), "that is nothing of its"
    heard = changed(one, post=one.post.with_taken(CHAIN, 1))
    assert tip_of(heard, scan) == (block(9),)
    state = replace(lsp_of(None, one), scan=scan)
    assert state.factory(1).chain.height == 7
    assert state.with_factory(heard).factory(1).chain.height == 9


def test_a_letter_is_pending_until_its_receiver_took_it_asleep_or_awake() -> None:
    told = (Letter("factory:1", found(8)), Letter("factory:2", found(9)), Letter(HOUSE, found(9)))
    scan = Scan(post=Post().with_sent(told))
    state = replace(lsp_of(new_house(LSP), factory(1), _2=asleep(taken=Map())), scan=scan)
    assert [(one.receiver, one.number) for one in pending(state)] == [
        ("factory:1", 1),
        ("factory:2", 1),
        (HOUSE, 1),
    ]
    one = state.factories[1]
    heard = state.with_factory(changed(one, post=one.post.with_taken(CHAIN, 1)))
    assert [one.receiver for one in pending(heard)] == ["factory:2", HOUSE]
    slept = lsp_of(new_house(LSP), heard.factories[1], _2=asleep(taken=Map({CHAIN: 1})))
    slept = replace(slept, scan=scan)
    assert [one.receiver for one in pending(slept)] == [HOUSE]
    assert [*settled(slept).scan.post.outbox] == [HOUSE]
    assert settled(settled(slept)) == settled(slept)
    with_all = [taken_by(slept, stream, sender=CHAIN) for stream in ("factory:1", "factory:2")]
    assert with_all == [1, 1]
    assert [taken_by(slept, stream, sender=CHAIN) for stream in (HOUSE, "factory:9", "?")] == [
        0
    ] * 3


def test_what_is_in_any_stream_s_outbox_is_forgotten_once_it_was_taken() -> None:
    one = factory(1)
    told = changed(one, post=one.post.with_sent((Letter(HOUSE, found(1)), Letter(CHAIN, found(2)))))
    house = house_of()
    house = changed(house, post=house.post.with_taken("factory:1", 1))
    state = settled(lsp_of(house, told))
    assert [*state.factories[1].post.outbox] == [CHAIN]
    assert settled(state) is state
    asking = changed(house, post=house.post.with_sent((Letter("factory:1", found(3)),)))
    heard = changed(told, post=told.post.with_taken(HOUSE, 1))
    assert not settled(lsp_of(asking, heard)).house.post.outbox


def test_what_is_no_stream_of_an_lsp_takes_no_record() -> None:
    with pytest.raises(AssertionError, match="client is no stream of an LSP"):
        apply(new_lsp(LSP), "client", r.Started())
    assert apply(new_lsp(LSP), "factory:4", r.Started()).factories[4].number == 4
