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
from operator import attrgetter
from types import NoneType
from typing import Any, Final, Generic, TypeVar

import msgspec
from immutables import Map

from cromford.bitcoin.tx import Txid
from cromford.crypto.keys import sha256
from cromford.protocol.journal.state_classes import (
    StateClass,
    classes_of,
    problem_with_class,
    problem_with_enum,
)

S = TypeVar("S")

FORMAT: Final = 1
CHECKSUM_SIZE: Final = 32
COMPRESSION: Final = 1  # zlib's quickest; most bytes are keys and hashes, which shrink little
SHARED_BYTES_MIN: Final = 16  # Shorter ones are written again rather than referred to.

_TUPLE, _FROZENSET, _DICT, _MAP, _ENUM, _REFERENCE, _LARGE, _TXID, _AGAIN, _BYTES_AGAIN = range(10)
_FIRST_CLASS: Final = 16
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what MessagePack holds
_ONE_VALUE: Final = 1  # attrgetter gives no tuple for one name


class UnreadableSnapshot(ValueError):
    """A snapshot is damaged, or of classes that this version does not have."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the journal a snapshot belongs: after `n` records of a stream."""

    stream: str
    n: int


class Snapshots(Generic[S]):
    """Writes and reads the values of one class of states.

    Args:
        root: The class of the states.
        references: What is no part of the journal, by name. Its values are told by identity.
    """

    def __init__(self, root: type[S], references: Mapping[str, object]) -> None:
        outside = frozenset(type(value) for value in references.values())
        self._classes, self._enums = classes_of(root, outside)
        self._references = references

    def encode(self, state: S, position: Position, *, written_by: str) -> bytes:
        """Return a state's bytes; `written_by` names the software to whoever cannot read them.

        Raises:
            TypeError: If a value in it is of no class that may appear.
        """
        writer = _Writer(self._classes, self._enums, self._references)
        value = writer.written(state)
        head = [FORMAT, written_by, position.stream, position.n]
        packed = zlib.compress(
            msgspec.msgpack.encode([*head, writer.described, value]), COMPRESSION
        )
        return sha256(packed) + packed

    def decode(self, data: bytes, position: Position) -> S:
        """Return the state of these bytes.

        Raises:
            UnreadableSnapshot: If they are damaged, belong elsewhere, or are of classes that this
                version does not have.
        """
        checksum, packed = data[:CHECKSUM_SIZE], data[CHECKSUM_SIZE:]
        if sha256(packed) != checksum:
            raise UnreadableSnapshot(
                f"the checkpoint of {position.stream} is damaged: its checksum"
            )
        try:
            version, *rest = msgspec.msgpack.decode(zlib.decompress(packed))
            return self._read(version, rest, position)
        except UnreadableSnapshot:
            raise
        except (zlib.error, msgspec.DecodeError, ValueError, TypeError, LookupError) as error:
            raise UnreadableSnapshot(f"the checkpoint of {position.stream}: {error!r}") from error

    def _read(self, version: object, rest: list[Any], position: Position) -> S:
        if version != FORMAT:
            raise UnreadableSnapshot(f"format: expected {FORMAT}, received {version}")
        written_by, stream, n, described, value = rest
        if (stream, n) != (position.stream, position.n):
            raise UnreadableSnapshot(
                f"expected the checkpoint of {position.stream} after {position.n} records, "
                f"found that of {stream} after {n}"
            )
        state: S = self._reader(described, written_by).read(value)
        return state

    def _reader(self, described: Iterable[Any], written_by: str) -> "_Reader":
        kinds: list[StateClass | list[Enum]] = []
        for name, content in described:
            problem = (
                problem_with_enum(self._enums[name], content)
                if name in self._enums
                else problem_with_class(self._classes.get(name), name, content)
            )
            if problem is not None:
                raise UnreadableSnapshot(
                    f"the checkpoint was written by version {written_by}, and cannot be read by "
                    f"this one: {problem}. Nothing was changed: go on with that version, or with "
                    "one that says that it reads its checkpoints"
                )
            if name in self._enums:
                kinds.append([self._enums[name][member] for member in content])
            else:
                kinds.append(self._classes[name])
        names = [list(content) for _, content in described]
        return _Reader(kinds, names, self._references)


def references_of(config: object) -> dict[str, object]:
    """Return a role's configuration and the objects in it, by name: no part of its journal."""
    assert is_dataclass(config)  # noqa: S101 - for the type checker
    held: dict[str, object] = {one.name: getattr(config, one.name) for one in fields(config)}
    objects = {name: value for name, value in held.items() if is_dataclass(value)}
    return {"config": config, **objects}


class _Writer:
    """Turns one value into plain data, and describes its classes as it meets them."""

    def __init__(
        self,
        classes: Mapping[str, StateClass],
        enums: Mapping[str, type[Enum]],
        references: Mapping[str, object],
    ) -> None:
        self.described: list[tuple[str, Any]] = []
        self._bytes: dict[bytes, int] = {}
        self._values: dict[int, int] = {}
        self._writers: dict[type[Any], Callable[[Any], Any]] = {
            int: self._int,
            bytes: self._shared_bytes,
            tuple: lambda value: [_TUPLE, *map(self.written, value)],
            frozenset: lambda value: [_FROZENSET, *map(self.written, value)],
            dict: lambda value: [_DICT, *self._items(value)],
            Map: lambda value: [_MAP, *self._items(value)],
            Txid: lambda value: [_TXID, self._shared_bytes(bytes(value))],
        }
        for unchanged in (NoneType, bool, str):
            self._writers[unchanged] = _same
        for referred in references.values():
            self._writers[type(referred)] = self._reference
        self._names = {id(referred): name for name, referred in references.items()}
        self._classes = {known.cls: (name, known) for name, known in classes.items()}
        self._enums = {enum: name for name, enum in enums.items()}

    def written(self, value: Any) -> Any:  # noqa: ANN401 - any value of a state
        """Return a value as plain data.

        Raises:
            TypeError: If it, or one in it, may not appear.
        """
        kind = type(value)
        writer = self._writers.get(kind)
        if writer is None:
            writer = self._writers[kind] = self._writer_of(kind)
        return writer(value)

    def _writer_of(self, kind: type[Any]) -> Callable[[Any], Any]:
        number = len(self.described)
        if kind in self._enums:
            members = list(kind)
            self.described.append((self._enums[kind], [member.name for member in members]))
            places = {member: [_ENUM, number, place] for place, member in enumerate(members)}
            return places.__getitem__
        if kind not in self._classes:
            raise TypeError(f"{kind.__module__}.{kind.__name__} cannot be in a snapshot")
        name, known = self._classes[kind]
        self.described.append((name, known.fields))
        return self._writer_of_class(_FIRST_CLASS + number, list(known.fields))

    def _writer_of_class(self, tag: int, names: list[str]) -> Callable[[Any], Any]:
        written, values = self.written, self._values
        read = attrgetter(*names) if names else lambda _value: ()

        def write(value: Any) -> Any:  # noqa: ANN401 - a value of the class
            again = values.get(id(value))
            if again is not None:
                return [_AGAIN, again]
            held = read(value)
            if len(names) == _ONE_VALUE:
                held = (held,)
            plain = [tag, *map(written, held)]
            values[id(value)] = len(values)
            return plain

        return write

    def _items(self, mapping: Any) -> Iterable[Any]:  # noqa: ANN401 - a dict or a Map
        for key, value in mapping.items():
            yield self.written(key)
            yield self.written(value)

    def _int(self, value: int) -> Any:  # noqa: ANN401 - plain data
        if _INT_MIN <= value <= _INT_MAX:
            return value
        return [_LARGE, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)]

    def _shared_bytes(self, value: bytes) -> Any:  # noqa: ANN401 - plain data
        if len(value) < SHARED_BYTES_MIN:
            return value
        again = self._bytes.get(value)
        if again is not None:
            return [_BYTES_AGAIN, again]
        self._bytes[value] = len(self._bytes)
        return value

    def _reference(self, value: object) -> Any:  # noqa: ANN401 - plain data
        name = self._names.get(id(value))
        if name is None:
            raise TypeError(f"a {type(value).__name__} that is not what the state began with")
        return [_REFERENCE, name]


def _same(value: Any) -> Any:  # noqa: ANN401 - plain data as it is
    return value


class _Reader:
    """Turns plain data back into the value it was written from."""

    def __init__(
        self,
        kinds: list["StateClass | list[Enum]"],
        names: list[list[str]],
        references: Mapping[str, object],
    ) -> None:
        self._kinds = kinds
        self._names = names
        self._references = references
        self._bytes: list[bytes] = []
        self._values: list[Any] = []
        self._readers: tuple[Callable[[list[Any]], Any], ...] = (
            lambda node: tuple(self._all(node)),
            lambda node: frozenset(self._all(node)),
            lambda node: dict(self._pairs(node)),
            lambda node: Map(self._pairs(node)),
            lambda node: self._kinds[node[1]][node[2]],
            lambda node: self._references[node[1]],
            lambda node: int.from_bytes(node[1], "big", signed=True),
            lambda node: Txid(self.read(node[1])),
            lambda node: self._values[node[1]],
            lambda node: self._bytes[node[1]],
        )

    def read(self, node: Any) -> Any:  # noqa: ANN401 - plain data, and any value
        """Return the value of plain data."""
        kind = type(node)
        if kind is bytes:
            if len(node) >= SHARED_BYTES_MIN:
                self._bytes.append(node)
            return node
        if kind is not list:
            return node
        tag = node[0]
        if tag < _FIRST_CLASS:
            return self._readers[tag](node)
        known = self._kinds[tag - _FIRST_CLASS]
        if isinstance(known, list):
            raise UnreadableSnapshot("an enumeration where a class was expected")
        held = self._all(node)
        value = known.cls(**dict(zip(self._names[tag - _FIRST_CLASS], held, strict=True)))
        self._values.append(value)
        return value

    def _all(self, node: list[Any]) -> list[Any]:
        return [self.read(item) for item in node[1:]]

    def _pairs(self, node: list[Any]) -> Iterable[tuple[Any, Any]]:
        items = iter(self._all(node))
        return zip(items, items, strict=True)
