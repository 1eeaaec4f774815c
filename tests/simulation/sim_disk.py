"""A disk as a daemon's committer writes to it, without a thread and without a clock.

Records for which something waits are written at once, with all that waits before them. Those for
which nothing waits lie there until then, or until the world says that their time has come; whoever
dies meanwhile has lost them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cromford.ports import Archived, Entry, Store
from tests.simulation.sim_node import Crash


@dataclass(frozen=True)
class Waiting:
    """A decision that waits for the disk."""

    entries: Sequence[Entry]
    archived: Sequence[Archived]
    follow: Callable[[], None]


class SimDisk:
    """What one process has yet to write. Its `commit` is a driver's.

    Args:
        store: The journal.
        dies: Whether the process dies here, between the queue and the append.

    Attributes:
        n_appends: How often it wrote.
        is_planned: Whether the world has chosen when what lies there is written.
    """

    def __init__(self, store: Store, dies: Callable[[], bool] = lambda: False) -> None:
        self.n_appends = 0
        self.is_planned = False
        self._store = store
        self._dies = dies
        self._waiting: deque[Waiting] = deque()
        self._is_settling = False

    @property
    def is_behind(self) -> bool:
        """Whether something lies there that is not durable."""
        return bool(self._waiting)

    def commit(
        self,
        entries: Sequence[Entry],
        archived: Sequence[Archived],
        then: Callable[[], None],
        *,
        is_awaited: bool,
    ) -> None:
        """Take the records of a decision, and write them with all before them if they are awaited.

        Raises:
            Crash: If the process dies with what lies there.
        """
        self._waiting.append(Waiting(entries, archived, then))
        if self._dies():
            raise Crash
        if is_awaited and not self._is_settling:
            self.settle()

    def settle(self) -> None:
        """Write all that lies there in one append, and let follow what waited for it.

        What that decides in turn is written after it, as by a thread.
        """
        self._is_settling = True
        while self._waiting:
            together = [*self._waiting]
            self._waiting.clear()
            entries = [entry for one in together for entry in one.entries]
            archived = [kept for one in together for kept in one.archived]
            if entries or archived:
                self._store.append(entries, archived)
                self.n_appends += 1
            for one in together:
                one.follow()
        self._is_settling = False
