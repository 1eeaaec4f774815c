"""Maps that may be larger than memory: what is settled lies in the store, what changed is here.

A shelf is a value like any other map of a state. What it says beneath its changes is what the
journal said at the last checkpoint, and each later state still holds all that changed since: so it
says the same, whenever it is read, and whether or not the next checkpoint is being written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from heapq import merge
from typing import Any, Final, Protocol, TypeVar

from immutables import Map

from cromford.bitcoin.tx import OutPoint, Txid

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")

INT_KEY_SIZE: Final = 8
_ABSENT: Final = object()


def key_bytes(key: object) -> bytes:
    """Return the bytes under which a key is stored; numbers, all above 0, keep their order.

    Raises:
        TypeError: If it is of no type that may be a key.
    """
    match key:
        case bytes():
            return bytes(key)
        case str():
            return key.encode()
        case int():
            return key.to_bytes(INT_KEY_SIZE, "big")
        case OutPoint():
            return key.serialize()
        case _:
            raise TypeError(f"a {type(key).__name__} is no key of a shelf")


# By the name of a key's type: what reads it from its bytes.
KEY_READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "bytes": bytes,
    "str": lambda data: data.decode(),
    "int": lambda data: int.from_bytes(data, "big"),
    "OutPoint": OutPoint.parse,
    "Txid": Txid,
}


class Ground(Protocol[K, V]):
    """What lies in the store of one shelf."""

    def get(self, key: K) -> V | None:
        """Return what lies under a key, or None."""

    def among(self, keys: Sequence[K]) -> Iterator[tuple[K, V]]:
        """Yield those of many keys under which something lies, with it."""

    def walk(self, start: bytes) -> Iterator[tuple[K, V]]:
        """Yield what lies under keys from `start` on, in the order of their bytes."""

    def is_same(self, other: "Ground[K, V]") -> bool:
        """Say whether the other one reads the same rows."""


class Shelf(Mapping[K, V]):
    """An immutable map: what changed since it was last stored, above what lies in the store.

    Looking up is quick; going through all of it reads the store, and holds only a page of it. No
    value is None.

    Attributes:
        changed: By key; None where it is gone.
        ground: What was stored; None if nothing ever was.
    """

    __slots__ = ("changed", "ground")

    def __init__(
        self, changed: Mapping[K, V | None] | None = None, ground: Ground[K, V] | None = None
    ) -> None:
        self.changed: Map[K, V | None] = Map() if changed is None else Map(changed)
        self.ground = ground

    def _found(self, key: K) -> V | None:
        value: Any = self.changed.get(key, _ABSENT)
        if value is not _ABSENT:
            return value  # type: ignore[no-any-return]  # what the map holds
        return None if self.ground is None else self.ground.get(key)

    def __getitem__(self, key: K) -> V:
        value = self._found(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._found(key) is not None  # type: ignore[arg-type]  # as of any mapping

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self.walk())

    def __len__(self) -> int:
        """Count all of it: the store is gone through."""
        return sum(1 for _ in self.walk())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shelf):
            return dict(self.walk()) == other if isinstance(other, Mapping) else NotImplemented
        mine, theirs = self.ground, other.ground
        if mine is theirs or (mine is not None and theirs is not None and mine.is_same(theirs)):
            # Mostly they changed alike, and then the maps are asked in one go.
            return self.changed == other.changed or all(
                self.get(k) == other.get(k) for k in {*self.changed, *other.changed}
            )
        return list(self.walk()) == list(other.walk())

    __hash__ = None  # type: ignore[assignment]  # as of any map that is compared by its content

    def __repr__(self) -> str:
        return f"Shelf({dict(self.changed)}, above {self.ground})"

    def among(self, keys: Iterable[K]) -> dict[K, V]:
        """Return what is under any of many keys: quicker than to ask for one after another."""
        found: dict[K, V] = {}
        below: list[K] = []
        for key in keys:
            value: Any = self.changed.get(key, _ABSENT)
            if value is _ABSENT:
                below.append(key)
            elif value is not None:
                found[key] = value
        if self.ground is not None:
            found.update(self.ground.among(below))
        return found

    def walk(self, start: bytes = b"") -> Iterator[tuple[K, V]]:
        """Yield all of it from a key's bytes on, in the order of their bytes."""
        above = ((key_bytes(key), 0, key, value) for key, value in self.changed.items())
        mine = sorted((one for one in above if one[0] >= start), key=_place)
        below: Iterable[tuple[bytes, int, K, V | None]] = ()
        if self.ground is not None:
            below = ((key_bytes(key), 1, key, value) for key, value in self.ground.walk(start))
        last: bytes | None = None
        for place, _, key, value in merge(mine, below, key=_place):
            if place != last and value is not None:
                yield key, value
            last = place

    def set(self, key: K, value: V) -> "Shelf[K, V]":
        """Return the map with a value under a key."""
        return Shelf(self.changed.set(key, value), self.ground)

    def update(self, values: Mapping[K, V]) -> "Shelf[K, V]":
        """Return the map with more values."""
        return Shelf(self.changed.update(values), self.ground) if values else self

    def delete(self, key: K) -> "Shelf[K, V]":
        """Return the map without a key; whether it was there makes no difference."""
        if self.ground is not None:
            return Shelf(self.changed.set(key, None), self.ground)
        return Shelf(self.changed.delete(key)) if key in self.changed else self

    def stored(self, written: "Shelf[K, V]", ground: Ground[K, V]) -> "Shelf[K, V]":
        """Return the same map once an earlier state of it lies in the store.

        Args:
            written: It as it was written.
            ground: What reads it.
        """
        left: dict[K, V | None] = {
            key: value
            for key, value in self.changed.items()
            if written.changed.get(key, _ABSENT) is not value
        }
        # What went while nothing was stored yet left no trace.
        left |= {key: None for key in written.changed if key not in self.changed}
        return Shelf(left, ground)


def _place(item: tuple[bytes, int, Any, Any]) -> tuple[bytes, int]:
    return item[:2]


def shelf_name(owner: type[Any], field: str) -> str:
    """Return the name of a shelf among those of a stream: its place in the state."""
    return f"{owner.__name__}.{field}"


def with_shelves(value: S, change: Callable[[str, Shelf[Any, Any]], Shelf[Any, Any]]) -> S:
    """Return a dataclass with each shelf in it, and in the dataclasses in it, changed."""
    changed: dict[str, Any] = {}
    for field in fields(value):  # type: ignore[arg-type]  # a dataclass
        held = getattr(value, field.name)
        new = held
        if isinstance(held, Shelf):
            new = change(shelf_name(type(value), field.name), held)
        elif is_dataclass(held):
            new = with_shelves(held, change)
        if new is not held:
            changed[field.name] = new
    return replace(value, **changed) if changed else value  # type: ignore[type-var]  # a dataclass
