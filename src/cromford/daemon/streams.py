"""One stream of the journal: where its state stands, and when a checkpoint is due.

A stream is loaded from its checkpoint and the records that follow it. The next checkpoint is due
when those have grown to a fixed share of the last snapshot's size, so that what snapshots cost,
spread over the records, is the same however much ever happened; and so is what a start has to fold.
What lies on the shelves of a state is in no snapshot: a checkpoint writes what changed of it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from cromford import __version__
from cromford.ports import SNAPSHOT_SIZE_MAX, Checkpoint, Row, Store, StoreDamaged, StoreFailed
from cromford.protocol.journal.records import AnyRecord, UnknownRecord, decode_dated
from cromford.protocol.journal.rows import SHAPES
from cromford.protocol.journal.snapshot import Position, Shelved, Snapshots, UnreadableSnapshot
from cromford.shelf import Shelf, with_shelves

S = TypeVar("S")

_log = logging.getLogger(__name__)
TAIL_SIZE_MIN: Final = 1024 * 1024  # Bytes of records that are always folded rather than snapshot.
TAIL_SHARE: Final = 0.25  # Of the last snapshot's size.


class SnapshotDiffers(AssertionError):
    """A snapshot does not say what the state says: always a bug of ours. It is not written."""


class SnapshotTooLarge(Exception):
    """A snapshot is larger than what a store keeps. It is not written; the records stay."""


class _StoredRows:
    """The rows of one stream, as they are stored. Implements `rows.Rows`.

    Attributes:
        are_void: Whether they count for nothing, because they lie beside a damaged checkpoint.
    """

    def __init__(self, store: Store, stream: str) -> None:
        self._store = store
        self._stream = stream
        self.are_void = False

    def get(self, shelf: str, key: bytes) -> bytes | None:
        return None if self.are_void else self._store.row(self._stream, shelf, key)

    def among(self, shelf: str, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        return iter(()) if self.are_void else self._store.rows_of(self._stream, shelf, keys)

    def walk(self, shelf: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(()) if self.are_void else self._store.rows(self._stream, shelf, start=start)

    def left_over(self, written: Shelved, shelves: Iterable[str]) -> Iterator[Row]:
        """Yield what takes those void rows away in whose place nothing is written."""
        if self.are_void:
            replaced = {(row.shelf, row.key) for row in written.rows}
            for shelf in (*shelves, SHAPES):
                for key, _ in self._store.rows(self._stream, shelf):
                    if (shelf, key) not in replaced:
                        yield Row(shelf, key, None)


@dataclass(frozen=True, slots=True)
class _Made(Generic[S]):
    """A checkpoint that was made: of what state, and what will be read once it is stored."""

    n: int
    state: S
    read: S


class Stream(Generic[S]):
    """A stream that is open. Its state is the one that it was loaded with, or snapshot last.

    A checkpoint that is damaged costs nothing while the records are there that it stands for: they
    are folded instead, and the next checkpoint is due at once. Older ones than the newest
    `EVENTS_KEPT` may be gone.

    Args:
        store: The journal.
        name: The stream's.
        beginning: The state before the first record.
        apply: The fold, of records with the times they were remembered at.
        snapshots: Writes and reads the states; None for a stream that is always folded.

    Raises:
        StoreDamaged: If its checkpoint cannot be read, and records that it stands for are gone.
        StoreFailed: If the journal cannot be read.
        UnknownRecord: If a record cannot be.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        beginning: S,
        apply: Callable[[S, AnyRecord, int], S],
        snapshots: Snapshots[S] | None,
    ) -> None:
        self.name = name
        self.state = beginning
        self.n = 0
        self._store = store
        self._snapshots = snapshots
        self._snapshot_size = 0
        self._tail_size = 0
        self._checkpoint_n = 0
        self._label = b""
        self._rows = _StoredRows(store, name)
        self._made: _Made[S] | None = None
        self._is_in_one_piece = False
        self._has_kept = False  # Whether a checkpoint was stored since it was opened.
        try:
            self._begin()
        except StoreDamaged as damaged:
            self._fold_all(apply, damaged)
        else:
            self._fold(apply)

    def _fold_all(self, apply: Callable[[S, AnyRecord, int], S], damaged: StoreDamaged) -> None:
        """Fold every record there ever was in the place of a damaged checkpoint."""
        try:
            self._fold(apply)
        except (StoreFailed, UnknownRecord) as error:
            raise StoreDamaged(f"{damaged}; its records cannot take its place: {error}") from error
        self._rows.are_void = True
        self._is_in_one_piece = True
        _log.warning(
            "checkpoint_damaged stream=%s records=%d reason=%s", self.name, self.n, damaged
        )

    def _fold(self, apply: Callable[[S, AnyRecord, int], S]) -> None:
        for data in self._store.replay(self.name, after=self.n):
            try:
                record, at = decode_dated(data)
            except UnknownRecord as error:
                where = f"record {self.n + 1} of {self.name}"
                raise type(error)(f"{where}: {error}") from error
            self.state = apply(self.state, record, at)
            self.count(data)

    def _begin(self) -> None:
        checkpoint = self._store.checkpoint(self.name)
        if checkpoint is None:
            return
        if self._snapshots is None:
            raise StoreFailed(f"{self.name} has a checkpoint that nobody can read")
        position = Position(self.name, checkpoint.n)
        try:
            self.state = self._snapshots.open(checkpoint.snapshot, position, stored=self._rows)
        except UnreadableSnapshot as unreadable:
            raise StoreDamaged(str(unreadable)) from unreadable
        self.n = checkpoint.n
        self._snapshot_size = len(checkpoint.snapshot)
        self._checkpoint_n = checkpoint.n
        self._label = checkpoint.label
        shelves = shelves_of(self.state) if self._snapshots.has_shelves else {}
        self._is_in_one_piece = any(shelf.changed for shelf in shelves.values())

    def count(self, data: bytes) -> None:
        """Take note of a record; the state after it is held by whoever decided."""
        self.n += 1
        self._tail_size += len(data)

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint is due; it is after an older one, whose shelves lay within it."""
        due_size = max(TAIL_SIZE_MIN, TAIL_SHARE * self._snapshot_size)
        is_grown = self._is_in_one_piece or self._tail_size >= due_size
        return self._snapshots is not None and is_grown

    def is_said_by_checkpoint(self, label: bytes) -> bool:
        """Say whether the last checkpoint has this label, and no record has followed it."""
        return self.n == self._checkpoint_n and label == self._label

    def begin_checkpoint(
        self, state: S | None = None, *, label: bytes = b"", wake_height: int | None = None
    ) -> Callable[[], Checkpoint]:
        """Return what makes a checkpoint of the state as it is now, in any thread.

        Args:
            state: The state, where mail was let go of it that needs no record; else as it is known.
            label: What is to be known of it without it.
            wake_height: From which height it is to be loaded; None for never.

        It raises `SnapshotTooLarge`, or `SnapshotDiffers`, or what `Snapshots.encode` and `decode`
        raise, if it cannot: all but the first are bugs of ours, or a damaged file, and the records
        are still there. Until the next is due, as many follow again.

        Raises:
            ValueError: If the stream is always folded.
        """
        if state is not None:
            self.state = state
        snapshots, state, position = self._snapshots, self.state, Position(self.name, self.n)
        if snapshots is None:
            raise ValueError(f"{self.name} has no checkpoints")
        self._tail_size = 0
        self._is_in_one_piece = False
        kept_n = self._checkpoint_n

        def make() -> Checkpoint:
            if snapshots.has_shelves:
                self._check_is_newest(kept_n)
                written = snapshots.shelve(
                    state, position, written_by=__version__, stored=self._rows
                )
                # All rows are read, so once a run: what they add up to follows from then on.
                is_first = not self._has_kept
                read = snapshots.reread(written, position, stored=self._rows, counts=is_first)
            else:
                written = Shelved(snapshots.encode(state, position, written_by=__version__), ())
                read = snapshots.decode(written.snapshot, position)
            if read != state:
                raise SnapshotDiffers(f"the snapshot of {position.stream} after {position.n}")
            if (size := len(written.snapshot)) > SNAPSHOT_SIZE_MAX:
                raise SnapshotTooLarge(
                    f"a snapshot has at most {SNAPSHOT_SIZE_MAX} bytes, this one {size}"
                )
            if snapshots.has_shelves:
                self._made = _Made(position.n, state, read)
            rows = [Row(*row) for row in written.rows]
            rows += self._rows.left_over(written, shelves_of(state))
            return Checkpoint(
                position.stream, position.n, written.snapshot, label, wake_height, rows
            )

        return make

    def keep(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint take the place of the records that it stands for.

        Raises:
            StoreFailed: If the journal could not be written.
        """
        self._store.replace_checkpoint(checkpoint)
        self.kept(checkpoint)

    def kept(self, checkpoint: Checkpoint) -> Callable[[Any], Any]:
        """Take note that a checkpoint took the place of its records, and its rows are stored.

        Returns:
            What lets go of the rows in a later state of the stream.
        """
        self._snapshot_size = len(checkpoint.snapshot)
        self._checkpoint_n = checkpoint.n
        self._label = checkpoint.label
        self._rows.are_void = False
        self._has_kept = True
        made, self._made = self._made, None
        if self._snapshots is None or not self._snapshots.has_shelves:
            return lambda value: value
        if made is None or made.n != checkpoint.n:
            raise AssertionError(f"a checkpoint of {self.name} that was not made here")
        written, read = shelves_of(made.state), shelves_of(made.read)

        def stored(name: str, shelf: Shelf[Any, Any]) -> Shelf[Any, Any]:
            ground = read[name].ground
            return shelf if ground is None else shelf.stored(written[name], ground)

        self.state = with_shelves(self.state, stored)
        return lambda value: with_shelves(value, stored)

    def _check_is_newest(self, kept_n: int) -> None:
        """Check that what a checkpoint adds to is still the one that is stored."""
        if kept_n != self._checkpoint_n:
            raise AssertionError(f"another checkpoint of {self.name} was stored meanwhile")


def shelves_of(value: object) -> dict[str, Shelf[Any, Any]]:
    """Return the shelves of a stream's value, by name."""
    found: dict[str, Shelf[Any, Any]] = {}

    def note(name: str, shelf: Shelf[Any, Any]) -> Shelf[Any, Any]:
        found[name] = shelf
        return shelf

    with_shelves(value, note)
    return found
