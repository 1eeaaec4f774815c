"""How a book is marked when its store is put back from a backup, and how it loses the marks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar, assert_never, cast

from cromford.changed import changed
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book import Book, OwnInvoice
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import Restored, StoreMark
from cromford.wallet.account import GAP_LIMIT
from cromford.wallet.coins import Wallet


class HasKeys(Protocol):
    """A state that numbers attempts: a client's, and a house's."""

    @property
    def restored(self) -> Restored:
        """What a restore left open."""

    @property
    def wallet(self) -> Wallet:
        """Its coins."""


S = TypeVar("S", bound=HasKeys)


def after_restore(state: S, record: r.StoreRecord, at: int) -> S:
    """Return a state that numbers attempts after what a record says of its store, at a unix time.

    A start skips keys once after each restore: that is the first record with a time.
    """
    changes: dict[str, Any] = {}
    match record:
        case r.StoreRestored():
            changes["restored"] = Restored(is_unproven=True, forgot_keys=True)
        case r.MarkLifted():
            changes["restored"] = replace(state.restored, is_unproven=False)
        case r.KeysSkipped(next_attempt=next_attempt, scripts=scripts):
            restored = state.restored
            since = at if restored.forgot_keys else restored.since
            changes["restored"] = replace(restored, forgot_keys=False, since=since)
            changes["next_attempt"] = next_attempt
            changes["wallet"] = state.wallet.with_gap(max(scripts, GAP_LIMIT))
        case _:
            assert_never(record)
    return cast("S", changed(cast("Any", state), **changes))


def marked(book: Book) -> Book:
    """Return the book after its store was put back.

    A channel that had failed before takes no mark: since then nothing of it was revoked, so its
    commitment is the last one in every later store, too. An open invoice is doubtful: it may have
    been paid since, and whoever saw its preimage could keep what is paid for it now.
    """
    return _changed(book, _marked, is_doubtful=True)


def unmarked(book: Book) -> Book:
    """Return the book once it was proved that nothing was lost."""
    return _changed(book, _unmarked, is_doubtful=False)


def _marked(link: Link) -> Link:
    return link if link.failure is not None else changed(link, mark=StoreMark())


def _unmarked(link: Link) -> Link:
    return link if link.mark is None else changed(link, mark=None)


def _changed(book: Book, of_link: Callable[[Link], Link], *, is_doubtful: bool) -> Book:
    links, invoices = book.links, book.invoices
    for channel_id, link in links.items():
        links = links.set(channel_id, of_link(link))
    for payment_hash, invoice in invoices.items():
        if _is_unsettled(invoice) and invoice.is_doubtful != is_doubtful:
            invoices = invoices.set(payment_hash, changed(invoice, is_doubtful=is_doubtful))
    return changed(book, links=links, invoices=invoices)


def _is_unsettled(invoice: OwnInvoice) -> bool:
    return invoice.paid_by is None and not invoice.is_expired
