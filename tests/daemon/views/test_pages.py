"""A page costs what it shows, and is whole whatever it is asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from immutables import Map

from cromford.daemon.api.failures import InvalidParam
from cromford.daemon.api.paging import PageParams, check_page
from cromford.daemon.views.pages import LOOKED_AT_MAX, ListPage, Spot, page_of
from cromford.daemon.views.payments import own_spots
from cromford.protocol.journal.book import Book, OwnInvoice
from cromford.protocol.journal.numbers import ListPlace, Numbers

N_PAYMENTS = 100_000


class Counting(Mapping[Any, Any]):
    """A map that counts how often something is read of it, and is never gone through."""

    def __init__(self, held: Map[Any, Any]) -> None:
        self._held = held
        self.n_reads = 0

    def __getitem__(self, key: Any) -> Any:
        self.n_reads += 1
        return self._held[key]

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("it is gone through")

    def __len__(self) -> int:
        raise AssertionError("it is counted")


def invoice(number: int) -> OwnInvoice:
    return OwnInvoice(
        payment_hash=number.to_bytes(32, "big"),
        preimage=bytes(32),
        payment_secret=bytes(32),
        amount_msat=number,
        description="",
        expires_at=0,
        text="lnbcrt1",
        number=number,
    )


def numbers_shown(page: ListPage[ListPlace, Any]) -> list[int]:
    return [one.number for one in page.entries]


def test_a_page_of_a_hundred_thousand_reads_what_it_shows() -> None:
    invoices = [invoice(number) for number in range(1, N_PAYMENTS + 1)]
    maps: list[Any] = [
        Counting(Map({one.payment_hash: one for one in invoices})),
        Counting(Map()),
        Counting(Map({one.number: one.payment_hash for one in invoices})),
    ]
    book = Book(invoices=maps[0], payments=maps[1], numbers=Numbers(hashes=maps[2]))
    page = page_of(own_spots(book, ListPlace(N_PAYMENTS, N_PAYMENTS + 1)), limit=10)
    assert numbers_shown(page) == list(range(N_PAYMENTS, N_PAYMENTS - 10, -1))
    assert page.following == ListPlace(N_PAYMENTS, N_PAYMENTS - 9)
    # One more than is shown, to know whether anything follows.
    assert [one.n_reads for one in maps] == [11, 11, 11]

    assert page.following is not None
    after = page_of(own_spots(book, page.following), limit=2, wants=lambda one: one.number % 5 == 0)
    assert numbers_shown(after) == [N_PAYMENTS - 10, N_PAYMENTS - 15]
    read = maps[0].n_reads
    nothing = page_of(own_spots(book, page.following), limit=2, wants=lambda _one: False)
    assert (nothing.entries, nothing.following) == (
        [],
        ListPlace(N_PAYMENTS, N_PAYMENTS - 9 - LOOKED_AT_MAX),
    )
    assert maps[0].n_reads - read == LOOKED_AT_MAX


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 6])
def test_pages_hold_each_entry_once_and_the_last_says_so(limit: int, n: int) -> None:
    def spots(begin: int) -> Iterator[Spot[int, int]]:
        return (Spot(place, place if place % 2 else None) for place in range(begin - 1, -1, -1))

    shown: list[int] = []
    begin: int | None = n
    n_pages = 0
    while begin is not None:
        page = page_of(spots(begin), limit=limit)
        shown += page.entries
        begin = page.following
        n_pages += 1
    assert shown == [place for place in range(n - 1, -1, -1) if place % 2]
    assert n_pages == max(1, -(-len(shown) // limit)), "no page is empty but of an empty list"


def test_what_is_dear_to_look_at_ends_a_page_sooner() -> None:
    spots: list[Spot[int, str]] = [Spot(place, None, LOOKED_AT_MAX // 4) for place in range(9)]
    assert page_of(spots, limit=5) == ListPage([], 3)


@pytest.mark.parametrize("until", [99, 100])
def test_a_time_in_which_nothing_can_be_is_refused_and_not_answered_with_nothing(
    until: int,
) -> None:
    with pytest.raises(InvalidParam, match=f"expected less than until, {until}, received 100"):
        check_page(PageParams(since=100, until=until))
    check_page(PageParams(since=100, until=101))
    check_page(PageParams(since=100))
    check_page(PageParams(until=until))
