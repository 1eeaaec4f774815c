"""State values as bytes: what a checkpoint holds, so that a start need not fold all that ever was.

A snapshot describes itself: it names the classes of the values in it and their fields with their
types. It is read by any version whose classes have these fields; a field that was added since must
have a default, and a union may have grown. Any other change is refused by name, never guessed.

Only fields are written, no caches. Which classes may appear follows from the annotations of the
state: there is no way to name another. What is no part of the journal (the policy, the network, the
wallet's account) is written as a name, and read as what has that name now.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from cromford.codec.decoders import decoded
from cromford.crypto.keys import sha256
from cromford.protocol.journal.plain import PlainReader, PlainWriter, RowSum
from cromford.protocol.journal.rows import Rows, Shapes, ShelfRow, Shelver, StoredShelf, sum_of
from cromford.protocol.journal.state_classes import (
    StateClass,
    classes_of,
    problem_with_class,
    problem_with_enum,
)
from cromford.shelf import KEY_READERS, Shelf

S = TypeVar("S")

OpenShelf = Callable[[str, str, RowSum], Shelf[Any, Any]]

WHOLE: Final = 1  # The format of a snapshot that holds all of the state,
SHELVED: Final = 2  # and of one beside which lie the rows of its shelves.
CHECKSUM_SIZE: Final = 32
COMPRESSION: Final = 1  # zlib's quickest; most bytes are keys and hashes, which shrink little
_DECODER: Final = msgspec.msgpack.Decoder()


class UnreadableSnapshot(ValueError):
    """A snapshot is damaged, or of classes that this version does not have."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the journal a snapshot belongs: after `n` records of a stream."""

    stream: str
    n: int


class Shelved(NamedTuple):
    """A snapshot, and the rows that go beside it."""

    snapshot: bytes
    rows: tuple[ShelfRow, ...]


class Snapshots(Generic[S]):
    """Writes and reads the values of one class of states.

    Args:
        root: The class of the states.
        references: What is no part of the journal, by name. Its values are told by identity.
        has_shelves: Whether rows lie beside its snapshots.
        completed: Makes what was added since an older version wrote a state that lacks it.
    """

    def __init__(
        self,
        root: type[S],
        references: Mapping[str, object],
        *,
        has_shelves: bool = False,
        completed: Callable[[S], S] = lambda state: state,
    ) -> None:
        self.has_shelves = has_shelves
        outside = frozenset(type(value) for value in references.values())
        self._classes, self._enums = classes_of(root, outside)
        self._root = root
        self._references = references
        self._completed = completed

    def encode(self, state: S, position: Position, *, written_by: str) -> bytes:
        """Return a state's bytes, all of it.

        Args:
            state: The state.
            position: Where it belongs.
            written_by: The software, as whoever cannot read it is told.

        Raises:
            TypeError: If a value in it is of no class that may appear.
        """
        return self._packed(WHOLE, self._writer(), state, position, written_by)

    def shelve(self, state: S, position: Position, *, written_by: str, stored: Rows) -> Shelved:
        """Return a state's bytes without what is on its shelves, and the rows that change.

        Args:
            state: The state.
            position: Where it belongs.
            written_by: The software.
            stored: The rows of the stream as they are.

        Raises:
            TypeError: As `encode`.
        """
        shelver = Shelver(stored, self._writer)
        writer = PlainWriter(self._classes, self._enums, self._references, shelver.put)
        snapshot = self._packed(SHELVED, writer, state, position, written_by)
        return Shelved(snapshot, tuple(shelver.rows))

    def decode(self, data: bytes, position: Position) -> S:
        """Return the state of these bytes, if all of it is in them.

        Raises:
            UnreadableSnapshot: If they are damaged, belong elsewhere, or are of classes that this
                version does not have.
        """
        return self._decoded(data, position, None)

    def open(self, data: bytes, position: Position, *, stored: Rows) -> S:
        """Return the state of these bytes and of the rows beside them, each of which is counted.

        Raises:
            UnreadableSnapshot: As `decode`, or if rows are missing, or were changed or added.
        """

        def counted(name: str, key_type: str, row_sum: RowSum) -> Shelf[Any, Any]:
            _check_sum(position, name, sum_of(stored, name, shape_ids), row_sum)
            return Shelf(None, StoredShelf(stored, name, key_type, shapes.read, row_sum))

        shape_ids: set[bytes] = set()
        shapes = Shapes(stored, (), self._reader_of_rows)
        state = self._decoded(data, position, counted)
        try:
            shapes.check(shape_ids)
        except UnreadableSnapshot:
            raise
        except ValueError as error:
            raise UnreadableSnapshot(f"rows of {position.stream}: {error}") from error
        return state

    def reread(
        self, shelved: Shelved, position: Position, *, stored: Rows, counts: bool = False
    ) -> S:
        """Return the state that will be read once a snapshot and its rows are stored.

        Args:
            shelved: The snapshot, and its rows.
            position: Where it belongs.
            stored: The rows of the stream as they are.
            counts: Whether each row is counted, as `open` will.

        Raises:
            UnreadableSnapshot: As `decode`, or if `open` would raise it.
        """
        shapes = Shapes(stored, shelved.rows, self._reader_of_rows)

        def above(name: str, key_type: str, row_sum: RowSum) -> Shelf[Any, Any]:
            if counts:
                found = sum_of(stored, name, set(), changes=shelved.rows)
                _check_sum(position, name, found, row_sum)
            ground: StoredShelf[Any, Any] = StoredShelf(
                stored, name, key_type, shapes.read, row_sum
            )
            key = KEY_READERS[key_type]
            changed = {
                key(row.key): None if row.value is None else shapes.read(row.value)
                for row in shelved.rows
                if row.shelf == name
            }
            return Shelf(changed, ground)

        return self._decoded(shelved.snapshot, position, above)

    def _packed(
        self, version: int, writer: PlainWriter, state: S, position: Position, written_by: str
    ) -> bytes:
        value = writer.written(state)
        head = [version, written_by, position.stream, position.n]
        packed = zlib.compress(
            msgspec.msgpack.encode([*head, writer.described, value]), COMPRESSION
        )
        return sha256(packed) + packed

    def _decoded(self, data: bytes, position: Position, shelf: OpenShelf | None) -> S:
        checksum, packed = data[:CHECKSUM_SIZE], data[CHECKSUM_SIZE:]
        if sha256(packed) != checksum:
            raise UnreadableSnapshot(
                f"the checkpoint of {position.stream} is damaged: its checksum"
            )
        try:
            version, *rest = decoded(_DECODER, _decompressed(packed))
            return self._read(version, rest, position, shelf)
        except UnreadableSnapshot:
            raise
        except Exception as error:
            raise UnreadableSnapshot(f"the checkpoint of {position.stream}: {error!r}") from error

    def _read(
        self, version: object, rest: list[Any], position: Position, shelf: OpenShelf | None
    ) -> S:
        if version not in {WHOLE, SHELVED}:
            raise UnreadableSnapshot(f"format: expected {WHOLE} or {SHELVED}, received {version}")
        written_by, stream, n, described, value = rest
        if (stream, n) != (position.stream, position.n):
            raise UnreadableSnapshot(
                f"expected the checkpoint of {position.stream} after {position.n} records, "
                f"found that of {stream} after {n}"
            )
        state: S = self._reader(described, f"version {written_by}", shelf)().read(value)
        if type(state) is not self._root:
            raise UnreadableSnapshot(
                f"expected a {self._root.__name__}, found a {type(state).__name__}"
            )
        return self._completed(state) if self._lacks_a_field(described) else state

    def _lacks_a_field(self, described: Iterable[Any]) -> bool:
        return any(
            self._classes[name].fields.keys() - content.keys()
            for name, content in described
            if name in self._classes
        )

    def _writer(self) -> PlainWriter:
        return PlainWriter(self._classes, self._enums, self._references)

    def _reader_of_rows(self, described: Iterable[Any]) -> Callable[[], PlainReader]:
        return self._reader(described, "another version", None)

    def _reader(
        self, described: Iterable[Any], written_by: str, shelf: OpenShelf | None
    ) -> Callable[[], PlainReader]:
        kinds: list[StateClass | list[Enum]] = []
        described = list(described)
        for name, content in described:
            problem = (
                problem_with_enum(self._enums[name], content)
                if name in self._enums
                else problem_with_class(self._classes.get(name), name, content)
            )
            if problem is not None:
                raise UnreadableSnapshot(
                    f"the checkpoint was written by {written_by}, and cannot be read by "
                    f"this one: {problem}. Nothing was changed: go on with that version, or with "
                    "one that says that it reads its checkpoints"
                )
            if name in self._enums:
                kinds.append([self._enums[name][member] for member in content])
            else:
                kinds.append(self._classes[name])
        names = [list(content) for _, content in described]
        makers = [
            kind.reader_of(content) if isinstance(kind, StateClass) else None
            for kind, (_, content) in zip(kinds, described, strict=True)
        ]
        return lambda: PlainReader(kinds, names, makers, self._references, shelf)


def _check_sum(position: Position, name: str, found: RowSum, expected: RowSum) -> None:
    if found != expected:
        raise UnreadableSnapshot(
            f"rows of {position.stream} are damaged: {name}: expected {expected.n} that "
            f"add up to {expected.total.hex()}, found {found.n}, {found.total.hex()}"
        )


def _decompressed(packed: bytes) -> bytes:
    """Return what was compressed: 1,032 times as many bytes at most, as deflate packs no better."""
    stream = zlib.decompressobj()
    data = stream.decompress(packed)
    if not stream.eof or stream.unused_data:
        raise ValueError("its compressed bytes do not end where they should")
    return data


def references_of(config: object) -> dict[str, object]:
    """Return a role's configuration and the objects in it, by name: no part of its journal."""
    assert is_dataclass(config)  # noqa: S101 - for the type checker
    held: dict[str, object] = {one.name: getattr(config, one.name) for one in fields(config)}
    objects = {name: value for name, value in held.items() if is_dataclass(value)}
    return {"config": config, **objects}
