"""Hypothesis strategies read off the declarations of the message fields, limits included."""

import inspect
from dataclasses import Field, fields
from typing import Any

from hypothesis import strategies as st

from cromford.codec.tlv import U64_MAX
from cromford.wire.fields import KIND, U64, FieldKind, Layout
from cromford.wire.messages import MESSAGE_TYPES, Message

FEW = 3  # Items of a list, where the limit is not what is tested.
SHORT = 60  # Bytes of a string, likewise.

MESSAGES: list[type[Message]] = sorted(MESSAGE_TYPES, key=lambda cls: cls.__name__)


def kind_of(item: Field[Any]) -> FieldKind:
    kind: FieldKind = item.metadata[KIND]
    return kind


def declared(kind: FieldKind) -> tuple[str, dict[str, Any]]:
    """Return which kind this is and its limits, as they were given to it."""
    if kind is U64:
        return "u64", {}
    layout = getattr(kind.decode, "__self__", None)
    if isinstance(layout, Layout):
        return "struct", {"cls": layout.cls}
    name = kind.decode.__qualname__.partition(".")[0]
    given = dict(inspect.getclosurevars(kind.decode).nonlocals)
    if name == "_fixed_list":
        given |= inspect.getclosurevars(given["check_count"]).nonlocals
    if name == "_text":
        given |= inspect.getclosurevars(given["bytes_kind"].decode).nonlocals
    return name.strip("_"), given


def values_of(kind: FieldKind) -> st.SearchStrategy[Any]:
    """Return the values a field of this kind may have."""
    name, given = declared(kind)
    match name:
        case "u64":
            return st.one_of(st.integers(0, U64_MAX), st.sampled_from([0, U64_MAX]))
        case "fixed":
            return st.binary(min_size=given["size"], max_size=given["size"])
        case "varbytes":
            return st.binary(max_size=min(SHORT, given["limit"]))
        case "text":
            return st.text(max_size=min(SHORT, given["limit"]) // 4)
        case "fixed_list":
            item = st.binary(min_size=given["size"], max_size=given["size"])
            return st.lists(item, max_size=min(FEW, given["limit"])).map(tuple)
        case "list_of":
            items = st.lists(values_of(given["kind"]), max_size=min(FEW, given["limit"]))
            return items.map(tuple)
        case "struct":
            return structs(given["cls"])
        case _:
            raise AssertionError(f"a field of an unknown kind: {name}")


def structs(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Return the instances of a dataclass of such fields."""
    return st.builds(cls, **{item.name: values_of(kind_of(item)) for item in fields(cls)})


def messages() -> st.SearchStrategy[Message]:
    """Return messages of every type."""
    return st.one_of([structs(cls) for cls in MESSAGES])


def least(kind: FieldKind) -> Any:
    """Return the shortest value of a kind."""
    name, given = declared(kind)
    match name:
        case "u64":
            return 0
        case "fixed":
            return bytes(given["size"])
        case "varbytes":
            return b""
        case "text":
            return ""
        case "fixed_list" | "list_of":
            return ()
        case _:
            return least_struct(given["cls"])


def least_struct(cls: type[Any]) -> Any:
    return cls(**{item.name: least(kind_of(item)) for item in fields(cls)})


def declared_classes() -> list[type[Any]]:
    """Return every dataclass that travels, nested ones included."""
    found: list[type[Any]] = []
    waiting: list[type[Any]] = list(MESSAGES)
    while waiting:
        cls = waiting.pop()
        if cls in found:
            continue
        found.append(cls)
        for item in fields(cls):
            name, given = declared(kind_of(item))
            if name == "list_of":
                name, given = declared(given["kind"])
            if name == "struct":
                waiting.append(given["cls"])
    return sorted(found, key=lambda cls: cls.__name__)
