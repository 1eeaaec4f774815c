"""A journal without a disk: what simulations and benchmarks run on.

It keeps every record, so that a test can read what happened; but what a checkpoint stands for is
replayed no more, as if it were gone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cromford.ports import Archived, Checkpoint, Entry, Kept, StoreFailed, check_order, oldest_of
from cromford.signing.handed_over import SealedKeys


@dataclass
class MemoryJournal:
    """Implements `ports.Store`.

    Attributes:
        entries: Every record ever appended, in order.
        checkpoints: By stream.
        shelves: The rows beside checkpoints, by stream and shelf.
        archive: By stream and key.
    """

    entries: list[Entry] = field(default_factory=list)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    shelves: dict[tuple[str, str], dict[bytes, bytes]] = field(default_factory=dict)
    archive: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    _heads: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _n_counted: int = field(default=0, init=False, repr=False)

    @property
    def records(self) -> list[bytes]:
        """The records of all streams, in order."""
        return [entry.record for entry in self.entries]

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        """Append entries, and keep what is archived."""
        self.entries.extend(entries)
        self.archive.update({(stream, key): value for stream, key, value in archived})

    def replay(self, stream: str, *, after: int = 0) -> Iterator[bytes]:
        """Yield the records of a stream that follow its first `after` ones, in order.

        Raises:
            StoreFailed: If a checkpoint has taken the place of one.
        """
        checkpoint = self.checkpoints.get(stream)
        if checkpoint is not None and after < checkpoint.n:
            raise StoreFailed(f"record {after + 1} of {stream} is missing")
        records = [entry.record for entry in self.entries if entry.stream == stream]
        return iter(records[after:])

    def heads(self) -> dict[str, int]:
        """Return how many records each stream ever had."""
        for entry in self.entries[self._n_counted :]:
            self._heads[entry.stream] = self._heads.get(entry.stream, 0) + 1
        self._n_counted = len(self.entries)
        return self._heads

    def head(self, stream: str) -> int:
        """Return how many records a stream ever had."""
        return self.heads().get(stream, 0)

    def unlabelled(self) -> Iterator[str]:
        """Yield the streams that have records, and no label."""
        labelled = dict(self.labels())
        return (stream for stream in self.heads() if stream not in labelled)

    def checkpoint(self, stream: str) -> Checkpoint | None:
        """Return a stream's checkpoint, or None."""
        return self.checkpoints.get(stream)

    def label(self, stream: str) -> bytes:
        """Return the label of a stream's checkpoint; empty if it has none, or records follow it."""
        one = self.checkpoints.get(stream)
        return one.label if one is not None and one.label and one.n == self.head(stream) else b""

    def labels(self) -> Iterator[tuple[str, bytes]]:
        """Yield, by stream, every label that is not empty."""
        for stream in [*self.checkpoints]:
            label = self.label(stream)
            if label:
                yield stream, label

    def due(self, height: int) -> Iterator[str]:
        """Yield the streams with a label that are to be loaded at a height, or should have been."""
        for stream, one in [*self.checkpoints.items()]:
            if one.wake_height is not None and one.wake_height <= height and self.label(stream):
                yield stream

    def row(self, stream: str, shelf: str, key: bytes) -> bytes | None:
        """Return what lies under a key beside a stream's checkpoint, or None."""
        return self.shelves.get((stream, shelf), {}).get(key)

    def rows_of(
        self, stream: str, shelf: str, keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield those of many keys under which something lies, with it."""
        lying = self.shelves.get((stream, shelf), {})
        return iter([(key, lying[key]) for key in keys if key in lying])

    def rows(self, stream: str, shelf: str, *, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of a shelf from `start` on, with what lies there, in their order."""
        lying = self.shelves.get((stream, shelf), {})
        return iter([(key, lying[key]) for key in sorted(lying) if key >= start])

    def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in the place of the stream's one before.

        Raises:
            ValueError: If it is of fewer records, or of more than there are.
        """
        kept = self.checkpoints.get(checkpoint.stream)
        head = self.heads().get(checkpoint.stream, 0)
        check_order(checkpoint, kept_n=0 if kept is None else kept.n, head=head)
        self.checkpoints[checkpoint.stream] = checkpoint._replace(rows=())
        for shelf, key, value in checkpoint.rows:
            lying = self.shelves.setdefault((checkpoint.stream, shelf), {})
            if value is None:
                lying.pop(key, None)
            else:
                lying[key] = value

    def archived(self, stream: str, key: bytes) -> bytes | None:
        """Return what was archived for a stream under a key, or None."""
        return self.archive.get((stream, key))

    def history(self, *, after: int, limit: int) -> list[Kept]:
        """Return records of all streams with a number above `after`, the oldest first."""
        first = max(after, self.oldest - 1)
        page = self.entries[first : first + limit]
        return [Kept(number, *entry) for number, entry in enumerate(page, start=first + 1)]

    @property
    def newest(self) -> int:
        """The number of the newest record; 0 before the first."""
        return len(self.entries)

    @property
    def oldest(self) -> int:
        """The number of the oldest record from which on the history is whole."""
        return oldest_of(self.newest)

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class MemoryKeys:
    """Implements `ports.KeyStore`: by attempt and client."""

    entries: dict[tuple[int, int], SealedKeys] = field(default_factory=dict)

    def get(self, *, attempt: int, client: int) -> SealedKeys | None:
        """Return what is held of one client's keys, if anything is."""
        return self.entries.get((attempt, client))

    def put(self, keys: SealedKeys) -> None:
        """Hold one client's keys."""
        self.entries[keys.attempt, keys.client] = keys
