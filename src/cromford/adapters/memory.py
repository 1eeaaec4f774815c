"""A journal without a disk: what simulations and benchmarks run on.

It keeps every record, so that a test can read what happened; but what a checkpoint stands for is
replayed no more, as if it were gone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cromford.ports import Archived, Checkpoint, Entry, Kept, StoreFailed, check_order, oldest_of


@dataclass
class MemoryJournal:
    """Implements `ports.Store`.

    Attributes:
        entries: Every record ever appended, in order.
        checkpoints: By stream.
        archive: By stream and key.
    """

    entries: list[Entry] = field(default_factory=list)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    archive: dict[tuple[str, bytes], bytes] = field(default_factory=dict)

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
        heads: dict[str, int] = {}
        for entry in self.entries:
            heads[entry.stream] = heads.get(entry.stream, 0) + 1
        return heads

    def checkpoint(self, stream: str) -> Checkpoint | None:
        """Return a stream's checkpoint, or None."""
        return self.checkpoints.get(stream)

    def labels(self) -> Iterator[tuple[str, bytes]]:
        """Yield the labels of the checkpoints that have one, and no record after them."""
        heads = self.heads()
        for stream, one in self.checkpoints.items():
            if one.label and one.n == heads[stream]:
                yield stream, one.label

    def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in the place of the stream's one before.

        Raises:
            ValueError: If it is of fewer records, or of more than there are.
        """
        kept = self.checkpoints.get(checkpoint.stream)
        head = self.heads().get(checkpoint.stream, 0)
        check_order(checkpoint, kept_n=0 if kept is None else kept.n, head=head)
        self.checkpoints[checkpoint.stream] = checkpoint

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
