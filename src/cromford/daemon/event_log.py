"""What happened, in order, as people and programs read it: a view of the journal.

Every record has a place in the journal for ever, and a cursor names it. So a reader that remembers
the last cursor it saw misses nothing and sees nothing twice, over restarts and checkpoints, as long
as it comes back within the newest `EVENTS_KEPT` records; one that comes later is told so. Where a
store was put back from a backup, others followed in the places of those that were lost: cursors
of both differ, and a reader with one of the lost is told so, too.
Signatures, nonces and keys stay in the journal, and so do preimages, payment secrets and the
invoices that hold them. What an operator calls an invoice is told with what becomes of it.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from cromford.answers.events import EventAnswer
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.backup.high_water import NO_RECORD
from cromford.ports import EVENTS_KEPT, Store
from cromford.protocol.journal.channel_records import InvoiceExpired, InvoicePaid
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.records import AnyRecord, Dated, decode_dated
from cromford.protocol.journal.spending_records import SpendingWasSigned

EVENTS_PER_ANSWER_MAX: Final = 1_000
_TOLD: Final = frozenset(
    {
        "aborted", "advance_id", "amount_msat", "amount_sat", "attempt", "attempt_id",
        "attempt_ids", "base_msat", "buyer", "came", "capacities_sat", "capacity_least_sat",
        "capacity_sat", "change", "channel_id", "client", "clients", "close_id", "culprits",
        "expires_at", "external_id", "factory_pubkey", "fee_msat", "fee_sat", "height", "htlc_id",
        "in_channel_id", "in_htlc_id", "is_behind", "is_fault", "is_for_sale", "is_moved",
        "is_moving", "is_refusal", "label", "lstock_sat", "max_clients", "min_clients", "min_sat",
        "moves_from", "name", "network", "next_attempt",
        "node_id", "node_ids", "out_channel_id", "outputs", "own_msat", "payee", "payment_hash",
        "per_million", "per_month", "period", "price_msat", "quote_id", "reason", "reasons",
        "refusal", "role", "spent_by", "state_index", "to", "to_attempt_id", "transactions", "txid",
        "until_height", "went",
    }
)  # fmt: skip
_HASHES: Final = frozenset({"network", "spent_by", "txid"})  # In the byte order of people.
_CURSOR: Final = re.compile(r"([0-9a-f]{1,8})-(?:([0-9a-f]{8})-)?([0-9a-f]{1,15})", re.ASCII)


class CursorUnknown(ValueError):
    """A cursor that this journal never gave."""


class CursorExpired(Exception):
    """What followed a cursor is no longer kept, so that telling the rest would leave a gap."""


class Called(NamedTuple):
    """What the operator calls an invoice."""

    label: str
    external_id: str


class EventLog:
    """The newest events, in the order of the journal.

    Attributes:
        called: Returns what the operator calls the invoice of a payment hash, if it is one.

    Args:
        store: The journal.
        journal_number: Its number, so that no cursor of another is taken for one of this.
        restores: Returns, of each restore, in their order, the number of the first record that
            followed, and four bytes that events are named by from there on; `NO_RECORD` of one that
            is known to have lost nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        journal_number: int,
        restores: Callable[[], Sequence[tuple[int, bytes]]] = tuple,
    ) -> None:
        self._store = store
        self._journal_number = journal_number
        self._restores = restores
        self._news = asyncio.Event()
        self._is_closed = False
        self.called: Callable[[bytes], Called | None] = lambda _payment_hash: None

    @property
    def journal_number(self) -> int:
        """The journal's number, which every cursor has."""
        return self._journal_number

    @property
    def n_seen(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._store.newest

    @property
    def is_closed(self) -> bool:
        """Whether the daemon stops, so that nothing is waited for any more."""
        return self._is_closed

    def news(self) -> None:
        """Take note that something is durable that was not before."""
        self._news.set()

    def close(self) -> None:
        """End every wait, and let none begin: the daemon stops."""
        self._is_closed = True
        self._news.set()

    def cursor_of(self, number: int) -> str:
        """Return what a reader remembers who has seen the events up to a number."""
        named_by = self._named_by(number)
        return f"{self._journal_number:x}-{f'{named_by}-' if named_by else ''}{number:x}"

    def _named_by(self, number: int) -> str:
        """Return what an event is named by beside its number: the last restore before it."""
        return self._names_of(number)[0]

    def _names_of(self, number: int) -> list[str]:
        """Return the same, and what it was named by before it was proven that nothing was lost."""
        names = [""]
        for first, name in self._restores():
            if first == NO_RECORD:
                names.append(name.hex())
            elif first <= number:
                names = [name.hex()]
        return names

    def number_of(self, cursor: str) -> int:
        """Return the number of the last event that a reader has seen.

        Args:
            cursor: What it remembers; nothing for one that begins with the oldest that is kept.

        Raises:
            CursorUnknown: If it is no cursor of this journal.
            CursorExpired: If events that followed it are gone.
        """
        if not cursor:
            return self._store.oldest - 1
        named = _CURSOR.fullmatch(cursor)
        if named is None:
            raise CursorUnknown(f"{cursor!r} is no cursor")
        if int(named[1], 16) != self._journal_number:
            raise CursorUnknown(f"{cursor!r} is a cursor of another journal")
        number = int(named[3], 16)
        if (named[2] or "") not in self._names_of(number):
            raise CursorUnknown(
                f"{cursor!r} names an event of before the journal was put back from a backup, "
                "which may have lost it"
            )
        if number > self.n_seen:
            raise CursorUnknown(f"{cursor!r} names an event that this journal does not have")
        if number < self._store.oldest - 1:
            raise self._expired(number)
        return number

    def _expired(self, number: int) -> CursorExpired:
        return CursorExpired(
            f"only the newest {EVENTS_KEPT} events are kept, and some that followed "
            f"{self.cursor_of(number)!r} are gone"
        )

    def after(
        self, number: int, *, limit: int = EVENTS_PER_ANSWER_MAX, skips_gone: bool = False
    ) -> list[EventAnswer]:
        """Return the events after a number, oldest first.

        Args:
            number: Of an event.
            limit: How many at the most.
            skips_gone: Whether to begin with the oldest there is, if the next one is gone.

        Raises:
            CursorExpired: If the next one is gone, and none is to be skipped.
        """
        kept = self._store.history(after=number, limit=min(limit, EVENTS_PER_ANSWER_MAX))
        if kept and kept[0].number != number + 1 and not skips_gone:
            raise self._expired(number)
        return [
            {"cursor": self.cursor_of(number), **self._shown(decode_dated(record))}
            for number, _, record in kept
        ]

    def _shown(self, dated: Dated) -> EventAnswer:
        told = _shown(dated.record)
        shown: EventAnswer = {"event": told.pop("event"), "at": dated.at or None, **told}
        if isinstance(dated.record, InvoicePaid | InvoiceExpired):
            called = self.called(dated.record.payment_hash)
            if called is not None:
                shown |= called._asdict()
        return shown

    async def wait_after(
        self, number: int, *, seconds: float, skips_gone: bool = False
    ) -> list[EventAnswer]:
        """Return the events after a number, waiting for one if there is none yet.

        Raises:
            CursorExpired: If the next one is gone, and none is to be skipped.
        """
        if not await self.wait_beyond(number, seconds=seconds):
            return []
        try:
            # The journal may be busy with a commit: the loop does not wait for its turn.
            return await asyncio.to_thread(self.after, number, skips_gone=skips_gone)
        except RuntimeError:  # No thread may be had: then it does.
            return self.after(number, skips_gone=skips_gone)

    async def wait_beyond(self, number: int, *, seconds: float) -> bool:
        """Wait for an event with a greater number, and say whether there is one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Again after each: it may have been news of what was counted before.
                while self.n_seen <= number and not self._is_closed:
                    await self.more()
        return self.n_seen > number

    async def more(self) -> None:
        """Wait until something more is durable, or the daemon stops."""
        if not self._is_closed:
            self._news.clear()
            await self._news.wait()


def _shown(record: AnyRecord) -> dict[str, Any]:
    # Mail that was taken is told by what it says.
    news = record.mail if isinstance(record, MailTaken) else record
    told = {
        name: str(Txid(value)) if name in _HASHES else _plain(value)
        for name, value in msgspec.structs.asdict(news).items()
        if name in _TOLD
    }
    if isinstance(news, SpendingWasSigned):
        told |= _payment(news)
    return {"event": type(news).__struct_config__.tag, **told}


def _payment(signed: SpendingWasSigned) -> dict[str, Any]:
    """Return by which name a payment is found, and that of the one in whose place it is."""
    replaced = {"replaces": str(Txid(signed.replaces))} if signed.replaces else {}
    return {"txid": str(Tx.parse(signed.tx).txid), **replaced}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
