"""The LSP's API for payments: paying a client, what went through, and every channel's money."""

import asyncio
from collections.abc import Iterator
from heapq import nlargest
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from cromford.answers.channels import ChannelAmounts, LspBalances, LspChannel
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.payment_limits import WAIT_SECONDS
from cromford.daemon.api.payments import (
    Means,
    Payer,
    PaymentsParams,
    checked_limit,
    pay,
    pay_request,
    read_invoice,
)
from cromford.daemon.driver import Driver
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views.lsp import channels_of
from cromford.daemon.views.payments import forwards, own_payments
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.coverage import limit_in
from cromford.protocol.channels.lsp import is_usable
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


PARAMS: Final[Params] = {"pay": _LspPayParams, "payments": PaymentsParams}


class LspPayments:
    """The methods `pay`, `payments` and `balances`."""

    def __init__(self, owner: PayingLsp) -> None:
        self._owner = owner

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "pay": self._pay,
            "payments": self._payments,
            "balances": without_params(self._balances),
        }

    def totals(self) -> ChannelAmounts:
        """Return what all channels hold together."""
        state, facts = self._owner.state, self._owner.facts
        loaded = (
            channel
            for factory in state.all_factories()
            for channel in channels_of(state.house, factory, facts)
        )
        return channel_views.totals([*loaded, channel_views.amounts_of(state.resting.totals)])

    async def _pay(self, params: dict[str, Any]) -> object:
        wanted = read_params(params, _LspPayParams)
        invoice = read_invoice(wanted.invoice, self._owner.network)
        asked = pay_request(invoice, wanted.invoice)
        known = self._owner.state.house.payments.get(asked.payment_hash)
        if known is not None:
            self._owner.driver.wake(known.to)
        return await pay(
            self._owner,
            invoice,
            asked,
            means=lambda: self._means(asked),
            wait_seconds=wanted.wait_seconds,
            dry_run=wanted.dry_run,
        )

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

    async def _payments(self, params: dict[str, Any]) -> object:
        limit = checked_limit(read_params(params, PaymentsParams))
        self._wake_newest(limit)
        book = self._owner.book
        return {
            "payments": own_payments(book, limit=limit, height=self._owner.height),
            "forwards": forwards(book, limit=limit),
            "n_forwards": book.n_finished + len(book.forwards) + len(book.held),
            "earned_msat": book.earned_msat,
        }

    def _wake_newest(self, limit: int) -> None:
        """Take into memory what is told of: our newest payments, and the newest that forwarded."""
        payments = self._owner.state.house.payments.values()
        newest = nlargest(min(limit, WAKES_MAX), payments, key=lambda payment: payment.number)
        for payment in newest:
            self._owner.driver.wake(payment.to)
        state = self._owner.state
        forwarded = (number for number in self._newest_asleep() if state.asleep[number].n_finished)
        for number in [*islice(forwarded, min(limit, WAKES_MAX))]:
            self._owner.driver.wake(factory_stream(number))

    def _newest_asleep(self) -> Iterator[int]:
        """Yield the factories that sleep, newest first, as long as one of them forwarded."""
        state = self._owner.state
        n_left = state.resting.n_finished
        for number in range(state.house.next_attempt - 1, -1, -1):
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
