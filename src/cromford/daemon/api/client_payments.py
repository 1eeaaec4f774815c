"""The client's API for payments: invoices, paying, what was paid, and what can be."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from cromford.answers.channels import ChannelStand, OwnBalance, OwnChannel, OwnTotal
from cromford.answers.payments import FoundPayments, PaymentAnswer, PaymentsAnswer
from cromford.crypto.keys import sha256
from cromford.daemon.api.factory_id import find_factory
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.paging import begun_at, check_choice, cursor_of, hash_of
from cromford.daemon.api.payment_limits import (
    ANNOUNCED_HOLD_SECONDS_MAX,
    ANNOUNCEMENT_SECONDS,
    EXTERNAL_ID_SIZE_MAX,
    INVOICE_EXPIRY_SECONDS,
    WAIT_SECONDS,
)
from cromford.daemon.api.payments import (
    INVOICE_STATUSES,
    PAYMENT_STATUSES,
    HashParams,
    KnownPayment,
    Means,
    Payer,
    PaymentsParams,
    check_same,
    check_wanted,
    check_words,
    nothing_found,
    pay,
    pay_request,
    read_invoice,
    wait_until,
)
from cromford.daemon.event_log import Called
from cromford.daemon.metrics import Sample
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views.client import standing_of
from cromford.daemon.views.market import liquidity_of
from cromford.daemon.views.pages import Spot, page_of
from cromford.daemon.views.payments import (
    direction_of,
    own_spots,
    show_invoice,
    show_own,
    show_payment,
)
from cromford.invoice.bolt11 import sign_invoice
from cromford.invoice.invoice import (
    EXPIRY_SECONDS_MAX,
    UINT16_MAX,
    UINT32_MAX,
    InvalidInvoice,
    Invoice,
    RouteHint,
)
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.client import usable_links, why_unusable
from cromford.protocol.channels.coverage import limit_in
from cromford.protocol.channels.forwarding import forwarding_fee_msat
from cromford.protocol.channels.htlc_rules import (
    forward_delta_blocks,
    min_final_cltv_expiry_delta,
)
from cromford.protocol.exiting.channel import has_lost_its_place
from cromford.protocol.exiting.client import is_over, preimages_of
from cromford.protocol.exiting.stake import may_be_worth_an_exit
from cromford.protocol.journal.book import OwnInvoice, Payment
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.numbers import ListPlace

SECRET_SIZE: Final = 32  # A preimage, and a payment secret (BOLT 11).


class PayingClient(Payer, Protocol):
    """What a client's daemon offers these methods."""

    @property
    def state(self) -> ClientState:
        """The client's state now."""


class _InvoiceParams(msgspec.Struct, forbid_unknown_fields=True):
    amount_msat: int
    description: str = ""
    expiry_seconds: int = INVOICE_EXPIRY_SECONDS
    hold_seconds: int = 0
    label: str = ""
    external_id: str = ""


class _ClientPayParams(msgspec.Struct, forbid_unknown_fields=True):
    invoice: str
    fee_max_msat: int | None = None  # None: what the policy allows
    factory_id: str | None = None  # None: any
    wait_seconds: float = WAIT_SECONDS
    dry_run: bool = False
    label: str = ""


class _OwnParams(PaymentsParams, forbid_unknown_fields=True, kw_only=True):
    external_id: str = ""  # of the one invoice that has it; empty for all


PAYMENTS: Final = "p"  # Of which list a cursor is.


PARAMS: Final[Params] = {
    "invoice": _InvoiceParams,
    "pay": _ClientPayParams,
    "payments": _OwnParams,
    "invoices": _OwnParams,
    "payment_show": HashParams,
    "invoice_show": HashParams,
}


class ClientPayments:
    """The methods `invoice`, `pay`, `payments`, `invoices`, `balance`, and two that look one up.

    Args:
        owner: The daemon.
        sign_node: The signer's, for invoices.
    """

    def __init__(self, owner: PayingClient, sign_node: Callable[[bytes], bytes]) -> None:
        self._owner = owner
        self._sign_node = sign_node

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "invoice": self._invoice,
            "pay": self._pay,
            "payments": self._payments,
            "invoices": self._invoices,
            "payment_show": self._payment_show,
            "invoice_show": self._invoice_show,
            "balance": without_params(self._balance),
        }

    def called(self, payment_hash: bytes) -> Called | None:
        """Return what the operator calls an invoice, if it is one; in any thread."""
        invoice = self._owner.book.invoices.get(payment_hash)
        return None if invoice is None else Called(invoice.label, invoice.external_id)

    def samples(self) -> Iterator[Sample]:
        """Yield for Prometheus what all channels hold together, and how many are open."""
        channels = self._channels()
        n_open = sum(one["status"] == "open" for one in channels)
        return channel_views.channel_samples(n_open, channel_views.totals(channels))

    def stands(self) -> list[ChannelStand]:
        """Return how each channel that is not over stands: what it holds, what is for sale."""
        return [
            {
                "factory_id": channel["factory_id"],
                "status": channel["status"],
                "capacity_sat": channel["capacity_sat"],
                "receivable_msat": channel["receivable_msat"],
                "liquidity": channel["liquidity"],
            }
            for channel in self._channels()
        ]

    async def _invoice(self, params: dict[str, Any]) -> PaymentAnswer:
        wanted = read_params(params, _InvoiceParams)
        if not 1 <= wanted.expiry_seconds <= EXPIRY_SECONDS_MAX:
            raise InvalidParam(
                "expiry_seconds",
                f"expected 1..{EXPIRY_SECONDS_MAX}, received {wanted.expiry_seconds}",
            )
        most = min(wanted.expiry_seconds, ANNOUNCED_HOLD_SECONDS_MAX)
        if not 0 <= wanted.hold_seconds <= most:
            raise InvalidParam(
                "hold_seconds",
                f"expected 0..{most} and at most the expiry ({wanted.expiry_seconds}), "
                f"received {wanted.hold_seconds}",
            )
        check_words("label", wanted.label)
        check_words("external_id", wanted.external_id, size_max=EXTERNAL_ID_SIZE_MAX)
        known = self._owner.book.external_ids.get(wanted.external_id)
        if known is not None:
            self._check_same(wanted, self._owner.book.invoices[known])
            return self._with_receivable(known)
        preimage, payment_secret = (secrets.token_bytes(SECRET_SIZE) for _ in range(2))
        try:
            invoice = self._new_invoice(wanted, sha256(preimage), payment_secret)
            text = sign_invoice(invoice, self._sign_node)
        except InvalidInvoice as error:
            said = f"expected {error.expected}, received {error.received}"
            raise InvalidParam(error.field, said) from error
        self._owner.request(
            ev.InvoiceRequested(
                preimage=preimage,
                payment_secret=payment_secret,
                amount_msat=invoice.amount_msat,
                description=invoice.description,
                expires_at=invoice.expires_at,
                expiry_seconds=invoice.expiry_seconds,
                text=text,
                hold_seconds=wanted.hold_seconds,
                label=wanted.label,
                external_id=wanted.external_id,
            )
        )
        if wanted.hold_seconds:
            await wait_until(
                self._owner.events,
                lambda: self._owner.book.invoices[invoice.payment_hash].agreed_seconds is not None,
                seconds=ANNOUNCEMENT_SECONDS,
            )
        return self._with_receivable(invoice.payment_hash)

    def _with_receivable(self, payment_hash: bytes) -> PaymentAnswer:
        state = self._owner.state
        receivable = [
            balance_now(link, state.chain, covered_sat=limit_in(state, link)).receivable_msat
            for link in self._usable()
        ]
        shown = show_invoice(self._owner.book, self._owner.book.invoices[payment_hash])
        # One payment comes through one channel.
        return shown | {"receivable_msat": max(receivable, default=0)}

    def _check_same(self, wanted: _InvoiceParams, known: OwnInvoice) -> None:
        """Check that an invoice is asked for again, and not another by the same id.

        Raises:
            ApiFailure: If something else is asked for; it names the first field that differs.
        """
        asked = msgspec.structs.asdict(wanted)
        for field in ("amount_msat", "description", "label", "expiry_seconds", "hold_seconds"):
            if asked[field] != getattr(known, field):
                raise ApiFailure(
                    "external_id_taken",
                    f"external_id: {wanted.external_id!r} is that of another invoice: {field}: "
                    f"expected {getattr(known, field)!r}, received {asked[field]!r}",
                    remediation="Give each invoice an id of its own; `invoices` shows those taken.",
                )

    def _new_invoice(
        self, wanted: _InvoiceParams, payment_hash: bytes, payment_secret: bytes
    ) -> Invoice:
        state, usable = self._owner.state, self._usable()
        config = state.config
        if not usable:
            refused = why_unusable(state, purpose="receive")
            raise ApiFailure(
                refused.code,
                str(refused),
                retryable=True,
                remediation="`factories` shows how far the channel's factory is.",
            )
        return Invoice(
            network=config.network,
            payee=config.node_id,
            amount_msat=wanted.amount_msat,
            payment_hash=payment_hash,
            payment_secret=payment_secret,
            description=wanted.description,
            created_at=int(time.time()),
            expiry_seconds=wanted.expiry_seconds,
            min_final_cltv_expiry_delta=max(
                min_final_cltv_expiry_delta(link, state.chain, hold_seconds=wanted.hold_seconds)
                for link in usable
            ),
            route_hint=self._route_hint(usable),
        )

    def _route_hint(self, usable: list[Link]) -> RouteHint:
        lobby = self._owner.state.lobby
        if lobby is None:
            raise ApiFailure(
                "lsp_unreachable",
                "not connected to the LSP, whose price belongs in an invoice",
                retryable=True,
                remediation="The daemon connects again by itself; `status` shows when it has.",
            )
        chain = self._owner.state.chain
        longest_blocks = max(forward_delta_blocks(link, chain) for link in usable)
        return RouteHint(
            lsp_node_id=self._owner.state.config.lsp_node_id,
            fee_base_msat=min(lobby.fee_base_msat, UINT32_MAX),
            fee_proportional_millionths=min(lobby.fee_proportional_millionths, UINT32_MAX),
            cltv_expiry_delta=min(longest_blocks, UINT16_MAX),
        )

    async def _pay(self, params: dict[str, Any]) -> PaymentAnswer:
        wanted = read_params(params, _ClientPayParams)
        invoice = read_invoice(wanted.invoice, self._owner.network)
        attempts = self._owner.state.attempts
        asked = pay_request(
            invoice,
            wanted.invoice,
            fee_max_msat=wanted.fee_max_msat,
            attempt_id=(
                None if wanted.factory_id is None else find_factory(attempts, wanted.factory_id)
            ),
            label=wanted.label,
        )
        self._check_reach(invoice)
        self._check_same_payment(asked)
        return await pay(
            self._owner,
            invoice,
            asked,
            means=lambda: self._means(asked),
            shown=lambda: self._shown(asked.payment_hash),
            wait_seconds=wanted.wait_seconds,
            dry_run=wanted.dry_run,
        )

    def _shown(self, payment_hash: bytes) -> PaymentAnswer:
        book = self._owner.book
        return show_payment(book, book.payments[payment_hash], height=self._owner.height)

    def _check_same_payment(self, asked: ev.PayRequested) -> None:
        """Refuse another payment with the hash of one that is not made again.

        Raises:
            ApiFailure: If what is asked for differs from what is kept; it names the field.
        """
        book = self._owner.book
        known = book.payments.get(asked.payment_hash)
        if known is None or known.status == "failed":
            return
        kept = KnownPayment(
            status=known.status,
            payee=known.payee,
            amount_msat=known.amount_msat,
            fee_msat=known.fee_msat,
            factory_id=book.links[known.htlc[0]].attempt_id.hex(),
            label=known.label,
        )
        check_same(asked, kept)

    def _check_reach(self, invoice: Invoice) -> None:
        """Refuse what our LSP cannot deliver, before an HTLC is locked in for it.

        Raises:
            ApiFailure: If the invoice names another node as the way to its payee.
        """
        hint, lsp_node_id = invoice.route_hint, self._owner.state.config.lsp_node_id
        if hint is not None and hint.lsp_node_id != lsp_node_id:
            raise ApiFailure(
                "payee_unreachable",
                f"route_hint: expected our LSP {lsp_node_id.hex()}, "
                f"received {hint.lsp_node_id.hex()}",
                remediation="Payments reach the clients of one's own LSP only.",
            )

    def _means(self, asked: ev.PayRequested) -> Means:
        state, fee_msat = self._owner.state, 0
        if state.lobby is not None and asked.payee != state.config.lsp_node_id:
            fee_msat = forwarding_fee_msat(
                asked.amount_msat,
                fee_base_msat=state.lobby.fee_base_msat,
                fee_proportional_millionths=state.lobby.fee_proportional_millionths,
            )
        sendable = [
            balance_now(link, state.chain).spendable_msat
            for link in self._usable()
            if link.is_open and asked.attempt_id in {None, link.attempt_id}
        ]
        return Means(cost_msat=asked.amount_msat + fee_msat, sendable_msat=max(sendable, default=0))

    async def _payments(self, params: dict[str, Any]) -> PaymentsAnswer:
        wanted = read_params(params, _OwnParams)
        check_wanted(wanted)
        if wanted.direction:
            is_asked_for = wanted.direction == "in"
            stands = INVOICE_STATUSES if is_asked_for else PAYMENT_STATUSES
            check_choice("status", wanted.status, stands)
        return self._page(wanted)

    async def _invoices(self, params: dict[str, Any]) -> PaymentsAnswer:
        wanted = read_params(params, _OwnParams)
        check_wanted(wanted, directions=("in",), statuses=INVOICE_STATUSES)
        return self._page(msgspec.structs.replace(wanted, direction="in"))

    def _page(self, wanted: _OwnParams) -> PaymentsAnswer:
        book, events = self._owner.book, self._owner.events
        place = begun_at(events, PAYMENTS, wanted.after, n_begun=book.n_begun)

        def wants(one: Payment | OwnInvoice) -> bool:
            return wanted.wants(
                direction=direction_of(book, one),
                status=one.status,
                created_at=one.created_at,
                label=one.label,
            )

        spots: Iterable[Spot[ListPlace, Payment | OwnInvoice]] = own_spots(book, place)
        if wanted.external_id:
            known = book.external_ids.get(wanted.external_id)
            one = None if known is None else book.invoices[known]
            is_left = one is not None and one.number < place.below
            spots = [Spot(place, one)] if is_left else []
        page = page_of(spots, limit=wanted.limit, wants=wants)
        height = self._owner.height
        return {
            "payments": [show_own(book, one, height=height) for one in page.entries],
            "next": cursor_of(events, PAYMENTS, page.following),
        }

    async def _payment_show(self, params: dict[str, Any]) -> FoundPayments:
        payment_hash = hash_of(read_params(params, HashParams).payment_hash)
        book, height = self._owner.book, self._owner.height
        payment, invoice = book.payments.get(payment_hash), book.invoices.get(payment_hash)
        found: list[Payment | OwnInvoice] = [] if payment is None else [payment]
        if invoice is not None and not (invoice.is_own_move and found):
            found.append(invoice)
        if not found:
            raise nothing_found("payment", payment_hash)
        shown: FoundPayments = {"payments": [show_own(book, one, height=height) for one in found]}
        return shown

    async def _invoice_show(self, params: dict[str, Any]) -> PaymentAnswer:
        payment_hash = hash_of(read_params(params, HashParams).payment_hash)
        invoice = self._owner.book.invoices.get(payment_hash)
        if invoice is None or invoice.is_own_move:
            raise nothing_found("invoice", payment_hash)
        return show_invoice(self._owner.book, invoice)

    async def _balance(self) -> OwnBalance:
        channels = self._channels()
        exits = [channel["exit_sat"] for channel in channels if channel["exit_sat"] is not None]
        total: OwnTotal = {**channel_views.totals(channels), "exit_sat": sum(exits)}
        return {"channels": channels, "total": total}

    def _channels(self) -> list[OwnChannel]:
        """Return every channel that is not over, oldest first.

        Of one on chain `exit_plan` tells; of one that went with its factory, or its funding, or was
        closed, nothing is left.
        """
        state = self._owner.state
        ready = [attempt for attempt in state.attempts.values() if attempt.ready_sent]
        links = [(attempt, state.book.links[attempt.setting.channel_id]) for attempt in ready]
        return [
            self._channel(link)
            for attempt, link in links
            if not channel_views.is_on_chain(link, state.chain)
            and not is_over(state, attempt)
            and not has_lost_its_place(attempt, state.chain)
        ]

    def _channel(self, link: Link) -> OwnChannel:
        state = self._owner.state
        height, terms = state.chain.height, state.attempts[link.attempt_id].terms
        facts = self._owner.facts
        standing = standing_of(state, link, facts)
        return {
            **channel_views.show_channel(
                link, standing, state.chain, covered_sat=limit_in(state, link)
            ),
            "exit_sat": channel_views.exit_sat(
                link,
                preimages_of(state),
                chain=state.chain,
                fees=facts.fees,
            ),
            # By the rule of the daemon itself, which leaves at the deadline if it is.
            "is_worth_an_exit": may_be_worth_an_exit(state.book, link, facts.fees),
            "exit_blocks": link.remaining(state.chain).exit_blocks,
            "blocks_to_expiry": terms.expiry_height - height,
            "liquidity": liquidity_of(state, state.attempts[link.attempt_id]),
        }

    def _usable(self) -> list[Link]:
        return usable_links(self._owner.state)
