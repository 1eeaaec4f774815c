"""Journals of participants that share a process: in memory, or each in a file as a daemon's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cromford.adapters.sqlite import Journal
from cromford.ports import Store


@dataclass
class MemoryStore:
    """A journal without a disk."""

    entries: list[bytes] = field(default_factory=list)

    def append(self, records: Sequence[bytes]) -> None:
        """Keep the records."""
        self.entries.extend(records)

    def replay(self) -> Iterator[bytes]:
        """Yield every record ever appended."""
        return iter(self.entries)

    def close(self) -> None:
        """Nothing to release."""


class AppendCounter:
    """How often any of several journals was written."""

    def __init__(self) -> None:
        self.n_appends = 0

    def counted(self, store: Store) -> Store:
        """Return the journal with its appends counted here."""
        return _CountedStore(store, self)


class _CountedStore:
    """A journal, every append of which is counted."""

    def __init__(self, store: Store, counter: AppendCounter) -> None:
        self._store = store
        self._counter = counter

    def append(self, records: Sequence[bytes]) -> None:
        self._counter.n_appends += 1
        self._store.append(records)

    def replay(self) -> Iterator[bytes]:
        return self._store.replay()

    def close(self) -> None:
        self._store.close()


@contextmanager
def journals() -> Iterator[Callable[[], Store]]:
    """Inside the block, each call opens a new durable journal; all are deleted afterwards."""
    with TemporaryDirectory(prefix="cromford-bench-") as name, ExitStack() as opened:
        numbers = iter(range(1_000_000))

        def open_journal() -> Store:
            journal = Journal(Path(name, str(next(numbers))))
            opened.callback(journal.close)
            return journal

        yield open_journal


@contextmanager
def memory() -> Iterator[Callable[[], Store]]:
    """The same without a disk."""
    yield MemoryStore
