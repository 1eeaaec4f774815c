"""State values as plain data that MessagePack holds, and back: what snapshots are made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, Final, NamedTuple

from immutables import Map

from cromford.bitcoin.tx import Txid
from cromford.protocol.journal.state_classes import StateClass
from cromford.shelf import Shelf, shelf_name

SHARED_BYTES_MIN: Final = 16  # Shorter ones are written again rather than referred to.

_TUPLE, _FROZENSET, _DICT, _MAP, _ENUM, _REFERENCE, _LARGE, _TXID, _AGAIN, _BYTES_AGAIN, _SHELF = (
    range(11)
)
_FIRST_CLASS: Final = 16
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what MessagePack holds
_ONE_VALUE: Final = 1  # attrgetter gives no tuple for one name


class RowSum(NamedTuple):
    """What a snapshot says of a shelf whose rows lie beside it: how many, and what they add up to.

    `total` is the sum of the rows' hashes, see `rows`.
    """

    n: int = 0
    total: bytes = bytes(32)


class _Named(NamedTuple):
    """A shelf on its way into a snapshot, and its name."""

    name: str
    shelf: Shelf[Any, Any]


class PlainWriter:
    """Turns values into plain data, and describes their classes as it meets them.

    Args:
        classes: Those that may appear, by name.
        enums: Likewise.
        references: What is written as a name, by name.
        shelve: Puts a shelf's rows beside the snapshot; None to write all of it into it.
    """

    def __init__(
        self,
        classes: Mapping[str, StateClass],
        enums: Mapping[str, type[Enum]],
        references: Mapping[str, object],
        shelve: Callable[[str, Shelf[Any, Any]], RowSum] | None = None,
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
            _Named: self._of_shelf,
            Txid: lambda value: [_TXID, self._shared_bytes(bytes(value))],
        }
        for unchanged in (NoneType, bool, str):
            self._writers[unchanged] = _same
        for referred in references.values():
            self._writers[type(referred)] = self._reference
        self._names = {id(referred): name for name, referred in references.items()}
        self._classes = {known.cls: (name, known) for name, known in classes.items()}
        self._enums = {enum: name for name, enum in enums.items()}
        self._shelve = shelve
        self._read: list[object] = []  # Values are told by identity, so they stay until the end.

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
        return self._writer_of_class(_FIRST_CLASS + number, known)

    def _writer_of_class(self, tag: int, known: StateClass) -> Callable[[Any], Any]:
        names = list(known.fields)
        written, values = self.written, self._values
        shelves = known.shelves and [
            shelf_name(known.cls, name) if name in known.shelves else None for name in names
        ]
        read = attrgetter(*names) if names else lambda _value: ()

        def write(value: Any) -> Any:  # noqa: ANN401 - a value of the class
            again = values.get(id(value))
            if again is not None:
                return [_AGAIN, again]
            held: Sequence[Any] = read(value)
            if len(names) == _ONE_VALUE:
                held = (held,)
            if shelves:
                held = [
                    one if name is None else _Named(name, one)
                    for one, name in zip(held, shelves, strict=True)
                ]
            plain = [tag, *map(written, held)]
            values[id(value)] = len(values)
            return plain

        return write

    def _of_shelf(self, named: "_Named") -> Any:  # noqa: ANN401 - plain data
        if self._shelve is None:
            read = dict(named.shelf.walk())
            self._read.append(read)
            return [_MAP, *self._items(read)]
        return [_SHELF, *self._shelve(named.name, named.shelf)]

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


class PlainReader:
    """Turns plain data back into the values it was written from.

    Args:
        kinds: The classes and enumerations in it, as they are now.
        names: The fields they had.
        makers: What makes a value of those fields; None for an enumeration.
        references: What is written as a name, by name.
        shelf: Returns the shelf whose rows lie beside the snapshot, by its name and its keys' type.
    """

    def __init__(
        self,
        kinds: list[StateClass | list[Enum]],
        names: list[list[str]],
        makers: list[Callable[..., object] | None],
        references: Mapping[str, object],
        shelf: Callable[[str, str, RowSum], Shelf[Any, Any]] | None = None,
    ) -> None:
        self._kinds = kinds
        self._names = names
        self._makers = makers
        self._references = references
        self._shelf = shelf
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
            lambda node: RowSum(node[1], node[2]),
        )

    def read(self, node: Any) -> Any:  # noqa: ANN401 - plain data, and any value
        """Return the value of plain data.

        Raises:
            ValueError: If it is none that was written, as may be what else decoding it meets.
        """
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
        make = self._makers[tag - _FIRST_CLASS]
        if isinstance(known, list) or make is None:
            raise ValueError("an enumeration where a class was expected")
        held = dict(zip(self._names[tag - _FIRST_CLASS], self._all(node), strict=True))
        for name, key_type in known.shelves.items():
            if name in held:
                held[name] = self._as_shelf(shelf_name(known.cls, name), key_type, held[name])
        value = make(**held)
        self._values.append(value)
        return value

    def _as_shelf(self, name: str, key_type: str, held: Any) -> Shelf[Any, Any]:  # noqa: ANN401 - a map, or what is said of one
        if not isinstance(held, RowSum):
            return Shelf(held)
        if self._shelf is None:
            raise ValueError(f"{name} lies beside the snapshot")
        return self._shelf(name, key_type, held)

    def _all(self, node: list[Any]) -> list[Any]:
        return [self.read(item) for item in node[1:]]

    def _pairs(self, node: list[Any]) -> Iterable[tuple[Any, Any]]:
        items = iter(self._all(node))
        return zip(items, items, strict=True)
