"""Payments as an operator reads them: plain data, computed on demand, never stored.

Of an invoice of ours the preimage is never shown: whoever has it could be paid in our place.
Of what we paid it is shown, as the proof.
"""

from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from cromford.protocol.journal.book import Book, Forward, HtlcKey, OwnInvoice, Payment
from cromford.protocol.journal.encoding import delivery_of
from cromford.protocol.journal.failures import CODE_SIZE, describe_failure

PERMANENT: Final = 0x4000  # BOLT 4: trying again will not help.
HELD: Final = "held"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a payment that is pending.

    Attributes:
        obstacle: Why it does not go on now, in words; None if nothing is known to hinder it.
        may_lose_msat: What is neither paid nor back though its time is over: it may be either, and
            only the chain may tell. None while it is simply on its way.
        expiry_height: From then on it may come back.
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


def show_payment(book: Book, payment: Payment, *, height: int) -> Document:
    """Return what we pay, with the proof once it is paid, and until then what is known of it."""
    channel_id = payment.htlc[0]
    outlook = outlook_of(book, payment, height=height)
    return {
        "direction": "move" if is_own_move(book, payment) else "out",
        "status": payment.status,
        "payment_hash": payment.payment_hash.hex(),
        "payee": payment.payee.hex(),
        "amount_msat": payment.amount_msat,
        "fee_msat": payment.fee_msat,
        "total_msat": payment.amount_msat + payment.fee_msat,
        "description": payment.description,
        "channel_id": channel_id.hex(),
        "factory_id": book.links[channel_id].attempt_id.hex(),
        "to_factory_id": _arrived_in(book, payment),
        "preimage": _hex(payment.preimage),
        **_failure(payment.failure if payment.preimage is None else None),
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


def show_invoice(book: Book, invoice: OwnInvoice) -> Document:
    """Return an invoice of ours, and through which channel it was paid."""
    channel_id = None if invoice.paid_by is None else invoice.paid_by[0]
    return {
        "direction": "in",
        "status": invoice.status,
        "payment_hash": invoice.payment_hash.hex(),
        "amount_msat": invoice.amount_msat,
        "received_msat": invoice.paid_msat,
        "description": invoice.description,
        "expires_at": invoice.expires_at,
        "hold_seconds": invoice.hold_seconds,
        "agreed_hold_seconds": invoice.agreed_seconds,
        "channel_id": _hex(channel_id),
        "factory_id": None if channel_id is None else book.links[channel_id].attempt_id.hex(),
        "invoice": invoice.text,
    }


def own_payments(book: Book, *, limit: int, height: int) -> list[Document]:
    """Return what we paid and what we asked for, the newest first, up to a limit."""
    # What a client moves from one channel to another it pays once, and is no income.
    asked = [invoice for invoice in book.invoices.values() if not invoice.is_own_move]
    found: list[Payment | OwnInvoice] = [*book.payments.values(), *asked]
    return [
        {
            "number": one.number,
            **(
                show_payment(book, one, height=height)
                if isinstance(one, Payment)
                else show_invoice(book, one)
            ),
        }
        for one in nlargest(limit, found, key=attrgetter("number"))
    ]


def forwards(book: Book, *, limit: int) -> list[Document]:
    """Return what went through us: what waits first, then the newest, up to a limit."""
    shown = [_show_held(book, key) for key in sorted(book.held)[:limit]]
    pending = sorted(book.forwards)[: limit - len(shown)]
    shown += [_show_forward(book, book.forwards[key]) for key in pending]
    newest = range(book.n_finished - 1, -1, -1)
    kept = (book.finished[number] for number in newest if number in book.finished)
    n_kept = len(book.finished)
    rest = islice(kept, min(n_kept, limit - len(shown)))
    return shown + [_show_forward(book, forward) for forward in rest]


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


def _show_forward(book: Book, forward: Forward) -> Document:
    return {
        "status": forward.status,
        "payment_hash": forward.payment_hash.hex(),
        "amount_msat": forward.amount_msat,
        "fee_msat": forward.fee_msat,
        **_place(book, "from", forward.incoming),
        "to_node_id": forward.payee.hex(),
        "to_channel_id": _hex(forward.out_channel_id),
        "waits_for": None,
        **_failure(forward.failure if forward.preimage is None else None),
    }


def _show_held(book: Book, key: HtlcKey) -> Document:
    """Return an HTLC that waits, and for what; which channel it goes on in is not decided."""
    channel_id, htlc_id = key
    live = book.links[channel_id].incoming(htlc_id)
    if live is None:
        raise AssertionError("an HTLC is held that is not there")
    delivery = delivery_of(live.payload)
    if delivery is None:
        raise AssertionError("an HTLC is held for nobody")
    return {
        "status": HELD,
        "payment_hash": live.htlc.payment_hash.hex(),
        "amount_msat": delivery.amount_msat,
        "fee_msat": live.htlc.amount_msat - delivery.amount_msat,
        **_place(book, "from", key),
        "to_node_id": delivery.payee.hex(),
        "to_channel_id": None,
        "waits_for": book.held[key].reason,
        **_failure(None),
    }


def _place(book: Book, side: str, key: HtlcKey) -> Document:
    link = book.links[key[0]]
    return {f"{side}_node_id": link.node_id.hex(), f"{side}_channel_id": link.channel_id.hex()}


def _failure(reason: bytes | None) -> Document:
    """Return why it was given back, in words, and whether trying again may help."""
    if reason is None:
        return {"failure": None, "retryable": None}
    code = int.from_bytes(reason[:CODE_SIZE], "big")
    return {"failure": describe_failure(reason), "retryable": not code & PERMANENT}


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()
