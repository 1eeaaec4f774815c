"""Which classes a state is made of, and what their fields hold: read off their annotations.

A snapshot describes the classes of its values in these words. Whether it can be read by a version
whose classes have changed is decided here, and nowhere guessed.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from cromford.bitcoin.tx import Txid
from cromford.shelf import Shelf

Shape = str | list[Any]  # A type in plain data: its name, or a name and the types in it.


@dataclass(frozen=True, slots=True)
class StateClass:
    """A class whose values may appear: its fields' types, and those that may be absent.

    `shelves` are the fields that are shelves, with the name of the type of their keys.
    """

    cls: type[Any]
    fields: dict[str, Shape]
    defaulted: frozenset[str]
    shelves: dict[str, str]


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
        elif kind.__name__ not in classes or classes[kind.__name__].cls is not kind:
            described = _described(kind)
            _put(classes, kind.__name__, described, kind)
            for inner in get_type_hints(kind).values():
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
            field.name
            for field in of_class
            if field.default is not MISSING or field.default_factory is not MISSING
        }
        names = [field.name for field in of_class]
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
    return StateClass(cls, shapes, frozenset(defaulted), shelves)


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
        return str(kind.__name__)
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
    for field, shape in before.items():
        now = known.fields.get(field)
        if now is None:
            return f"{name} has no {field} any more"
        if not accepts(now, shape):
            return f"{name}.{field}: was {shape}, is {now}"
    added = known.fields.keys() - before.keys() - known.defaulted
    return f"{name} needs {min(added)}, which was unknown" if added else None


def problem_with_enum(known: type[Enum], before: list[str]) -> str | None:
    """Return why members of an enumeration cannot be read that had these, or None."""
    gone = [member for member in before if member not in known.__members__]
    return f"{known.__name__} has no {gone[0]} any more" if gone else None
