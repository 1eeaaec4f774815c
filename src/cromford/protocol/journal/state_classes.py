"""Which classes a state is made of, and what their fields hold: read off their annotations.

A snapshot describes the classes of its values in these words. Whether it can be read by a version
whose classes have changed is decided here, and nowhere guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from cromford.bitcoin.tx import Txid
from cromford.shelf import Shelf

Shape = str | list[Any]  # A type in plain data: its name, or a name and the types in it.


@dataclass(frozen=True, slots=True)
class Older:
    """How a class reads what it was once written as. It stands in the class as `older`.

    Attributes:
        fields: By name, with the type that they had: those that are gone, or have another now.
        read: Makes a value of what the fields held. Whatever holds such a value may have to go on
            from what this returns.
        name: What the class was called, where another is called so now.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[..., object] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class StateClass:
    """A class whose values may appear: its fields' types, and those that may be absent.

    `shelves` are the fields that are shelves, with the name of the type of their keys. `older` are
    the types of the fields that older versions wrote, if they wrote others.
    """

    cls: type[Any]
    fields: dict[str, Shape]
    defaulted: frozenset[str]
    shelves: dict[str, str]
    older: Mapping[str, Shape]

    def reader_of(self, before: Mapping[str, Shape]) -> Callable[..., object]:
        """Return what makes a value of fields of these types."""
        older = _older_of(self.cls)
        return older.read if older.read is not None and _is_older(self, before) else self.cls


_ALWAYS_THE_SAME: Final = Older()
_MAPS: Final = {"Map", "dict"}
Classes = tuple[dict[str, StateClass], dict[str, type[Enum]]]
_KNOWN: Final[dict[tuple[type[Any], frozenset[type[Any]]], Classes]] = {}  # walked once each


def classes_of(root: type[Any], outside: frozenset[type[Any]] = frozenset()) -> Classes:
    """Return every class and every enumeration whose values a value of `root` may hold, by name.

    Raises:
        TypeError: If an annotation names something that no snapshot holds, or two have one name.
    """
    if (root, outside) in _KNOWN:
        return _KNOWN[root, outside]
    classes: dict[str, StateClass] = {}
    enums: dict[str, type[Enum]] = {}
    plain = {NoneType, bool, int, str, bytes, Txid, *outside}

    def visit(kind: Any) -> None:  # noqa: ANN401 - any annotation
        if get_args(kind):
            for inner in get_args(kind):
                visit(inner)
        elif kind is None or kind is Ellipsis or kind in plain:
            return
        elif issubclass(kind, Enum):
            _put(enums, kind.__name__, kind, kind)
        elif (name := _name_of(kind)) not in classes or classes[name].cls is not kind:
            described = _described(kind)
            _put(classes, name, described, kind)
            for inner in (*get_type_hints(kind).values(), *_older_of(kind).fields.values()):
                visit(inner)

    visit(root)
    return _KNOWN.setdefault((root, outside), (classes, enums))


def _put(known: dict[str, Any], name: str, what: object, kind: type[Any]) -> None:
    if known.setdefault(name, what) is not what:
        raise TypeError(f"two classes are called {name}: one is in {kind.__module__}")


def _described(cls: type[Any]) -> StateClass:
    hints = get_type_hints(cls)
    if is_dataclass(cls):
        of_class = fields(cls)
        defaulted = {
            one.name
            for one in of_class
            if one.default is not MISSING or one.default_factory is not MISSING
        }
        names = [one.name for one in of_class]
    elif issubclass(cls, msgspec.Struct):
        names = list(cls.__struct_fields__)
        n_required = len(names) - len(cls.__struct_defaults__)
        defaulted = set(names[n_required:])
    else:
        raise TypeError(f"{cls.__name__} cannot be in a snapshot")
    shapes = {name: shape_of(hints[name]) for name in names}
    shelves = {
        name: get_args(hints[name])[0].__name__
        for name in names
        if get_origin(hints[name]) is Shelf
    }
    older = {name: shape_of(one) for name, one in _older_of(cls).fields.items()}
    return StateClass(cls, shapes, frozenset(defaulted), shelves, older)


def _older_of(cls: type[Any]) -> Older:
    """Return what a class says of what it was once written as."""
    older = cls.__dict__.get("older")
    return older if isinstance(older, Older) else _ALWAYS_THE_SAME


def _name_of(cls: type[Any]) -> str:
    """Return the name by which a class is written."""
    return _older_of(cls).name or cls.__name__


def _is_older(known: StateClass, before: Mapping[str, Shape]) -> bool:
    """Say whether a class was written with a field that it has no more, or not of that type."""
    return any(
        before.get(name) == shape and known.fields.get(name) != shape
        for name, shape in known.older.items()
    )


def shape_of(kind: Any) -> Shape:  # noqa: ANN401 - any annotation
    """Return a type as plain data, alike for every version of Python."""
    if kind is None or kind is NoneType:
        return "None"
    if kind is Ellipsis:
        return "..."
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return ["|", *sorted((shape_of(one) for one in inner), key=str)]
    if origin is None:
        return _name_of(kind)
    name = "dict" if origin in {dict, Mapping} else str(origin.__name__)
    return [name, *(shape_of(one) for one in inner)]


def accepts(now: Shape, before: Shape) -> bool:
    """Say whether whatever had one type has another, too.

    The same, a union that has grown, or a shelf that was a map in memory.
    """
    if now == before:
        return True
    if isinstance(before, list) and before[0] == "|":
        return all(accepts(now, one) for one in before[1:])
    if isinstance(now, list) and now[0] == "|":
        return any(accepts(one, before) for one in now[1:])
    if isinstance(now, str) or isinstance(before, str):
        return False
    is_shelved = now[0] == Shelf.__name__ and before[0] in _MAPS
    return (
        (now[0] == before[0] or is_shelved)
        and len(now) == len(before)
        and all(accepts(new, old) for new, old in zip(now[1:], before[1:], strict=True))
    )


def problem_with_class(
    known: StateClass | None, name: str, before: Mapping[str, Shape]
) -> str | None:
    """Return why values of a class cannot be read whose fields were these, or None."""
    if known is None:
        return f"there is no {name} any more"
    is_older = _is_older(known, before)
    for held, shape in before.items():
        if is_older and known.older.get(held) == shape:
            continue
        now = known.fields.get(held)
        if now is None:
            return f"{name} has no {held} any more"
        if not accepts(now, shape):
            return f"{name}.{held}: was {shape}, is {now}"
    added = set() if is_older else known.fields.keys() - before.keys() - known.defaulted
    return f"{name} needs {min(added)}, which was unknown" if added else None


def problem_with_enum(known: type[Enum], before: list[str]) -> str | None:
    """Return why members of an enumeration cannot be read that had these, or None."""
    gone = [member for member in before if member not in known.__members__]
    return f"{known.__name__} has no {gone[0]} any more" if gone else None
