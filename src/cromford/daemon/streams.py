"""One stream of the journal: where its state stands, and when a checkpoint is due.

A stream is loaded from its checkpoint and the records that follow it. The next checkpoint is due
when those have grown to a fixed share of the last snapshot's size, so that what snapshots cost,
spread over the records, is the same however much ever happened; and so is what a start has to fold.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from cromford import __version__
from cromford.ports import Checkpoint, Store, StoreFailed
from cromford.protocol.journal.records import AnyRecord, decode_record
from cromford.protocol.journal.snapshot import Position, Snapshots, UnreadableSnapshot

S = TypeVar("S")

TAIL_SIZE_MIN: Final = 1024 * 1024  # Bytes of records that are always folded rather than snapshot.
TAIL_SHARE: Final = 0.25  # Of the last snapshot's size.


class SnapshotDiffers(AssertionError):
    """A snapshot does not say what the state says: always a bug of ours. It is not written."""


class Stream(Generic[S]):
    """A stream that is open. Its state is the one that it was loaded with, or snapshot last.

    Args:
        store: The journal.
        name: The stream's.
        beginning: The state before the first record.
        apply: The fold.
        snapshots: Writes and reads the states; None for a stream that is always folded.

    Raises:
        StoreFailed: If the journal or its checkpoint cannot be read.
        UnknownRecord: If a record cannot be.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        beginning: S,
        apply: Callable[[S, AnyRecord], S],
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
        self._begin()
        for data in store.replay(name, after=self.n):
            self.state = apply(self.state, decode_record(data))
            self.count(data)

    def _begin(self) -> None:
        checkpoint = self._store.checkpoint(self.name)
        if checkpoint is None:
            return
        if self._snapshots is None:
            raise StoreFailed(f"{self.name} has a checkpoint that nobody can read")
        try:
            self.state = self._snapshots.decode(
                checkpoint.snapshot, Position(self.name, checkpoint.n)
            )
        except UnreadableSnapshot as unreadable:
            raise StoreFailed(str(unreadable)) from unreadable
        self.n = checkpoint.n
        self._snapshot_size = len(checkpoint.snapshot)
        self._checkpoint_n = checkpoint.n
        self._label = checkpoint.label

    def count(self, data: bytes) -> None:
        """Take note of a record; the state after it is held by whoever decided."""
        self.n += 1
        self._tail_size += len(data)

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint is due."""
        due_size = max(TAIL_SIZE_MIN, TAIL_SHARE * self._snapshot_size)
        return self._snapshots is not None and self._tail_size >= due_size

    def is_said_by_checkpoint(self, label: bytes) -> bool:
        """Say whether the last checkpoint has this label, and no record has followed it."""
        return self.n == self._checkpoint_n and label == self._label

    def begin_checkpoint(
        self, state: S | None = None, *, label: bytes = b""
    ) -> Callable[[], Checkpoint]:
        """Return what makes a checkpoint of the state as it is now, in any thread.

        Args:
            state: The state, where mail was let go of it that needs no record; else as it is known.
            label: What is to be known of it without it.

        It raises `SnapshotDiffers`, or what `Snapshots.encode` and `decode` raise, if it cannot:
        that is a bug of ours, and the records are still there. Until the next is due, as many
        follow again.

        Raises:
            ValueError: If the stream is always folded.
        """
        if state is not None:
            self.state = state
        snapshots, state, position = self._snapshots, self.state, Position(self.name, self.n)
        if snapshots is None:
            raise ValueError(f"{self.name} has no checkpoints")
        self._tail_size = 0

        def make() -> Checkpoint:
            snapshot = snapshots.encode(state, position, written_by=__version__)
            if snapshots.decode(snapshot, position) != state:
                raise SnapshotDiffers(f"the snapshot of {position.stream} after {position.n}")
            return Checkpoint(position.stream, position.n, snapshot, label)

        return make

    def keep(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint take the place of the records that it stands for.

        Raises:
            StoreFailed: If the journal could not be written.
        """
        self._store.replace_checkpoint(checkpoint)
        self.kept(checkpoint)

    def kept(self, checkpoint: Checkpoint) -> None:
        """Take note that a checkpoint took the place of its records."""
        self._snapshot_size = len(checkpoint.snapshot)
        self._checkpoint_n = checkpoint.n
        self._label = checkpoint.label
