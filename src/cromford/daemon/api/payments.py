"""Paying an invoice, the same for both daemons: read it, pay it, wait for what becomes of it."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from cromford import told
from cromford.answers.payments import PaymentAnswer
from cromford.bitcoin.network import Network
from cromford.channel.messages import UpdateAdd
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.paging import PageParams, check_choice, check_page
from cromford.daemon.api.payment_limits import LABEL_SIZE_MAX, WAIT_SECONDS_MAX
from cromford.daemon.event_log import EventLog
from cromford.invoice.bolt11 import parse_invoice
from cromford.invoice.invoice import InvalidInvoice, Invoice
from cromford.protocol import events as ev
from cromford.protocol.facts import Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.paying import FACTORY_STOPPED, STOPPED
from cromford.protocol.turn import Decision

EXIT_INVALID: Final = 2
EXIT_NOT_FOUND: Final = 4
PLANNED: Final = "planned"
Document = dict[str, Any]

_REMEDIES: Final = {
    "lsp_unreachable": "The daemon connects again by itself; `status` shows when it has.",
    "no_channel": "`balance` shows the channels, and `status` whether the LSP is connected.",
    "funding_not_deep": "Its block was taken back, or is young: wait. `factories` counts blocks.",
    "not_payable": "Pay less, or try again when what is on its way has arrived.",
    "insufficient_balance": "`balance` shows what each channel can send.",
    "own_invoice": "Money moves out of a factory that dies by itself: see `client factories`.",
    "may_be_paid": "Ask the payee whether it was paid, and for a new invoice if it was not.",
    "fee_too_high": "Allow more with `--max-fee`, or look at the price with `--dry-run`.",
    "payee_unknown": "Ask the payee for an invoice made at this LSP.",
    "payee_offline": "Try again when the payee is connected; `balances` shows when it is.",
    FACTORY_STOPPED: "It goes on with the next block: try again then. The log says what it met.",
}


class Payer(Protocol):
    """What a daemon offers these functions."""

    network: Network
    events: EventLog

    @property
    def book(self) -> Book:
        """The channels and payments now."""

    @property
    def height(self) -> int:
        """The height of the tip."""

    @property
    def facts(self) -> Facts:
        """What a decision may read now."""

    def payment_status(self, payment_hash: bytes) -> str:
        """Return what became of a payment that was asked for."""

    def foresee(self, event: ev.Event) -> Decision[Any]:
        """Return what a request would do, or raise why it is impossible."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What paying takes, and what there is: why it does not go, in numbers.

    Attributes:
        cost_msat: The amount and the fee.
        sendable_msat: The most that one channel could send for it now.
    """

    cost_msat: int
    sendable_msat: int


class PaymentsParams(PageParams, forbid_unknown_fields=True, kw_only=True):
    """What `payments` is asked: which page, and what is wanted of it; empty for all.

    Attributes:
        status: Only what stands so.
        direction: Only what we pay (`out`), are paid (`in`), or move (`move`).
        label: Only what has this in its label, however it is written.
    """

    status: str = ""
    direction: str = ""
    label: str = ""

    def wants(self, *, direction: str, status: str, created_at: int, label: str) -> bool:
        """Say whether an entry is wanted."""
        return (
            self.direction in {"", direction}
            and self.status in {"", status}
            and self.label.casefold() in label.casefold()
            and self.has_time(created_at)
        )


DIRECTIONS: Final = ("out", "in", "move")
PAYMENT_STATUSES: Final = ("paid", "failed", "pending", "unknown")
INVOICE_STATUSES: Final = ("open", "paid", "expired")
STATUSES: Final = tuple(dict.fromkeys((*PAYMENT_STATUSES, *INVOICE_STATUSES)))


def check_wanted(
    wanted: PaymentsParams,
    *,
    directions: tuple[str, ...] = DIRECTIONS,
    statuses: tuple[str, ...] = STATUSES,
) -> None:
    """Check what a list of payments is asked.

    Args:
        wanted: What it is asked.
        directions: Those of what it lists; by another word nothing would be found.
        statuses: How what it lists may stand.

    Raises:
        InvalidParam: If the limit is out of range, or a filter is none of the words that there are.
    """
    check_page(wanted)
    check_choice("direction", wanted.direction, directions)
    check_choice("status", wanted.status, statuses)


class HashParams(msgspec.Struct, forbid_unknown_fields=True):
    """What is looked up: a payment hash."""

    payment_hash: str


def check_words(field: str, text: str, *, size_max: int = LABEL_SIZE_MAX) -> None:
    """Check the size of what an operator calls something.

    Raises:
        InvalidParam: If it is longer, in bytes of UTF-8.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > size_max:
        raise InvalidParam(
            field, f"expected at most {size_max} bytes of UTF-8, received {size} bytes"
        )


def nothing_found(what: str, payment_hash: bytes) -> ApiFailure:
    """Return the refusal to show what nobody knows here; `what` is a singular noun."""
    return ApiFailure(
        f"{what}_not_found",
        f"payment_hash: expected that of {'an' if what == 'invoice' else 'a'} {what} known here, "
        f"received {payment_hash.hex()}",
        remediation=f"`{what}s` lists those that there are.",
        exit_code=EXIT_NOT_FOUND,
    )


def read_invoice(text: str, network: Network) -> Invoice:
    """Return the invoice in a text; whether it expired is not looked at.

    Raises:
        ApiFailure: `invalid_invoice`, naming the field, what was expected and received.
    """
    try:
        return parse_invoice(text, network)
    except InvalidInvoice as error:
        raise ApiFailure(
            "invalid_invoice",
            f"invoice: {error}",
            remediation="Ask the payee for a BOLT 11 invoice with an amount, on this network.",
            exit_code=EXIT_INVALID,
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPayment:
    """What is kept of a payment that is paid, on its way, or stays unknown.

    Attributes:
        status: How it stands.
        payee: Whom it pays.
        amount_msat: What the payee gets.
        fee_msat: What that costs.
        factory_id: Out of which factory, in hex; empty where that has no choice.
        label: What the operator called it.
    """

    status: str
    payee: bytes
    amount_msat: int
    fee_msat: int
    factory_id: str
    label: str


def check_same(asked: ev.PayRequested, kept: KnownPayment) -> None:
    """Check that a payment that is not made again is the one that is asked for.

    What is not asked for, a label, a highest fee or a factory, is as it is.

    Raises:
        ApiFailure: If it is another; it names the first field that differs.
    """
    fee_max_msat = kept.fee_msat if asked.fee_max_msat is None else asked.fee_max_msat
    factory_id = kept.factory_id if asked.attempt_id is None else asked.attempt_id.hex()
    if (asked.payee, asked.amount_msat) != (kept.payee, kept.amount_msat):
        field = "invoice"
        expected = f"one of {kept.payee.hex()} over {told.msat(kept.amount_msat)}"
        received = f"one of {asked.payee.hex()} over {told.msat(asked.amount_msat)}"
    elif fee_max_msat < kept.fee_msat:
        field, expected = "fee_max_msat", f"at least {told.msat(kept.fee_msat)}"
        received = told.msat(fee_max_msat)
    elif factory_id != kept.factory_id:
        field, expected, received = "factory_id", kept.factory_id, factory_id
    elif asked.label not in {"", kept.label}:
        field, expected, received = "label", repr(kept.label), repr(asked.label)
    else:
        return
    raise ApiFailure(
        "payment_differs",
        f"{field}: the payment with this hash is {kept.status}, and is not made again: "
        f"expected {expected}, received {received}",
        remediation="Ask with the same, or with the invoice alone; `payments show HASH` tells of "
        "it.",
        param=field,
    )


def pay_request(
    invoice: Invoice,
    text: str,
    *,
    fee_max_msat: int | None = None,
    attempt_id: bytes | None = None,
    label: str = "",
) -> ev.PayRequested:
    """Return the request to pay an invoice.

    Args:
        invoice: As it was read.
        text: What it was read from.
        fee_max_msat: The most that the fee may be; None for what the policy allows.
        attempt_id: The factory to pay from; None for any.
        label: What the operator calls it.

    Raises:
        InvalidParam: If the highest fee is negative, or the label too long.
    """
    check_words("label", label)
    if fee_max_msat is not None and fee_max_msat < 0:
        raise InvalidParam("fee_max_msat", f"expected at least 0, received {fee_max_msat}")
    return ev.PayRequested(
        text=text.strip(),
        payment_hash=invoice.payment_hash,
        payment_secret=invoice.payment_secret,
        payee=invoice.payee,
        amount_msat=invoice.amount_msat,
        description=invoice.description,
        min_final_cltv_expiry_delta=invoice.min_final_cltv_expiry_delta,
        fee_max_msat=fee_max_msat,
        attempt_id=attempt_id,
        label=label,
        created_at=invoice.created_at,
    )


async def pay(
    payer: Payer,
    invoice: Invoice,
    asked: ev.PayRequested,
    *,
    means: Callable[[], Means],
    shown: Callable[[], PaymentAnswer | None],
    wait_seconds: float,
    dry_run: bool,
) -> PaymentAnswer:
    """Pay an invoice and return what became of it; what is paid or on its way is never paid twice.

    Args:
        payer: The daemon.
        invoice: As it was read.
        asked: The request for it.
        means: Returns what it takes and what there is; asked where it cannot be paid.
        shown: Returns how the payment stands; None where that cannot be told yet.
        wait_seconds: How long to wait for the outcome; 0 answers at once.
        dry_run: Only say what paying would take.

    Raises:
        InvalidParam: If the wait is out of range.
        ApiFailure: If the invoice expired, cannot be paid now, or nothing can be told of it yet.
    """
    if not 0 <= wait_seconds <= WAIT_SECONDS_MAX:
        raise InvalidParam(
            "wait_seconds", f"expected 0..{WAIT_SECONDS_MAX:g}, received {wait_seconds}"
        )
    known = payer.book.payments.get(asked.payment_hash)
    if known is None or known.status == "failed":
        _check_time(invoice)
        try:
            if dry_run:
                return _planned(payer, invoice, payer.foresee(asked))
            payer.request(asked)
        except ApiFailure as failure:
            raise _explained(failure, means()) from failure
    if not dry_run:
        await _outcome(payer, asked.payment_hash, seconds=wait_seconds)
    answer = shown()
    if answer is None:
        raise ApiFailure(
            "payment_waits",
            "the payment is ordered, and the payee's factory has not taken it yet: `status` tells "
            "which one is stopped",
            retryable=True,
            remediation="Ask again after the next block: it is not paid twice.",
        )
    return answer


def _check_time(invoice: Invoice) -> None:
    late_seconds = int(time.time()) - invoice.expires_at
    if late_seconds >= 0:
        raise ApiFailure(
            "invoice_expired",
            f"invoice: expired {told.counted(late_seconds, 'second')} ago, "
            f"at {invoice.expires_at} (unix time)",
            remediation="Ask the payee for a new one.",
        )


def _planned(payer: Payer, invoice: Invoice, decision: Decision[Any]) -> PaymentAnswer:
    """Return what paying would take, from the decision that paying would make.

    Raises:
        ApiFailure: If the payee's factory meets a bug in it.
    """
    started = next((one for one in decision.records if isinstance(one, cr.PaymentStarted)), None)
    if started is None:
        raise ApiFailure(FACTORY_STOPPED, STOPPED, retryable=True)
    proposed = next(one for one in decision.records if isinstance(one, cr.UpdateProposed))
    update = journalled_update(proposed.message)
    if not isinstance(update, UpdateAdd):
        raise AssertionError("a payment begins with an HTLC")
    return {
        "direction": "out",
        "status": PLANNED,
        "payment_hash": started.payment_hash.hex(),
        "payee": started.payee.hex(),
        "amount_msat": started.amount_msat,
        "fee_msat": started.fee_msat,
        "total_msat": started.amount_msat + started.fee_msat,
        "description": started.description,
        "label": started.label,
        "channel_id": started.channel_id.hex(),
        "factory_id": payer.book.links[started.channel_id].attempt_id.hex(),
        "expires_at": invoice.expires_at,
        # What is offered to us expires later than what we offer, hop by hop.
        "htlc_expiry_height": update.cltv_expiry,
        "payee_expiry_height": payer.height + invoice.min_final_cltv_expiry_delta,
    }


def _explained(failure: ApiFailure, means: Means) -> ApiFailure:
    """Return a refusal with what to do about it."""
    code, message = failure.code, failure.message
    if code == "not_payable" and means.cost_msat > means.sendable_msat:
        code = "insufficient_balance"
        message = (
            f"amount_msat: with the fee {told.msat(means.cost_msat)} are needed, "
            f"and no channel can send more than {told.msat(means.sendable_msat)} now"
        )
    return ApiFailure(
        code,
        message,
        retryable=failure.retryable,
        remediation=_REMEDIES.get(code, failure.remediation),
        exit_code=failure.exit_code,
    )


async def _outcome(payer: Payer, payment_hash: bytes, *, seconds: float) -> None:
    """Wait until a payment is paid or failed, the time is over, or the daemon stops."""
    await wait_until(
        payer.events, lambda: payer.payment_status(payment_hash) != "pending", seconds=seconds
    )


async def wait_until(events: EventLog, is_so: Callable[[], bool], *, seconds: float) -> None:
    """Wait until something is so, the time is over, or the daemon stops."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not is_so() and not events.is_closed:
                await events.more()
