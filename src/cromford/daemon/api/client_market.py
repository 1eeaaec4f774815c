"""The client's API for buying inbound liquidity: a quote, a purchase, and what became of it."""

import re
from typing import Any, Final, Protocol

import msgspec

from cromford import told
from cromford.answers.market import LiquidityQuote, PurchaseOutcome
from cromford.daemon.api.factory_id import find_factory
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.api.payment_limits import WAIT_SECONDS_MAX
from cromford.daemon.api.payments import wait_until
from cromford.daemon.event_log import EventLog
from cromford.daemon.views import market as views
from cromford.factory.terms import HASH_SIZE
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.advancing.finishing import CUT_SHORT
from cromford.protocol.channels.client import usable_links
from cromford.protocol.journal.client_state import ClientState
from cromford.wire import messages as m
from cromford.wire.selling import ALL_OF_IT

QUOTE_SECONDS: Final = 20.0  # Until an LSP that answers nothing is not waited for any longer.
_NAMED: Final = re.compile(r"([a-z_]+): (.*)", re.DOTALL)

_NEXT_FACTORY: Final = (
    "Your LSP has a seat for you in its next factory: `cromford client join --capacity-sat N`."
)
_OVER: Final = "another purchase ended after it, so nobody knows why"
_ON_CHAIN: Final = "`cromford client exit status` shows what the channel pays you."
_REMEDIES: Final = {
    "insufficient_balance": "Receive as much first, or let your next payment pay for it: "
    "`--from-payment`.",
    "amount_too_small": "Buy more, or `all`.",
    "no_stock": "Buy less, or `all`.",
    "no_sales_left": _NEXT_FACTORY,
    "too_late": _NEXT_FACTORY,
    "not_covered": "Buy less, or say `--beyond-coverage`: then part of what you could hold is safe "
    "only as long as the LSP, or a neighbour, publishes the newest state in time.",
    "client_away": "Ask again when everybody in your leaf is online.",
    "leaf_busy": "Ask again in a minute.",
    "payment_not_here": "Let the invoice be paid, and ask again while the payment waits; it waits "
    "longer if the invoice was made with `--hold-seconds`.",
    "price_too_high": "Allow more with `--max-price-msat`.",
    "wrong_quote": "Your LSP and you do not agree on your leaf: do not buy.",
}
_RETRYABLE: Final = frozenset(
    {
        "client_away", "insufficient_balance", "leaf_busy", "payment_not_here", "quote_expired",
        "quote_unknown", "stale", "too_many_requests",
    }
)  # fmt: skip
# What else an LSP of ours says; whatever another one says is shown as its words, not as a code.
_KNOWN: Final = (
    _RETRYABLE
    | _REMEDIES.keys()
    | {"closing", "leaf_blocked", "no_race", "not_for_sale", "not_funded", "on_chain"}
)


class BuyingClient(Protocol):
    """What a client's daemon offers these methods."""

    events: EventLog

    @property
    def state(self) -> ClientState:
        """The client's state now."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""


class _QuoteParams(msgspec.Struct, forbid_unknown_fields=True):
    amount_sat: int | None = None  # None: all there is
    factory_id: str | None = None  # None: the newest with a usable channel
    payment_hash: str | None = None


class _BuyParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str
    quote_id: str
    price_max_msat: int
    beyond_coverage: bool = False
    wait_seconds: float = 0


PARAMS: Final[Params] = {"liquidity_quote": _QuoteParams, "liquidity_buy": _BuyParams}


class ClientMarket:
    """The methods `liquidity_quote` and `liquidity_buy`."""

    def __init__(self, owner: BuyingClient) -> None:
        self._owner = owner

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {"liquidity_quote": self._quote, "liquidity_buy": self._buy}

    async def _quote(self, params: dict[str, Any]) -> LiquidityQuote:
        wanted = read_params(params, _QuoteParams)
        amount_sat = ALL_OF_IT if wanted.amount_sat is None else wanted.amount_sat
        if wanted.amount_sat is not None and wanted.amount_sat < 1:
            raise InvalidParam("amount_sat", f"expected at least 1, received {wanted.amount_sat}")
        attempt_id = self._attempt_id(wanted.factory_id)
        payment_hash = _hash("payment_hash", wanted.payment_hash)
        self._request(
            ev.QuoteRequested(
                attempt_id=attempt_id, amount_sat=amount_sat, payment_hash=payment_hash
            )
        )
        await wait_until(
            self._owner.events,
            lambda: not self._is_waiting(attempt_id),
            seconds=QUOTE_SECONDS,
        )
        asked = self._owner.state.quotes.get(attempt_id)
        if asked is not None and (asked.amount_sat, asked.payment_hash) != (
            amount_sat,
            payment_hash,
        ):
            raise ApiFailure(
                "quote_replaced",
                "somebody else asked for another amount, or payment, meanwhile",
                retryable=True,
                remediation="Ask again.",
            )
        answer = None if asked is None else answer_to(asked)
        if asked is None or answer is None:
            raise ApiFailure(
                "lsp_unreachable", "the LSP did not answer", retryable=True,
                remediation="The daemon connects again by itself; `status` shows when it has.",
            )  # fmt: skip
        if isinstance(answer, m.QuoteRefused):
            raise _refused(answer)
        return views.show_quote(self._owner.state, answer, asked)

    def _is_waiting(self, attempt_id: bytes) -> bool:
        asked = self._owner.state.quotes.get(attempt_id)
        return asked is not None and asked.n_waiting > 0

    def _attempt_id(self, wanted: str | None) -> bytes:
        """Return the factory that is meant: by default the newest with a usable channel.

        Raises:
            ApiFailure: If there is none.
        """
        state = self._owner.state
        if wanted is not None:
            return find_factory(state.attempts, wanted)
        usable = {link.attempt_id for link in usable_links(state)}
        found = next((one for one in reversed(list(state.attempts)) if one in usable), None)
        if found is None:
            raise ApiFailure(
                "no_channel",
                "no channel is ready",
                retryable=True,
                remediation="`factories` shows how far the channel's factory is.",
            )
        return found

    async def _buy(self, params: dict[str, Any]) -> PurchaseOutcome:
        wanted = read_params(params, _BuyParams)
        if not 0 <= wanted.wait_seconds <= WAIT_SECONDS_MAX:
            raise InvalidParam(
                "wait_seconds",
                f"expected 0..{WAIT_SECONDS_MAX:g}, received {wanted.wait_seconds}",
            )
        attempt_id = self._attempt_id(wanted.factory_id)
        quote_id = _hash("quote_id", wanted.quote_id)
        if not self._is_bought_by(attempt_id, quote_id):
            self._request(
                ev.PurchaseRequested(
                    attempt_id=attempt_id,
                    quote_id=quote_id,
                    price_max_msat=wanted.price_max_msat,
                    beyond_coverage=wanted.beyond_coverage,
                )
            )
        await wait_until(
            self._owner.events,
            lambda: quote_id not in self._owner.state.purchases,
            seconds=wanted.wait_seconds,
        )
        return self._outcome(attempt_id, quote_id)

    def _is_bought_by(self, attempt_id: bytes, quote_id: bytes) -> bool:
        """Say whether it is bought by a quote, or was: whoever asks again may have heard nothing.

        The LSP names its quotes: one of another factory may have the name of this one.
        """
        state = self._owner.state
        under_way = state.purchases.get(quote_id)
        receipts = state.receipts.get(attempt_id, ())
        return (under_way is not None and under_way.attempt_id == attempt_id) or any(
            receipt.quote_id == quote_id for receipt in receipts
        )

    def _outcome(self, attempt_id: bytes, quote_id: bytes) -> PurchaseOutcome:
        """Return what became of a purchase.

        Raises:
            ApiFailure: If it came to nothing.
        """
        state = self._owner.state
        attempt = state.attempts[attempt_id]
        told: PurchaseOutcome = {
            "factory_id": attempt_id.hex(),
            "quote_id": quote_id.hex(),
            "status": "ordered",
            "receipt": None,
            "advance": views.liquidity_of(state, attempt)["advance"],
        }
        if quote_id in state.purchases:
            return told
        receipts = state.receipts.get(attempt_id, ())
        bought = next((one for one in receipts if one.quote_id == quote_id), None)
        if bought is None:
            ended = state.purchase_ended
            is_last = ended is not None and ended.quote_id == quote_id
            raise _not_bought(ended.reason if ended is not None and is_last else _OVER)
        return told | {"status": "bought", "receipt": views.show_receipt(bought)}

    def _request(self, event: ev.Event) -> None:
        try:
            self._owner.request(event)
        except ApiFailure as failure:
            raise ApiFailure(
                failure.code,
                failure.message,
                retryable=failure.retryable,
                remediation=_REMEDIES.get(failure.code, failure.remediation),
                exit_code=failure.exit_code,
            ) from failure


def _refused(refused: m.QuoteRefused) -> ApiFailure:
    """Return why an LSP quotes nothing."""
    message = refused.reason
    if refused.missing_msat:
        message += f": {told.msat(refused.missing_msat)} are missing"
    remedy = _NEXT_FACTORY if refused.next_factory else _REMEDIES.get(refused.code, "")
    is_known = refused.code in _KNOWN
    return ApiFailure(
        refused.code if is_known else "quote_refused",
        message if is_known else f"{refused.code}: {message}",
        retryable=refused.code in _RETRYABLE,
        remediation=remedy,
    )


def _not_bought(reason: str) -> ApiFailure:
    """Return why a purchase came to nothing; a code of the LSP's stands before its reason."""
    named = _NAMED.fullmatch(reason)
    is_known = named is not None and named[1] in _KNOWN
    code, message = (named[1], named[2]) if named and is_known else ("not_bought", reason)
    remedy = _ON_CHAIN if reason == CUT_SHORT else "Nothing was paid. Ask for a new quote."
    return ApiFailure(
        code,
        f"nothing was bought: {message}",
        retryable=True,
        remediation=_REMEDIES.get(code, remedy),
    )


def _hash(field: str, digits: str | None) -> bytes:
    """Return what hex digits say; nothing for none.

    Raises:
        InvalidParam: If they are not those of 32 bytes.
    """
    if digits is None:
        return b""
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    if len(value) != HASH_SIZE:
        raise InvalidParam(field, f"expected {2 * HASH_SIZE} hex digits, received {digits!r}")
    return value
