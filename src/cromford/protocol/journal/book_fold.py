"""How a book of channels and payments changes: one function, and what it takes apart."""

from typing import Final, TypeVar

from immutables import Map

from cromford.changed import changed
from cromford.channel.commits import Settlement
from cromford.channel.messages import Rebase, UpdateAdd, UpdateFulfill
from cromford.channel.stage import LiveHtlc
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import mail
from cromford.protocol.journal.book import (
    AWAY,
    Book,
    Errand,
    Forward,
    Held,
    HtlcKey,
    OwnInvoice,
    Payment,
)
from cromford.protocol.journal.encoding import delivery_of, journalled_update
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.link_fold import applied, with_update
from cromford.protocol.journal.mail import Letter
from cromford.protocol.journal.streams import HOUSE

K = TypeVar("K")
V = TypeVar("V")
FORWARDS_KEPT_MAX: Final = 10_000  # Finished ones that are listed; older stay in the journal.


def apply_to_book(book: Book, record: cr.BookRecord, at: int = 0) -> Book:
    """Return the book after remembering one thing, at a time in unix seconds; 0 if unknown."""
    if cr.CHANNEL_RECORDS.have(record):
        return _with_channel_record(book, record, at)
    match record:
        case cr.InvoiceIssued():
            return _with_issued(book, record, at)
        case cr.HoldAgreed(payment_hash=payment_hash):
            agreed = changed(book.invoices[payment_hash], agreed_seconds=record.hold_seconds)
            return _with_invoice(book, agreed)
        case cr.InvoiceExpired(payment_hash=payment_hash):
            expired = changed(book.invoices[payment_hash], is_expired=True, settled_at=at)
            return _with_invoice(book, expired)
        case cr.InvoicePaid():
            invoice = book.invoices[record.payment_hash]
            key = (record.channel_id, record.htlc_id)
            paid = changed(invoice, paid_by=key, paid_msat=record.amount_msat, settled_at=at)
            return _with_invoice(book, paid)
        case cr.PaymentStarted():
            return _with_started(book, record, at)
        case cr.PayDeclined(asker=asker, payment_hash=payment_hash, reason=reason):
            refused = mail.PayAnswered(payment_hash=payment_hash, refused=reason)
            return _telling(book, asker, refused)
        case cr.HtlcHeld():
            return _with_held(book, record, at)
        case cr.HtlcRefused():
            return book
        case cr.HoldEnded():
            return _with_released(book, (record.channel_id, record.htlc_id))
        case cr.HtlcForwarded():
            return _with_forward(book, record, at)
        case cr.ForwardOffered():
            key = (record.channel_id, record.htlc_id)
            incoming = (record.in_channel_id, record.in_htlc_id)
            errand = Errand(asker=record.asker, incoming=incoming)
            return changed(book, owners=book.owners.set(key, errand))
        case cr.ForwardDeclined():
            not_here = mail.ForwardRefused(
                channel_id=record.in_channel_id, htlc_id=record.in_htlc_id, reason=record.reason
            )
            return _telling(book, record.asker, not_here)
        case cr.ForwardWithdrawn():
            return _with_withdrawn(book, record)
        case cr.HtlcDecided(preimage=preimage):
            key = (record.channel_id, record.htlc_id)
            decided = (
                _with_failure(book, key, Failure.PERMANENT_CHANNEL_FAILURE.reason, at)
                if preimage is None
                else _with_outcome(book, key, preimage, at)
            )
            return changed(decided, owners=_without(decided.owners, key))
        case cr.FeeEarned():
            earned = changed(book, earned_msat=book.earned_msat + record.fee_msat)
            ended = _finished(earned, (record.channel_id, record.htlc_id), at)
            return _telling_paid(ended, record)
        case cr.IncomingEnded():
            return _with_ended(book, record, at)
        case cr.OutgoingEnded():
            return _with_untold(book, record, at)


def _telling_paid(book: Book, record: cr.FeeEarned) -> Book:
    """Return the book with word to the house, if a payment was announced: it waits no more."""
    if not record.announced_by:
        return book
    told = mail.AnnouncedPaid(node_id=record.announced_by, payment_hash=record.payment_hash)
    return _telling(book, HOUSE, told)


def _with_issued(book: Book, record: cr.InvoiceIssued, at: int) -> Book:
    number, payment_hash = book.n_begun + 1, record.payment_hash
    known, external_ids = book.invoices.get(payment_hash), book.external_ids
    if record.external_id:
        external_ids = external_ids.set(record.external_id, payment_hash)
    before = None if known is None else known.number
    begun = changed(
        book,
        n_begun=number,
        numbers=book.numbers.with_one(number, payment_hash, before=before),
        external_ids=external_ids,
    )
    return _with_invoice(begun, _invoice_of(record, number=number, at=at))


def _with_started(book: Book, record: cr.PaymentStarted, at: int) -> Book:
    number, payment_hash = book.n_begun + 1, record.payment_hash
    payment, known = _payment_of(record, number=number, at=at), book.payments.get(payment_hash)
    before = None if known is None else known.number
    return changed(
        book,
        n_begun=number,
        numbers=book.numbers.with_one(number, payment_hash, before=before),
        payments=book.payments.set(payment_hash, payment),
        owners=book.owners.set(payment.htlc, payment_hash),
    )


def _with_channel_record(book: Book, record: cr.ChannelRecord, at: int) -> Book:
    if cr.UPDATE_RECORDS.have(record):
        return _with_update(book, record, at)
    if isinstance(record, cr.AddsTakenBack):
        book = _with_taken_back(book, record, at)
    link, settlement = applied(book.links[record.channel_id], record)
    links = book.links.set(link.channel_id, link)
    if settlement is None:
        return changed(book, links=links)
    return _with_settled(
        changed(book, links=links, arrived=_arrived(book, link, settlement)), link, settlement, at
    )


def _with_taken_back(book: Book, record: cr.AddsTakenBack, at: int) -> Book:
    """Return the book after HTLCs of ours that never left failed; what was decided stays so.

    Or they were not taken on: then whoever asked for them asks again.
    """
    for live in book.links[record.channel_id].unsent:
        key = (record.channel_id, live.htlc.htlc_id)
        if live.htlc.htlc_id >= record.htlc_id and key in book.owners:
            owner = book.owners[key]
            if record.waits_again and isinstance(owner, Errand):
                book = _telling(book, owner.asker, _not_taken(owner))
            else:
                book = _with_failure(book, key, Failure.TEMPORARY_CHANNEL_FAILURE.reason, at)
            book = changed(book, owners=book.owners.delete(key))
    return book


def _not_taken(errand: Errand) -> mail.ForwardRefused:
    channel_id, htlc_id = errand.incoming
    return mail.ForwardRefused(channel_id=channel_id, htlc_id=htlc_id, reason=AWAY)


def _with_update(book: Book, record: cr.UpdateRecord, at: int) -> Book:
    update = journalled_update(record.message)
    is_ours = isinstance(record, cr.UpdateProposed)
    link = with_update(book.links[record.channel_id], update, is_ours=is_ours)
    book = changed(book, links=book.links.set(link.channel_id, link))
    if isinstance(update, UpdateAdd | Rebase):
        return book
    key = (link.channel_id, update.htlc_id)
    if is_ours:
        return _answered(book, key, at)
    if isinstance(update, UpdateFulfill):
        # BOLT 2: a preimage may be used at once, whatever becomes of the update.
        return _with_outcome(book, key, update.preimage, at)
    return book


def _answered(book: Book, key: HtlcKey, at: int) -> Book:
    """Return the book after we took or gave back an incoming HTLC: nothing is owed for it."""
    return _finished(_decided(book, key), key, at)


def _with_ended(book: Book, record: cr.IncomingEnded, at: int) -> Book:
    """Return the book after an incoming HTLC ended with its channel: nothing is owed for it."""
    key = (record.channel_id, record.htlc_id)
    forward = book.forwards.get(key)
    if forward is not None:
        ended = changed(forward, ended=record.reason)
        book = changed(book, forwards=book.forwards.set(key, ended))
    elif (place := book.place_of_paid(key)) is not None:
        return _with_lost(book, place, record.reason)
    return _finished(_decided(book, key), key, at)


def _with_lost(book: Book, place: int, reason: str) -> Book:
    """Return the book after what a payer was told the preimage of was not ours: nor is its fee."""
    lost = changed(book.finished[place], ended=reason)
    return changed(
        book,
        finished=book.finished.set(place, lost),
        earned_msat=book.earned_msat - lost.fee_msat,
    )


def _with_untold(book: Book, record: cr.OutgoingEnded, at: int) -> Book:
    """Return the book after our HTLC ended with its channel, and nothing tells how."""
    key = (record.channel_id, record.htlc_id)
    owner = book.owners.get(key)
    book = changed(book, owners=_without(book.owners, key))
    if not isinstance(owner, bytes) or book.payments[owner].status != "pending":
        return book
    ended = changed(book.payments[owner], ended=record.reason, settled_at=at)
    return changed(book, payments=book.payments.set(owner, ended))


def _decided(book: Book, key: HtlcKey) -> Book:
    """Return the book after it was decided what becomes of an HTLC: it waits no longer."""
    arrived = _without(book.arrived, key)
    held = book.held.get(key)
    if held is None:
        return book if arrived is book.arrived else changed(book, arrived=arrived)
    others = tuple(other for other in book.held_for[held.payee] if other != key)
    rest = book.held_for.delete(held.payee)
    return changed(
        book,
        arrived=arrived,
        held=book.held.delete(key),
        held_for=rest.set(held.payee, others) if others else rest,
    )


def _finished(book: Book, key: HtlcKey, at: int) -> Book:
    """Return the book after a forward came to its end."""
    resolved, released = _without(book.resolved, key), _without(book.released, key)
    forward = book.forwards.get(key)
    if forward is None:
        is_same = resolved is book.resolved and released is book.released
        return book if is_same else changed(book, resolved=resolved, released=released)
    finished = book.finished.set(book.n_finished, changed(forward, settled_at=at))
    return changed(
        book,
        resolved=resolved,
        released=released,
        forwards=book.forwards.delete(key),
        finished=_without(finished, book.n_finished - FORWARDS_KEPT_MAX),
        n_finished=book.n_finished + 1,
    )


def _arrived(book: Book, link: Link, settlement: Settlement) -> Map[HtlcKey, None]:
    arrived = book.arrived
    for live in settlement.locked_in:
        if live.htlc.offered_by is not link.me:
            arrived = arrived.set((link.channel_id, live.htlc.htlc_id), None)
    return arrived


def _with_settled(book: Book, link: Link, settlement: Settlement, at: int) -> Book:
    for live in settlement.gone:
        if live.htlc.offered_by is link.me:
            book = _with_gone(book, (link.channel_id, live.htlc.htlc_id), live, at)
    return book


def _with_gone(book: Book, key: HtlcKey, live: LiveHtlc, at: int) -> Book:
    removal = live.removal
    if removal is None:
        raise AssertionError("an HTLC is gone without a reason")
    book = book if removal.is_paid else _with_failure(book, key, removal.reason, at)
    return changed(book, owners=_without(book.owners, key))


def _with_outcome(book: Book, key: HtlcKey, preimage: bytes, at: int) -> Book:
    owner = book.owners[key]
    if isinstance(owner, bytes):
        payment = book.payments[owner]
        if payment.preimage is not None:
            return book
        return _with_payment(book, changed(payment, preimage=preimage, settled_at=at))
    if owner.preimage is not None:
        return book  # Told again after a reconnection.
    book = changed(book, owners=book.owners.set(key, changed(owner, preimage=preimage)))
    return _telling(book, owner.asker, _answer(key, owner, preimage=preimage))


def _with_failure(book: Book, key: HtlcKey, reason: bytes, at: int) -> Book:
    owner = book.owners[key]
    if isinstance(owner, bytes):
        payment = book.payments[owner]
        if payment.preimage is not None:
            return book  # The peer showed the preimage first: it is paid, and the HTLC a gift.
        return _with_payment(book, changed(payment, failure=reason, settled_at=at))
    if owner.preimage is not None:
        return book
    return _telling(book, owner.asker, _answer(key, owner, failure=reason))


def _with_payment(book: Book, payment: Payment) -> Book:
    """Return the book with what became of a payment, and tell who asked for it."""
    book = changed(book, payments=book.payments.set(payment.payment_hash, payment))
    if not payment.asker:
        return book
    answered = mail.PayAnswered(
        payment_hash=payment.payment_hash, preimage=payment.preimage, failure=payment.failure
    )
    return _telling(book, payment.asker, answered)


def _answer(
    key: HtlcKey, errand: Errand, *, preimage: bytes | None = None, failure: bytes | None = None
) -> mail.ForwardAnswered:
    channel_id, htlc_id = errand.incoming
    return mail.ForwardAnswered(
        channel_id=channel_id,
        htlc_id=htlc_id,
        out_channel_id=key[0],
        preimage=preimage,
        failure=failure,
    )


def _telling(book: Book, stream: str, content: mail.AnyMail) -> Book:
    return changed(book, letters=(*book.letters, Letter(stream, content)))


def with_refused_forward(book: Book, refused: mail.ForwardRefused) -> Book:
    """Return the book after a payee's factory did not take an HTLC: it waits, or is given back."""
    key = (refused.channel_id, refused.htlc_id)
    forward = book.forwards.get(key)
    if forward is None:
        return book
    book = changed(book, forwards=book.forwards.delete(key))
    held = Held(
        payee=forward.payee,
        reason=refused.reason,
        seconds=forward.hold_seconds,
        created_at=forward.created_at,
    )
    book = _waiting(book, key, held)
    return changed(book, resolved=book.resolved.set(key, None)) if key in book.released else book


def with_answered_forward(book: Book, answered: mail.ForwardAnswered) -> Book:
    """Return the book after an HTLC that went on was decided where it went."""
    key = (answered.channel_id, answered.htlc_id)
    forward = book.forwards.get(key)
    if forward is None or forward.preimage is not None:
        return book
    told = changed(
        forward,
        preimage=answered.preimage,
        failure=answered.failure,
        out_channel_id=answered.out_channel_id,
    )
    forwards = book.forwards.set(key, told)
    if answered.preimage is None and key not in book.released:
        # Told once the hold is over, so that no payer learns how soon it failed.
        return changed(book, forwards=forwards)
    return changed(book, forwards=forwards, resolved=book.resolved.set(key, None))


def _with_withdrawn(book: Book, record: cr.ForwardWithdrawn) -> Book:
    """Return the book after an HTLC was not taken elsewhere in time: it is given back."""
    key = (record.channel_id, record.htlc_id)
    forward = book.forwards.get(key)
    if forward is None:
        return book
    failed = changed(forward, failure=Failure.TEMPORARY_CHANNEL_FAILURE.reason)
    return changed(
        book,
        forwards=book.forwards.set(key, failed),
        resolved=book.resolved.set(key, None),
    )


def _with_released(book: Book, key: HtlcKey) -> Book:
    book = changed(book, released=book.released.set(key, None))
    forward = book.forwards.get(key)
    if key not in book.held and (forward is None or forward.failure is None):
        return book
    return changed(book, resolved=book.resolved.set(key, None))


def _with_invoice(book: Book, invoice: OwnInvoice) -> Book:
    return changed(book, invoices=book.invoices.set(invoice.payment_hash, invoice))


def _with_held(book: Book, record: cr.HtlcHeld, at: int) -> Book:
    key = (record.channel_id, record.htlc_id)
    live = book.links[record.channel_id].incoming(record.htlc_id)
    delivery = None if live is None else delivery_of(live.payload)
    if delivery is None:
        raise AssertionError("an HTLC is held that is not locked in")
    held = Held(payee=delivery.payee, reason=record.reason, seconds=record.seconds, created_at=at)
    return _waiting(book, key, held)


def _waiting(book: Book, key: HtlcKey, held: Held) -> Book:
    return changed(
        book,
        arrived=_without(book.arrived, key),
        held=book.held.set(key, held),
        held_for=book.held_for.set(held.payee, (*book.held_for.get(held.payee, ()), key)),
    )


def _with_forward(book: Book, record: cr.HtlcForwarded, at: int) -> Book:
    incoming = (record.channel_id, record.htlc_id)
    live = book.links[record.channel_id].incoming(record.htlc_id)
    delivery = None if live is None else delivery_of(live.payload)
    if live is None or delivery is None:
        raise AssertionError("an HTLC was forwarded that is not locked in")
    held = book.held.get(incoming)
    forward = Forward(
        payment_hash=live.htlc.payment_hash,
        incoming=incoming,
        to=record.to,
        payee=delivery.payee,
        amount_msat=live.htlc.amount_msat - record.fee_msat,
        fee_msat=record.fee_msat,
        hold_seconds=record.seconds,
        created_at=at if held is None else held.created_at,
    )
    asked = mail.ForwardAsked(
        channel_id=record.channel_id,
        htlc_id=record.htlc_id,
        payment_hash=live.htlc.payment_hash,
        cltv_expiry=record.cltv_expiry,
        delivery=live.payload,
    )
    book = changed(
        _decided(book, incoming),
        forwards=book.forwards.set(incoming, forward),
    )
    return _telling(book, record.to, asked)


def _invoice_of(record: cr.InvoiceIssued, *, number: int, at: int) -> OwnInvoice:
    return OwnInvoice(
        payment_hash=record.payment_hash,
        preimage=record.preimage,
        payment_secret=record.payment_secret,
        amount_msat=record.amount_msat,
        description=record.description,
        expires_at=record.expires_at,
        text=record.text,
        number=number,
        expiry_seconds=record.expiry_seconds,
        hold_seconds=record.hold_seconds,
        created_at=at,
        label=record.label,
        external_id=record.external_id,
    )


def _payment_of(record: cr.PaymentStarted, *, number: int, at: int) -> Payment:
    return Payment(
        payment_hash=record.payment_hash,
        payee=record.payee,
        amount_msat=record.amount_msat,
        fee_msat=record.fee_msat,
        description=record.description,
        text=record.text,
        htlc=(record.channel_id, record.htlc_id),
        asker=record.asker,
        number=number,
        created_at=at,
        label=record.label,
    )


def _without(entries: Map[K, V], key: K) -> Map[K, V]:
    return entries.delete(key) if key in entries else entries
