"""What lies beside a snapshot: the rows of its shelves, and how they are written, read and checked.

A row is a key and a value of one shelf. Its value is plain data, behind the name of what describes
its classes; the descriptions are rows of their own, named by what they say. A snapshot says of each
shelf how many rows there are and what their hashes add up to. So a row that is missing, changed or
added by something else is found when the stream is opened, before anything is decided by it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from cromford.codec.decoders import decoded
from cromford.crypto.keys import sha256
from cromford.protocol.journal.plain import PlainReader, PlainWriter, RowSum
from cromford.shelf import KEY_READERS, Ground, Shelf, key_bytes

K = TypeVar("K")
V = TypeVar("V")

SHAPES: Final = "shapes"  # Of the rows that describe the classes in the others.
SHAPE_ID_SIZE: Final = 8
READ_KEPT_SIZE_MAX: Final = 256 * 1024  # Bytes of one shelf whose values are kept once read.
_TOTAL_SIZE: Final = 32
_DECODER: Final = msgspec.msgpack.Decoder()
_MODULUS: Final = 2 ** (8 * _TOTAL_SIZE)


class ShelfRow(NamedTuple):
    """One row of a stream; without a value, it is no more."""

    shelf: str
    key: bytes
    value: bytes | None


class Rows(Protocol):
    """The rows of one stream, as they are stored."""

    def get(self, shelf: str, key: bytes) -> bytes | None:
        """Return a row's value, or None."""

    def among(self, shelf: str, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield those of many keys under which something lies, with the values."""

    def walk(self, shelf: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of a shelf from `start` on, in order, with the values."""


class StoredShelf(Generic[K, V]):
    """What is stored of one shelf. Implements `shelf.Ground`.

    Args:
        rows: The stream's.
        name: The shelf's.
        key_type: The name of the type of its keys.
        read: Returns a value from its bytes.
        row_sum: What its rows amount to.
    """

    def __init__(
        self,
        rows: Rows,
        name: str,
        key_type: str,
        read: Callable[[bytes], V],
        row_sum: RowSum,
    ) -> None:
        self.rows = rows
        self.name = name
        self.row_sum = row_sum
        self._key = KEY_READERS[key_type]
        self._read = read
        self._kept_size = 0
        self._kept: dict[K, V] = {}  # What is stored anew meanwhile is read of what has changed.

    def get(self, key: K) -> V | None:
        """Return what lies under a key, or None."""
        value = self._kept.get(key)
        if value is not None:
            return value
        data = self.rows.get(self.name, key_bytes(key))
        if data is None:
            return None
        self._kept_size += len(data)
        if self._kept_size > READ_KEPT_SIZE_MAX:
            self._kept.clear()
            self._kept_size = len(data)
        value = self._kept[key] = self._read(data)
        return value

    def among(self, keys: Sequence[K]) -> Iterator[tuple[K, V]]:
        """Yield those of many keys under which something lies, with it."""
        by_bytes = {key_bytes(key): key for key in keys}
        for key, data in self.rows.among(self.name, [*by_bytes]):
            yield by_bytes[key], self._read(data)

    def walk(self, start: bytes) -> Iterator[tuple[K, V]]:
        """Yield what lies under keys from `start` on, in the order of their bytes."""
        for key, data in self.rows.walk(self.name, start):
            yield self._key(key), self._read(data)

    def is_same(self, other: Ground[K, V]) -> bool:
        """Say whether the other one reads the same rows."""
        return (
            isinstance(other, StoredShelf) and other.rows is self.rows and other.name == self.name
        )


class Shelver:
    """Makes the rows of what changed on shelves since they were stored last.

    Attributes:
        rows: What to store, by shelf, in the order of the keys.
        sums: What each shelf amounts to then.

    Args:
        stored: What is stored until then.
        writer: Returns a new writer of plain data.
    """

    def __init__(self, stored: Rows, writer: Callable[[], PlainWriter]) -> None:
        self.rows: list[ShelfRow] = []
        self.sums: dict[str, RowSum] = {}
        self._stored = stored
        self._writer = writer
        self._shapes: set[bytes] = set()

    def put(self, name: str, shelf: Shelf[Any, Any]) -> RowSum:
        """Take up a shelf, and return what its rows will amount to.

        Raises:
            TypeError: If a value in it may not appear, or two shelves have one name.
        """
        if name in self.sums:
            raise TypeError(f"two shelves are called {name}")
        ground = shelf.ground
        changed = {key_bytes(key): value for key, value in shelf.changed.items()}
        if isinstance(ground, StoredShelf):
            count, total = ground.row_sum
        else:
            # It was made in one piece: it takes the place of whatever lies there.
            count, total = sum_of(self._stored, name, set())
            lying = (key for key, _ in self._stored.walk(name, b""))
            changed = {**dict.fromkeys(lying), **changed}
        added = int.from_bytes(total, "big")
        for key, value in sorted(changed.items(), key=itemgetter(0)):
            new = None if value is None else self._packed(value)
            old = self._stored.get(name, key)
            if new == old:
                continue
            count += (new is not None) - (old is not None)
            added += _hash(name, key, new) - _hash(name, key, old)
            self.rows.append(ShelfRow(name, key, new))
        row_sum = self.sums[name] = RowSum(count, (added % _MODULUS).to_bytes(_TOTAL_SIZE, "big"))
        return row_sum

    def _packed(self, value: object) -> bytes:
        """Return the bytes of a value: the same for the same value, whatever else is written."""
        writer = self._writer()
        plain = writer.written(value)
        shape = msgspec.msgpack.encode(writer.described)
        shape_id = sha256(shape)[:SHAPE_ID_SIZE]
        if shape_id not in self._shapes:
            self._shapes.add(shape_id)
            if self._stored.get(SHAPES, shape_id) is None:
                self.rows.append(ShelfRow(SHAPES, shape_id, shape))
        return shape_id + msgspec.msgpack.encode(plain)


class Shapes:
    """Reads the values of rows by what describes their classes.

    Args:
        rows: Where the descriptions are.
        added: Rows that are about to be stored.
        reader: Returns a reader of what is described so. It raises `UnreadableSnapshot` if this
            version cannot read it.
    """

    def __init__(
        self,
        rows: Rows,
        added: Iterable[ShelfRow],
        reader: Callable[[Any], Callable[[], PlainReader]],
    ) -> None:
        self._rows = rows
        self._added = {row.key: row.value for row in added if row.shelf == SHAPES}
        self._reader = reader
        self._known: dict[bytes, Callable[[], PlainReader]] = {}

    def check(self, shape_ids: Iterable[bytes]) -> None:
        """Check that this version can read what is described by these.

        Raises:
            ValueError: If a description is missing, or was changed.
            UnreadableSnapshot: If it cannot.
        """
        for shape_id in sorted(shape_ids):
            self._known_as(shape_id)

    def read(self, data: bytes) -> Any:  # noqa: ANN401 - any value of a state
        """Return the value of a row.

        Raises:
            ValueError: If it is damaged.
        """
        reader = self._known_as(data[:SHAPE_ID_SIZE])()
        plain = decoded(_DECODER, data[SHAPE_ID_SIZE:])
        try:
            return reader.read(plain)
        except Exception as error:
            raise ValueError(f"a row is damaged: {error!r}") from error

    def _known_as(self, shape_id: bytes) -> Callable[[], PlainReader]:
        known = self._known.get(shape_id)
        if known is None:
            shape = self._added.get(shape_id) or self._rows.get(SHAPES, shape_id)
            if shape is None or sha256(shape)[:SHAPE_ID_SIZE] != shape_id:
                raise ValueError(f"what describes rows of kind {shape_id.hex()} is damaged")
            known = self._known[shape_id] = self._described_by(shape)
        return known

    def _described_by(self, shape: bytes) -> Callable[[], PlainReader]:
        described = decoded(_DECODER, shape)
        try:
            return self._reader(described)
        except (TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(f"what describes rows is damaged: {error!r}") from error


def sum_of(
    rows: Rows, shelf: str, shape_ids: set[bytes], *, changes: Iterable[ShelfRow] = ()
) -> RowSum:
    """Return what the stored rows of a shelf amount to, and add what they are described by.

    Args:
        rows: The stream's.
        shelf: Which of its shelves.
        shape_ids: What describes the rows is added here.
        changes: What is about to be stored over them.
    """
    count = added = 0
    changed = {row.key: row.value for row in changes if row.shelf == shelf}
    lying = ((key, value) for key, value in rows.walk(shelf, b"") if key not in changed)
    coming = ((key, value) for key, value in changed.items() if value is not None)
    for key, value in chain(lying, coming):
        count += 1
        shape_ids.add(value[:SHAPE_ID_SIZE])
        added += _hash(shelf, key, value)
    return RowSum(count, (added % _MODULUS).to_bytes(_TOTAL_SIZE, "big"))


def _hash(shelf: str, key: bytes, value: bytes | None) -> int:
    """Return what one row adds to its shelf's total; a key's size keeps it apart from the value."""
    if value is None:
        return 0
    size = len(key).to_bytes(4, "big")
    return int.from_bytes(sha256(b"%s\0%s%s%s" % (shelf.encode(), size, key, value)), "big")
