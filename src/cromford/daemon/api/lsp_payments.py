"""The LSP's API for payments: paying a client, what went through, and every channel's money."""

from typing import Any, Protocol

import msgspec

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
from cromford.daemon.api.rpc_server import Handler, read_params, without_params
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views.lsp import standing_of
from cromford.daemon.views.payments import forwards, own_payments
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.lsp import is_usable
from cromford.protocol.exiting.lsp import is_swept
from cromford.protocol.journal.lsp_state import LspState

Document = dict[str, Any]


class PayingLsp(Payer, Protocol):
    """What an LSP's daemon offers these methods."""

    @property
    def state(self) -> LspState:
        """The LSP's state now."""


class _LspPayParams(msgspec.Struct, forbid_unknown_fields=True):
    invoice: str
    wait_seconds: float = WAIT_SECONDS
    dry_run: bool = False


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

    def totals(self) -> Document:
        """Return what all channels hold together."""
        return channel_views.totals(self._channels())

    async def _pay(self, params: dict[str, Any]) -> object:
        wanted = read_params(params, _LspPayParams)
        invoice = read_invoice(wanted.invoice, self._owner.network)
        asked = pay_request(invoice, wanted.invoice)
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
        sendable = [
            balance_of(link).spendable_msat
            for link in state.book.links_with(asked.payee)
            if link.is_open and is_usable(state, link)
        ]
        return Means(cost_msat=asked.amount_msat, sendable_msat=max(sendable, default=0))

    async def _payments(self, params: dict[str, Any]) -> object:
        limit = checked_limit(read_params(params, PaymentsParams))
        book = self._owner.book
        return {
            "payments": own_payments(book, limit=limit, height=self._owner.height),
            "forwards": forwards(book, limit=limit),
            "n_forwards": book.n_finished + len(book.forwards) + len(book.held),
            "earned_msat": book.earned_msat,
        }

    async def _balances(self) -> object:
        channels = self._channels()
        return {"channels": channels, "total": channel_views.totals(channels)}

    def _channels(self) -> list[Document]:
        """Return every channel that is not on chain yet, by factory and client, oldest first."""
        state, facts = self._owner.state, self._owner.facts
        age = {attempt_id: number for number, attempt_id in enumerate(state.attempts)}
        links = sorted(
            state.book.links.values(), key=lambda link: (age[link.attempt_id], link.client)
        )
        return [
            {
                "node_id": link.node_id.hex(),
                "client": link.client,
                "connected": link.node_id in state.connected,
                **channel_views.show_channel(link, standing_of(state, link, facts), state.chain),
            }
            for link in links
            if not channel_views.is_on_chain(link, state.chain)
            and not is_swept(state, state.attempts[link.attempt_id], link.client)
        ]
