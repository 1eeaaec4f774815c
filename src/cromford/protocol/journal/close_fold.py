"""How a close under way, and the channels in its scope, change by what is remembered of it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple, TypeVar, assert_never

from immutables import Map

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.closes import FinishedClose, SignedClose, with_close
from cromford.protocol.journal.closing import (
    Agreed,
    Agreeing,
    ClientClosing,
    Closing,
    EndedClose,
    Signing,
)
from cromford.protocol.journal.encoding import decoded_pool

StageT = TypeVar("StageT", Agreeing, Signing)


class LspCloses(NamedTuple):
    """What of a factory's state is about closes, and its channels.

    The one under way, how many were begun, and the newest that came to nothing. Once a close is
    over, finished or not, none is under way.
    """

    closing: Closing | None
    n_closes: int
    ended: EndedClose | None
    book: Book


def with_lsp_close(
    closes: LspCloses, record: cl.LspCloseRecord | cl.SharedCloseRecord
) -> LspCloses:
    """Return an LSP's closes after a record.

    Raises:
        AssertionError: If it is about another close than the one under way.
    """
    closing, book = closes.closing, closes.book
    if isinstance(record, cl.CloseBegun):
        begun = Closing(
            close_id=record.close_id,
            outpoint=OutPoint.parse(record.outpoint),
            clients=record.clients,
            feerates_sat_per_kw=record.feerates_sat_per_kw,
        )
        quiet = _with_quiet(book, _channels_of(book, begun.clients), record.close_id)
        return LspCloses(begun, closes.n_closes + 1, None, quiet)
    if isinstance(record, cl.CloseFinished):
        return closes._replace(closing=None, book=with_finished_close(book, record))
    if isinstance(record, cl.CloseConfirmed):
        return closes
    if closing is None or closing.close_id != record.close_id:
        raise AssertionError(f"close {record.close_id.hex()} is not under way")
    match record:
        case cl.CloseEnded(reason=reason):
            book = _with_quiet(book, _channels_of(book, closing.clients), b"")
            ended = EndedClose(close_id=closing.close_id, reason=reason, outpoint=closing.outpoint)
            return closes._replace(closing=None, ended=ended, book=book)
        case cl.CloseProposed(txs=txs):
            return closes._replace(closing=_proposed(closing, txs))
        case cl.ClosePoolMade(pool=pool):
            stage: Agreeing | Signing = replace(_stage(closing, Agreeing), pool=decoded_pool(pool))
        case cl.CloseAgreementReceived(client=client):
            agreeing = _stage(closing, Agreeing)
            word = Agreed(
                balance_msat=record.balance_msat,
                pool=decoded_pool(record.pool),
                is_ours=record.is_ours,
            )
            stage = replace(agreeing, agreed={**agreeing.agreed, client: word})
        case cl.ClosePartialsReceived(client=client, partial_sigs=partial_sigs):
            signing = _stage(closing, Signing)
            stage = replace(signing, partial_sigs={**signing.partial_sigs, client: partial_sigs})
            (channel_id,) = _channels_of(book, (client,))
            book = _with_signed(book, channel_id, _signed(closing, signing, client))
        case _:
            assert_never(record)
    return closes._replace(closing=replace(closing, stage=stage), book=book)


class ClientCloses(NamedTuple):
    """What of a client's state is about closes: those under way by their names, and channels."""

    closing: Map[bytes, ClientClosing]
    book: Book


def with_client_close(
    closes: ClientCloses, record: cl.ClientCloseRecord | cl.SharedCloseRecord
) -> ClientCloses:
    """Return a client's closes after a record."""
    closing, book = closes
    close_id = record.close_id
    match record:
        case cl.CloseAgreed():
            begun = ClientClosing(
                close_id=close_id,
                attempt_id=record.attempt_id,
                channel_id=record.channel_id,
                outpoint=OutPoint.parse(record.outpoint),
                feerates_sat_per_kw=record.feerates_sat_per_kw,
                balance_msat=record.balance_msat,
            )
            book = _with_quiet(book, (record.channel_id,), close_id)
            return ClientCloses(closing.set(close_id, begun), book)
        case cl.ClosePoolMade(pool=pool):
            made = replace(closing[close_id], pool=decoded_pool(pool))
            return ClientCloses(closing.set(close_id, made), book)
        case cl.CloseSigned(txids=txids):
            signed = replace(closing[close_id], is_signed=True)
            balance_msat = signed.balance_msat
            if record.balance_msat is not None:
                balance_msat = record.balance_msat
            if balance_msat is None:
                raise AssertionError("a close was signed of which nothing says what it pays")
            close = SignedClose(
                close_id=close_id,
                outpoint=signed.outpoint,
                balance_msat=balance_msat,
                txids=tuple(Txid(txid) for txid in txids),
            )
            book = _with_signed(book, signed.channel_id, close)
            book = _with_quiet(book, (signed.channel_id,), b"")
            return ClientCloses(closing.set(close_id, signed), book)
        case cl.CloseEnded():
            ended = closing[close_id]
            if not ended.is_signed:
                book = _with_quiet(book, (ended.channel_id,), b"")
            return ClientCloses(closing.delete(close_id), book)
        case cl.CloseFinished():
            over = closing.delete(close_id) if close_id in closing else closing
            return ClientCloses(over, with_finished_close(book, record))
        case cl.CloseConfirmed():
            return closes
        case _:
            assert_never(record)


def finished_close(record: cl.CloseFinished) -> FinishedClose:
    """Return the close that a record says is finished."""
    return FinishedClose(
        close_id=record.close_id,
        outpoint=OutPoint.parse(record.outpoint),
        txs=tuple(Tx.parse(data) for data in record.txs),
    )


def with_finished_close(book: Book, record: cl.CloseFinished) -> Book:
    """Return the channels after a close of them was finished: they stand still from here on."""
    finished = finished_close(record)
    for channel_id, balance_msat in zip(record.channels, record.balances_msat, strict=True):
        close = SignedClose(
            close_id=record.close_id,
            outpoint=finished.outpoint,
            balance_msat=balance_msat,
            is_finished=True,
            txids=finished.txids,
        )
        link = book.links[channel_id]
        closed = changed(link, closes=with_close(link.closes, close), quiet_for=b"")
        book = changed(book, links=book.links.set(channel_id, closed))
    return book


def _stage(closing: Closing, kind: type[StageT]) -> StageT:
    if not isinstance(closing.stage, kind):
        raise AssertionError(f"{closing.stage.label} where {kind.label} was expected")
    return closing.stage


def _proposed(closing: Closing, txs: tuple[bytes, ...]) -> Closing:
    agreeing = _stage(closing, Agreeing)
    if agreeing.pool is None:
        raise AssertionError("a close was proposed before its nonces were made")
    signing = Signing(
        pool=agreeing.pool,
        agreed=agreeing.agreed,
        txs=tuple(Tx.parse(data) for data in txs),
    )
    return replace(closing, stage=signing)


def _signed(closing: Closing, signing: Signing, client: int) -> SignedClose:
    return SignedClose(
        close_id=closing.close_id,
        outpoint=closing.outpoint,
        balance_msat=signing.agreed[client].balance_msat,
        txids=tuple(tx.txid for tx in signing.txs),
    )


def _with_signed(book: Book, channel_id: bytes, close: SignedClose) -> Book:
    link = book.links[channel_id]
    bound = changed(link, closes=with_close(link.closes, close))
    return changed(book, links=book.links.set(channel_id, bound))


def _channels_of(book: Book, clients: Iterable[int]) -> tuple[bytes, ...]:
    """Return the ids of these clients' channels, in the order of the ids."""
    wanted = frozenset(clients)
    return tuple(link.channel_id for link in book.ordered_links if link.client in wanted)


def _with_quiet(book: Book, channels: Iterable[bytes], close_id: bytes) -> Book:
    for channel_id in channels:
        quiet = changed(book.links[channel_id], quiet_for=close_id)
        book = changed(book, links=book.links.set(channel_id, quiet))
    return book
