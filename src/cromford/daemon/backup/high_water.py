"""How far a store is, in a form that a mark in another place can prove.

Every record of a journal has a number that no other has, whatever its stream. A *position* is the
number of a record and a digest of the chain of all records up to it, each with its stream: so one
position covers all streams, and two stores with one position have one past. Of the chain a store
keeps the newest position, in a *memo* that is written with the records; one that is behind its
records catches up from them.

A *line* is a store that goes on: a copy that is put back begins another, so that the mark of the
line that was lost stays as it is.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.ports import Archived, Entry, Store, StoreFailed
from cromford.protocol.journal.streams import CREATION

MEMO_KEY: Final = b"high_water"
DIGEST_SIZE: Final = 32
LINE_SIZE: Final = 8
RESTORE_SIZE: Final = 4
NO_RECORD: Final = 1 << 62  # Above the number of every record.
_RECORDS_AT_ONCE: Final = 1_000
_LINK: Final = b"cromford/chain"
_SIZE_BYTES: Final = 4


class HighWaterMark(NamedTuple):
    """How far: the number of a record, and the digest of the chain up to it."""

    number: int
    digest: bytes


class MarkSays(Enum):
    """What a mark says of a store."""

    CONTAINED = "contained"  # The store has all that was marked.
    LEADS = "leads"  # Records were marked that the store never had, or lost.
    DIFFERS = "differs"  # It has as many, but others.
    UNKNOWN = "unknown"  # The records that would tell are gone.


class Memo(msgspec.Struct, frozen=True, kw_only=True):
    """What a store knows of its own marks.

    Attributes:
        number: Of the newest record that `digest` covers.
        digest: Of the chain up to it.
        line: Whose marks are the store's own.
        known: All lines that it ever knew.
        is_kept: Whether its own line's mark was made: from then on it has to be there.
        noted: A mark of the line that was written, as number and digest: it needs no records.
        origins: The lines that it was restored from, since it was last proven, one for each time:
            only all of their marks together prove that nothing was lost. Empty bytes stand for a
            line without a mark, or one that is known to have lost records: nothing proves it.
        source: Where it was restored from; empty of a store that is not, or is proven.
        was_proven: Whether it is one that was restored, and proven: what is marked of it may be
            told so again.
        restores: Of each restore the number of the first record that followed it, and what names of
            events have from there on: lost ones had the same numbers. `NO_RECORD` once it is proven
            that it lost none: then only who was told such a name knows it still.
        heeded: Of the replica that proved last that records were lost, its newest record's number
            and SHA-256: what it proves is done with.
        is_left_out: Whether its line's mark is behind, because the store went on without it: then
            that mark proves nothing of a copy.
    """

    number: int
    digest: bytes
    line: bytes = b""
    known: tuple[bytes, ...] = ()
    is_kept: bool = False
    noted: tuple[int, bytes] = (0, b"")
    origins: tuple[bytes, ...] = ()
    source: str = ""
    was_proven: bool = False
    restores: tuple[tuple[int, bytes], ...] = ()
    heeded: tuple[int, bytes] = (0, b"")
    is_left_out: bool = False

    @property
    def restores_if_proven(self) -> tuple[tuple[int, bytes], ...]:
        """The restores once it is proven that the newest ones lost nothing."""
        n_kept = len(self.restores) - len(self.origins)
        proven = ((NO_RECORD, name) for _, name in self.restores[n_kept:])
        return (*self.restores[:n_kept], *proven)


_MEMO_DECODER: Final = msgspec.msgpack.Decoder(Memo)


def linked(digest: bytes, stream: str, record: bytes) -> bytes:
    """Return the digest of a chain after one record more."""
    name = stream.encode()
    size = len(name).to_bytes(_SIZE_BYTES, "big")
    return hashlib.sha256(_LINK + digest + size + name + record).digest()


def read_memo(store: Store) -> Memo | None:
    """Return what a store knows of its marks; None if it never had any.

    Raises:
        StoreFailed: If it cannot be read.
    """
    data = store.archived(CREATION, MEMO_KEY)
    if data is None:
        return None
    try:
        return decoded(_MEMO_DECODER, data)
    except MalformedBytes as error:
        raise StoreFailed(f"the journal's memo of its mark is damaged: {error}") from error


def leave_out_mark(store: Store, memo: Memo) -> None:
    """Let a store know, durably, that it goes on without its mark.

    Raises:
        StoreFailed: If it cannot be written.
    """
    store.append([], [_kept(msgspec.structs.replace(memo, is_left_out=True))])


def _kept(memo: Memo) -> Archived:
    return Archived(CREATION, MEMO_KEY, msgspec.msgpack.encode(memo))


@dataclass(slots=True)
class HighWater:
    """A store's chain as it grows. One thread at a time uses it.

    Attributes:
        memo: What is written with the next records.
        position: Of the newest record.
    """

    store: Store
    memo: Memo
    position: HighWaterMark

    @staticmethod
    def of(store: Store) -> "HighWater":
        """Return a store's chain, caught up with its records.

        Raises:
            StoreFailed: If it cannot be read.
        """
        memo = read_memo(store)
        position = None if memo is None else _rolled(store, HighWaterMark(memo.number, memo.digest))
        if position is None:
            position = _beginning(store)
        memo = memo or Memo(number=position.number, digest=position.digest)
        return HighWater(store=store, memo=memo, position=position)

    def grown(self, entries: Sequence[Entry]) -> Archived:
        """Go on by records that are appended now; return the memo to append with them."""
        digest = self.position.digest
        for stream, record in entries:
            digest = linked(digest, stream, record)
        self.position = HighWaterMark(self.position.number + len(entries), digest)
        return self.written()

    def written(self) -> Archived:
        """Return the memo as it is to be kept."""
        number, digest = self.position
        self.memo = msgspec.structs.replace(self.memo, number=number, digest=digest)
        return _kept(self.memo)

    def change(self, **fields: object) -> None:
        """Change the memo, to be kept with the next records."""
        self.memo = msgspec.structs.replace(self.memo, **fields)

    def standing(self, mark: HighWaterMark) -> MarkSays:
        """Return what a mark says of the store.

        Raises:
            StoreFailed: If it cannot be read.
        """
        if mark.number > self.position.number:
            return MarkSays.LEADS
        if mark == self.memo.noted:
            return MarkSays.CONTAINED
        reached = _rolled(self.store, mark)
        if reached is None:
            return MarkSays.UNKNOWN
        return MarkSays.CONTAINED if reached == self.position else MarkSays.DIFFERS


def _rolled(store: Store, position: HighWaterMark) -> HighWaterMark | None:
    """Return a position after all newer records; None if one of them is gone, or it is beyond."""
    number, digest = position
    if number > store.newest or (number < store.newest and number < store.oldest - 1):
        return None
    while page := store.history(after=number, limit=_RECORDS_AT_ONCE):
        for kept in page:
            digest = linked(digest, kept.stream, kept.record)
        number = page[-1].number
    return HighWaterMark(number, digest)


def _beginning(store: Store) -> HighWaterMark:
    """Return the position of a store that has no chain yet: it begins with the newest record."""
    newest: Iterable[bytes] = (
        kept.record for kept in store.history(after=store.newest - 1, limit=1)
    )
    record = next(iter(newest), b"")
    return HighWaterMark(store.newest, linked(bytes(DIGEST_SIZE), str(store.newest), record))
