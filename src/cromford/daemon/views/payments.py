"""Payments as an operator reads them: plain data, computed on demand, never stored.

Of an invoice of ours the preimage is never shown: whoever has it could be paid in our place.
Of what we paid it is shown, as the proof.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cromford.answers.payments import ForwardAnswer, PaymentAnswer
from cromford.daemon.views.pages import Spot
from cromford.protocol.journal.book import Book, Forward, HtlcKey, OwnInvoice, Payment
from cromford.protocol.journal.encoding import delivery_of
from cromford.protocol.journal.entries import HousePayment
from cromford.protocol.journal.failures import CODE_SIZE, describe_failure
from cromford.protocol.journal.house import House
from cromford.protocol.journal.numbers import ListPlace
from cromford.protocol.journal.streams import factory_number

PERMANENT: Final = 0x4000  # BOLT 4: trying again will not help.
HELD: Final = "held"
# Whatever the payee does then, it is not forwarded any more.
PAYER_ENDS: Final = "its payer's channel failed, and gives it back on chain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a payment that is pending.

    Attributes:
        obstacle: Why it does not go on now, in words; None if nothing is known to hinder it.
        may_lose_msat: What is neither paid nor back though its time is over: it may be either, and
            only the chain may tell. None while it is simply on its way.
        expiry_height: From then on it may come back; None where nothing will tell any more.
    """

    obstacle: str | None = None
    may_lose_msat: int | None = None
    expiry_height: int | None = None


def outlook_of(book: Book, payment: Payment, *, height: int) -> Outlook:
    """Return what is known of a payment while it is pending.

    `failed` is said when it is final. Before that, a payment whose channel is over, or whose time
    is, may have been paid: the payee may take it on chain.
    """
    link = book.links[payment.htlc[0]]
    live = link.state.find(link.me, payment.htlc[1])
    if payment.status == "unknown" and live is not None:
        return Outlook(obstacle=payment.ended, may_lose_msat=live.htlc.amount_msat)
    if payment.status != "pending" or live is None:
        return Outlook()
    expiry_height = live.htlc.cltv_expiry
    is_late = height >= expiry_height
    obstacle = None
    if link.failure is not None:
        obstacle = f"the channel is over: {link.failure}"
    elif not link.state.is_connected:
        obstacle = "the peer does not answer: it is not connected"
    elif is_late:
        obstacle = "the peer does not answer it, and its time is over"
    return Outlook(
        obstacle=obstacle,
        may_lose_msat=live.htlc.amount_msat if is_late or link.failure is not None else None,
        expiry_height=expiry_height,
    )


def known_time(unix_time: int) -> int | None:
    """Return a time, or None where nobody wrote it down."""
    return unix_time or None


def show_payment(book: Book, payment: Payment, *, height: int) -> PaymentAnswer:
    """Return what we pay, with the proof once it is paid, and until then what is known of it."""
    channel_id = payment.htlc[0]
    outlook = outlook_of(book, payment, height=height)
    failure, retryable = _failure(payment.failure if payment.preimage is None else None)
    return {
        "direction": "move" if is_own_move(book, payment) else "out",
        "status": payment.status,
        "created_at": known_time(payment.created_at),
        "settled_at": known_time(payment.settled_at),
        "payment_hash": payment.payment_hash.hex(),
        "payee": payment.payee.hex(),
        "amount_msat": payment.amount_msat,
        "fee_msat": payment.fee_msat,
        "total_msat": payment.amount_msat + payment.fee_msat,
        "description": payment.description,
        "label": payment.label,
        "channel_id": channel_id.hex(),
        "factory_id": book.links[channel_id].attempt_id.hex(),
        "to_factory_id": _arrived_in(book, payment),
        "preimage": _hex(payment.preimage),
        "failure": failure,
        "retryable": retryable,
        "obstacle": outlook.obstacle,
        "may_lose_msat": outlook.may_lose_msat,
        "expiry_height": outlook.expiry_height,
        "invoice": payment.text,
    }


def is_own_move(book: Book, payment: Payment) -> bool:
    """Say whether a payment only moves our own money, from one channel to another."""
    invoice = book.invoices.get(payment.payment_hash)
    return invoice is not None and invoice.is_own_move


def _arrived_in(book: Book, payment: Payment) -> str | None:
    """Return the factory that our own money has arrived in; None of what others are paid."""
    invoice = book.invoices.get(payment.payment_hash)
    if invoice is None or invoice.paid_by is None:
        return None
    return book.links[invoice.paid_by[0]].attempt_id.hex()


def show_ordered(house: House, payment: HousePayment) -> PaymentAnswer:
    """Return what an LSP pays as its house knows it, whether or not the factory is in memory."""
    asked, number = payment.asked, factory_number(payment.to)
    failure, retryable = _failure(payment.failure if payment.preimage is None else None)
    if payment.refused is not None and payment.preimage is None:
        failure, retryable = payment.refused, True  # No HTLC was ever offered.
    return {
        "direction": "out",
        "status": payment.status,
        "created_at": known_time(payment.created_at),
        "settled_at": known_time(payment.settled_at),
        "payment_hash": asked.payment_hash.hex(),
        "payee": asked.payee.hex(),
        "amount_msat": asked.amount_msat,
        "fee_msat": 0,  # Out of our own channel with the payee.
        "total_msat": asked.amount_msat,
        "description": asked.description,
        "label": payment.label,
        "channel_id": None,
        "factory_id": None if number is None else house.order[number].hex(),
        "to_factory_id": None,
        "preimage": _hex(payment.preimage),
        "failure": failure,
        "retryable": retryable,
        "obstacle": None,
        "may_lose_msat": None,
        "expiry_height": None,
        "invoice": asked.text,
    }


def show_invoice(book: Book, invoice: OwnInvoice) -> PaymentAnswer:
    """Return an invoice of ours, and through which channel it was paid."""
    channel_id = None if invoice.paid_by is None else invoice.paid_by[0]
    return {
        "direction": "in",
        "status": invoice.status,
        "created_at": known_time(invoice.created_at),
        "settled_at": known_time(invoice.settled_at),
        "payment_hash": invoice.payment_hash.hex(),
        "amount_msat": invoice.amount_msat,
        "received_msat": invoice.paid_msat,
        "description": invoice.description,
        "label": invoice.label,
        "external_id": invoice.external_id,
        "expires_at": invoice.expires_at,
        "hold_seconds": invoice.hold_seconds,
        "agreed_hold_seconds": invoice.agreed_seconds,
        "channel_id": _hex(channel_id),
        "factory_id": None if channel_id is None else book.links[channel_id].attempt_id.hex(),
        "invoice": invoice.text,
    }


def show_own(book: Book, one: Payment | OwnInvoice, *, height: int) -> PaymentAnswer:
    """Return what we pay, or want to be paid, as a list has it."""
    if isinstance(one, OwnInvoice):
        return show_invoice(book, one) | {"number": one.number}
    return show_payment(book, one, height=height) | {"number": one.number}


def own_spots(book: Book, place: ListPlace) -> Iterator[Spot[ListPlace, Payment | OwnInvoice]]:
    """Yield what we paid and what we asked for, the newest first, from a place on.

    What we move from one channel to another we pay once, and is no income.
    """
    for number, payment_hash, is_met in book.numbers.walk(place):
        payment, invoice = book.payments.get(payment_hash), book.invoices.get(payment_hash)
        one: Payment | OwnInvoice | None = payment
        if payment is None or (invoice is not None and invoice.number == number):
            one = None if invoice is None or invoice.is_own_move else invoice
        yield Spot(ListPlace(place.top, number), one if is_met else None)


def ordered_spots(house: House, place: ListPlace) -> Iterator[Spot[ListPlace, HousePayment]]:
    """Yield what an LSP's operator paid, the newest first, from a place on."""
    for number, payment_hash, is_met in house.numbers.walk(place):
        one = house.payments[payment_hash] if is_met else None
        yield Spot(ListPlace(place.top, number), one)


def direction_of(book: Book, one: Payment | OwnInvoice) -> str:
    """Return `out`, `in`, or `move` for what only moves our own money."""
    if isinstance(one, OwnInvoice):
        return "in"
    return "move" if is_own_move(book, one) else "out"


def in_flight(book: Book, *, limit: int) -> list[ForwardAnswer]:
    """Return what goes through us and has not come to its end: what waits first, up to a limit."""
    shown = [_show_held(book, key) for key in sorted(book.held)[:limit]]
    pending = sorted(book.forwards)[: limit - len(shown)]
    return shown + [show_forward(book, book.forwards[key]) for key in pending]


def forwards(book: Book, *, limit: int) -> list[ForwardAnswer]:
    """Return what went through us: what waits first, then the newest, up to a limit."""
    shown = in_flight(book, limit=limit)
    newest = range(book.n_finished - 1, -1, -1)
    kept = (book.finished[number] for number in newest if number in book.finished)
    n_kept = len(book.finished)
    rest = islice(kept, min(n_kept, limit - len(shown)))
    return shown + [show_forward(book, forward) for forward in rest]


def statuses(book: Book) -> dict[tuple[str, str], int]:
    """Return how many payments there are by direction (`out`, `in`, `move`) and status."""
    counted: dict[tuple[str, str], int] = {}
    for payment in book.payments.values():
        key = ("move" if is_own_move(book, payment) else "out", payment.status)
        counted[key] = counted.get(key, 0) + 1
    for invoice in book.invoices.values():
        if not invoice.is_own_move:
            key = ("in", invoice.status)
            counted[key] = counted.get(key, 0) + 1
    return counted


def show_forward(book: Book, forward: Forward) -> ForwardAnswer:
    """Return what went on, and what became of it."""
    failure, retryable = _failure(forward.failure if forward.preimage is None else None)
    if forward.status == "unsettled":
        failure = forward.ended
    return {
        "status": forward.status,
        "created_at": known_time(forward.created_at),
        "settled_at": known_time(forward.settled_at),
        "payment_hash": forward.payment_hash.hex(),
        "amount_msat": forward.amount_msat,
        "fee_msat": forward.fee_msat,
        "from_node_id": book.links[forward.incoming[0]].node_id.hex(),
        "from_channel_id": forward.incoming[0].hex(),
        "to_node_id": forward.payee.hex(),
        "to_channel_id": _hex(forward.out_channel_id),
        "waits_for": None,
        "failure": failure,
        "retryable": retryable,
    }


def _show_held(book: Book, key: HtlcKey) -> ForwardAnswer:
    """Return an HTLC that waits, and for what; which channel it goes on in is not decided."""
    channel_id, htlc_id = key
    link = book.links[channel_id]
    live = link.incoming(htlc_id)
    if live is None:
        raise AssertionError("an HTLC is held that is not there")
    delivery = delivery_of(live.payload)
    if delivery is None:
        raise AssertionError("an HTLC is held for nobody")
    return {
        "status": HELD,
        "created_at": known_time(book.held[key].created_at),
        "settled_at": None,
        "payment_hash": live.htlc.payment_hash.hex(),
        "amount_msat": delivery.amount_msat,
        "fee_msat": live.htlc.amount_msat - delivery.amount_msat,
        "from_node_id": link.node_id.hex(),
        "from_channel_id": channel_id.hex(),
        "to_node_id": delivery.payee.hex(),
        "to_channel_id": None,
        "waits_for": book.held[key].reason if link.failure is None else PAYER_ENDS,
        "failure": None,
        "retryable": None,
    }


def _failure(reason: bytes | None) -> tuple[str | None, bool | None]:
    """Return why it was given back, in words, and whether trying again may help."""
    if reason is None:
        return None, None
    code = int.from_bytes(reason[:CODE_SIZE], "big")
    return describe_failure(reason), not code & PERMANENT


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()
