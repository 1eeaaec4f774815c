"""How channels change by what is remembered of closes; alike for both roles."""

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.close_records import CloseFinished
from cromford.protocol.journal.closes import FinishedClose, SignedClose, with_close


def finished_close(record: CloseFinished) -> FinishedClose:
    """Return the close that a record says is finished."""
    return FinishedClose(
        close_id=record.close_id,
        outpoint=OutPoint.parse(record.outpoint),
        txs=tuple(Tx.parse(data) for data in record.txs),
    )


def with_finished_close(book: Book, record: CloseFinished) -> Book:
    """Return the channels after a close of them was finished: they stand still from here on."""
    outpoint = OutPoint.parse(record.outpoint)
    for channel_id, balance_msat in zip(record.channels, record.balances_msat, strict=True):
        close = SignedClose(
            close_id=record.close_id,
            outpoint=outpoint,
            balance_msat=balance_msat,
            is_finished=True,
        )
        link = book.links[channel_id]
        closed = changed(link, closes=with_close(link.closes, close), quiet_for=b"")
        book = changed(book, links=book.links.set(channel_id, closed))
    return book
