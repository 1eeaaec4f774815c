"""Journals of participants that share a process: in memory, or each in a file as a daemon's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.ports import Archived, Entry, Store


class AppendCounter:
    """How often any of several journals was written."""

    def __init__(self) -> None:
        self.n_appends = 0

    def counted(self, store: Store) -> Store:
        """Return the journal with its appends counted here."""
        return cast("Store", _CountedStore(store, self))


class _CountedStore:
    """A journal, every append of which is counted."""

    def __init__(self, store: Store, counter: AppendCounter) -> None:
        self._store = store
        self._counter = counter

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        self._counter.n_appends += 1
        self._store.append(entries, archived)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a store does
        return getattr(self._store, name)


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
    yield MemoryJournal
