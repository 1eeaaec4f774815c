"""The LSP's API for payments: paying a client, what went through, and every channel's money."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from cromford.answers.channels import LspBalances, LspChannel
from cromford.answers.payments import (
    ForwardsAnswer,
    FoundForwards,
    FoundPayments,
    LspPaymentsAnswer,
    PaymentAnswer,
)
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.paging import (
    PageParams,
    begun_at,
    check_choice,
    check_page,
    cursor_of,
    hash_of,
    place_of,
)
from cromford.daemon.api.payment_limits import LIMIT_MAX, WAIT_SECONDS
from cromford.daemon.api.payments import (
    PAYMENT_STATUSES,
    HashParams,
    KnownPayment,
    Means,
    Payer,
    PaymentsParams,
    check_same,
    check_wanted,
    nothing_found,
    pay,
    pay_request,
    read_invoice,
)
from cromford.daemon.driver import Driver
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views.lsp import channels_of
from cromford.daemon.views.pages import LOOKED_AT_MAX, Spot, page_of
from cromford.daemon.views.payments import (
    forwards,
    in_flight,
    ordered_spots,
    show_forward,
    show_ordered,
    show_own,
    show_payment,
)
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.coverage import limit_in
from cromford.protocol.channels.lsp import is_usable
from cromford.protocol.journal.book import Book, Forward
from cromford.protocol.journal.entries import HousePayment
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import factory_stream

WAKES_MAX: Final = 16  # Factories that one answer takes into memory.


class PayingLsp(Payer, Protocol):
    """What an LSP's daemon offers these methods."""

    driver: Driver[LspState]

    @property
    def state(self) -> LspState:
        """The LSP's state now."""


class _LspPayParams(msgspec.Struct, forbid_unknown_fields=True):
    invoice: str
    wait_seconds: float = WAIT_SECONDS
    dry_run: bool = False
    label: str = ""


class _ForwardsParams(PageParams, forbid_unknown_fields=True, kw_only=True):
    status: str = ""  # `paid` or `failed`: how they ended; empty for all


PAYMENTS: Final = "p"  # Of which list a cursor is.
FORWARDS: Final = "f"
ENDS: Final = ("paid", "failed", "unsettled")
_Ended = tuple[Book, Forward]  # With the book that has its channels.


PARAMS: Final[Params] = {
    "pay": _LspPayParams,
    "payments": PaymentsParams,
    "payment_show": HashParams,
    "forwards": _ForwardsParams,
    "forward_show": HashParams,
}


def _kept(payment: HousePayment) -> KnownPayment:
    return KnownPayment(
        status=payment.status,
        payee=payment.asked.payee,
        amount_msat=payment.asked.amount_msat,
        fee_msat=0,
        factory_id="",
        label=payment.label,
    )


class LspPayments:
    """The methods `pay`, `payments`, `forwards`, `balances`, and two that look one up."""

    def __init__(self, owner: PayingLsp) -> None:
        self._owner = owner

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "pay": self._pay,
            "payments": self._payments,
            "payment_show": self._payment_show,
            "forwards": self._forwards,
            "forward_show": self._forward_show,
            "balances": without_params(self._balances),
        }

    async def _pay(self, params: dict[str, Any]) -> PaymentAnswer:
        wanted = read_params(params, _LspPayParams)
        invoice = read_invoice(wanted.invoice, self._owner.network)
        asked = pay_request(invoice, wanted.invoice, label=wanted.label)
        known = self._owner.state.house.payments.get(asked.payment_hash)
        if known is not None:
            self._owner.driver.wake(known.to)
            if known.status != "failed":
                check_same(asked, _kept(known))
        return await pay(
            self._owner,
            invoice,
            asked,
            means=lambda: self._means(asked),
            shown=lambda: self._outcome(asked.payment_hash),
            wait_seconds=wanted.wait_seconds,
            dry_run=wanted.dry_run,
        )

    def _outcome(self, payment_hash: bytes) -> PaymentAnswer | None:
        """Return how a payment stands; None while a factory that cannot be asked may know more."""
        house, book = self._owner.state.house, self._owner.book
        ordered = house.payments[payment_hash]
        if ordered.refused is not None:
            return show_ordered(house, ordered)
        started = book.payments.get(payment_hash)
        return None if started is None else show_payment(book, started, height=self._owner.height)

    def _means(self, asked: ev.PayRequested) -> Means:
        state = self._owner.state
        factories = (state.factory(entry.number) for entry in state.house.entries_of(asked.payee))
        sendable = [
            balance_now(link, factory.chain, covered_sat=limit_in(factory, link)).spendable_msat
            for factory in factories
            for link in factory.book.links_with(asked.payee)
            if link.is_open and is_usable(factory, link)
        ]
        return Means(cost_msat=asked.amount_msat, sendable_msat=max(sendable, default=0))

    async def _payments(self, params: dict[str, Any]) -> LspPaymentsAnswer:
        wanted = read_params(params, PaymentsParams)
        check_wanted(wanted, directions=("out",), statuses=PAYMENT_STATUSES)
        events, house = self._owner.events, self._owner.state.house
        place = begun_at(events, PAYMENTS, wanted.after, n_begun=house.n_payments)

        def wants(one: HousePayment) -> bool:
            return wanted.wants(
                direction="out", status=one.status, created_at=one.created_at, label=one.label
            )

        page = page_of(ordered_spots(house, place), limit=wanted.limit, wants=wants)
        self._wake(one.to for one in page.entries)
        self._wake_newest(wanted.limit)
        book = self._owner.book
        answer: LspPaymentsAnswer = {
            "payments": [self._shown(one) for one in page.entries],
            "next": cursor_of(events, PAYMENTS, page.following),
            "forwards": forwards(book, limit=wanted.limit),
            "n_forwards": book.n_finished + len(book.forwards) + len(book.held),
            "earned_msat": book.earned_msat,
        }
        return answer

    def _shown(self, one: HousePayment) -> PaymentAnswer:
        """Return what the operator paid; of a factory that sleeps, as the house knows it."""
        state = self._owner.state
        started = self._owner.book.payments.get(one.asked.payment_hash)
        if started is None or one.refused is not None:
            return show_ordered(state.house, one) | {"number": one.number}
        return show_own(self._owner.book, started, height=self._owner.height)

    async def _payment_show(self, params: dict[str, Any]) -> FoundPayments:
        payment_hash = hash_of(read_params(params, HashParams).payment_hash)
        one = self._owner.state.house.payments.get(payment_hash)
        if one is None:
            raise nothing_found("payment", payment_hash)
        self._wake([one.to])
        found: FoundPayments = {"payments": [self._shown(one)]}
        return found

    async def _forwards(self, params: dict[str, Any]) -> ForwardsAnswer:
        wanted = read_params(params, _ForwardsParams)
        check_page(wanted)
        check_choice("status", wanted.status, ENDS)
        events, begin = self._owner.events, place_of(self._owner.events, FORWARDS, wanted.after)

        def wants(one: _Ended) -> bool:
            return wanted.status in {"", one[1].status} and wanted.has_time(one[1].created_at)

        page = page_of(self._ended(begin), limit=wanted.limit, wants=wants)
        self._owner.driver.forget_looked_at()
        is_first = begin is None and not wanted.status
        answer: ForwardsAnswer = {
            "forwards": [show_forward(book, forward) for book, forward in page.entries],
            "in_flight": in_flight(self._owner.book, limit=LIMIT_MAX) if is_first else [],
            "next": cursor_of(events, FORWARDS, page.following),
        }
        return answer

    def _ended(self, begin: tuple[int, int] | None) -> Iterator[Spot[tuple[int, int], _Ended]]:
        """Yield what went through, the newest factory first, and in each the newest first.

        Args:
            begin: A factory's number and one, and a place in it: only lower places of it are left,
                and older factories. None for all.
        """
        house = self._owner.state.house
        newest = house.next_attempt
        if begin is not None:
            yield from self._ended_in(begin[0] - 1, begin[1])
            newest = min(newest, begin[0] - 1)
        for number in house.numbers_below(newest):
            yield from self._ended_in(number, None)

    def _ended_in(self, number: int, below: int | None) -> Iterator[Spot[tuple[int, int], _Ended]]:
        state, cost = self._owner.state, 1
        asleep = None if number in state.factories else state.asleep.get(number)
        if asleep is not None:
            cost = LOOKED_AT_MAX // WAKES_MAX if asleep.n_finished and below != 0 else 1
        has_any = number in state.factories or (asleep is not None and asleep.n_finished)
        if has_any and below != 0:
            book = state.factory(number).book
            top = book.n_finished if below is None else min(below, book.n_finished)
            for place in range(top - 1, book.n_finished - len(book.finished) - 1, -1):
                yield Spot((number + 1, place), (book, book.finished[place]))
        yield Spot((number + 1, 0), None, cost)

    async def _forward_show(self, params: dict[str, Any]) -> FoundForwards:
        payment_hash = hash_of(read_params(params, HashParams).payment_hash)
        book = self._owner.book
        shown = [
            one
            for one in in_flight(book, limit=len(book.held) + len(book.forwards))
            if one["payment_hash"] == payment_hash.hex()
        ]
        house = self._owner.state.house
        for number in house.numbers_below(house.next_attempt):
            shown += [
                show_forward(*spot.entry)
                for spot in self._ended_in(number, None)
                if spot.entry is not None and spot.entry[1].payment_hash == payment_hash
            ]
            self._owner.driver.forget_looked_at()
            await asyncio.sleep(0)
        if not shown:
            raise nothing_found("forward", payment_hash)
        found: FoundForwards = {"forwards": shown}
        return found

    def _wake(self, streams: Iterable[str]) -> None:
        """Take factories into memory, as many as one answer may."""
        for stream in islice(dict.fromkeys(streams), WAKES_MAX):
            self._owner.driver.wake(stream)

    def _wake_newest(self, limit: int) -> None:
        """Take into memory the newest factories that forwarded."""
        state = self._owner.state
        forwarded = (number for number in self._newest_asleep() if state.asleep[number].n_finished)
        for number in [*islice(forwarded, min(limit, WAKES_MAX))]:
            self._owner.driver.wake(factory_stream(number))

    def _newest_asleep(self) -> Iterator[int]:
        """Yield the factories that sleep, newest first, as long as one of them forwarded."""
        state = self._owner.state
        n_left = state.resting.n_finished
        for number in state.house.numbers_below(state.house.next_attempt):
            if not n_left:
                return
            asleep = state.asleep.get(number)
            if asleep is not None:
                n_left -= asleep.n_finished
                yield number

    async def _balances(self) -> LspBalances:
        channels = await self._channels()
        return {"channels": channels, "total": channel_views.totals(channels)}

    async def _channels(self) -> list[LspChannel]:
        """Return every channel that is not on chain yet, by factory and client, oldest first.

        Factories that sleep are read one by one, and not kept in memory for it.
        """
        found: list[LspChannel] = []
        for entry in self._owner.state.house.factories():
            state = self._owner.state
            if entry.number in state.asleep:
                await asyncio.sleep(0)
            if entry.number in state.asleep or entry.number in state.factories:
                factory = state.factory(entry.number)
                found += channels_of(state.house, factory, self._owner.facts)
                self._owner.driver.forget_looked_at()
        return found
