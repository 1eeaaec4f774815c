"""What was noted of names that cost nothing to make: of too many, the first is forgotten."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A value for each of a limited number of keys, in the order in which they were noted last.

    Args:
        n_max: How many.
    """

    def __init__(self, n_max: int) -> None:
        self._n_max = n_max
        self._of: dict[K, V] = {}  # A dict is in the order of insertion.

    def note(self, key: K, value: V) -> None:
        """Keep a value; from now on its key is the newest."""
        self._of.pop(key, None)
        self._of[key] = value
        if len(self._of) > self._n_max:
            del self._of[next(iter(self._of))]

    def get(self, key: K) -> V | None:
        """Return a key's value; None if there is none, or it was forgotten."""
        return self._of.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield keys and values, the one noted last at the end."""
        yield from self._of.items()

    def __contains__(self, key: K) -> bool:
        return key in self._of

    def __len__(self) -> int:
        return len(self._of)
