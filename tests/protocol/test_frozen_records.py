"""The bytes of every record, as they were written once: a journal outlives the version of it.

`frozen_records.json` holds, by tag, the names of a record's fields in their order and the bytes of
one specimen; where a field may be absent, also the bytes without it. Once a version that wrote it
was released, a line of it is never changed. A new record gets a line of its own, and the failing
test prints it.
"""

import hashlib
import json
from dataclasses import fields, is_dataclass
from enum import IntEnum
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

import msgspec
import pytest

from cromford.protocol.journal import records as r
from cromford.protocol.journal.records import decode_record, encode_record

FROZEN_FILE: Final = Path(__file__).parent / "frozen_records.json"
FROZEN: Final[dict[str, dict[str, Any]]] = json.loads(FROZEN_FILE.read_text(encoding="utf-8"))
RECORD_TYPES: Final = {
    str(cls.__struct_config__.tag): cls
    for cls in sorted(get_args(r.AnyRecord), key=lambda cls: str(cls.__struct_config__.tag))
}


def specimen(kind: Any, name: str) -> Any:
    """Return the one value of a type that stands for a field of this name."""
    if kind is bool:
        return True
    if kind is int:
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    if kind is str:
        return name
    if kind is bytes:
        return name.encode()
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return list(kind)[-1]
    items = get_args(kind)
    if items and items[-1] is Ellipsis:
        return tuple(specimen(items[0], f"{name} {place}") for place in range(2))
    if items and items[-1] is NoneType:
        return specimen(items[0], name)
    return specimen_of(kind)


def specimen_of(cls: type[Any], **given: object) -> Any:
    """Return a record, or a value in one, each field filled by its name."""
    hints = get_type_hints(cls)
    return cls(**{name: specimen(hints[name], name) for name in names_of(cls)} | given)


def names_of(cls: type[Any]) -> tuple[str, ...]:
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    assert is_dataclass(cls), f"{cls.__name__} is in a record and has no specimen"
    return tuple(item.name for item in fields(cls))


def line_of(tag: str) -> dict[str, Any]:
    """Return what the file should say about a record of today."""
    cls = RECORD_TYPES[tag]
    line = {"fields": list(names_of(cls)), "bytes": encode_record(specimen_of(cls)).hex()}
    if absent := absent_of(cls):
        line["bytes_if_absent"] = encode_record(specimen_of(cls, **absent)).hex()
    return line


def absent_of(cls: type[Any]) -> dict[str, None]:
    """Return the fields of a record that may have no value."""
    return {name: None for name, kind in get_type_hints(cls).items() if NoneType in get_args(kind)}


def classes_in(cls: type[Any]) -> set[type[Any]]:
    """Return a class and every class whose values it holds."""
    hints = get_type_hints(cls)
    kinds = [item for name in names_of(cls) for item in (get_args(hints[name]) or (hints[name],))]
    classes = [kind for kind in kinds if isinstance(kind, type)]
    inner = [kind for kind in classes if is_dataclass(kind) or issubclass(kind, msgspec.Struct)]
    return {cls}.union(*(classes_in(kind) for kind in inner))


@pytest.mark.parametrize("tag", RECORD_TYPES)
def test_a_record_is_written_as_it_always_was(tag: str) -> None:
    line = line_of(tag)
    assert tag in FROZEN, f"a new record; its line: {json.dumps({tag: line})[1:-1]}"
    assert FROZEN[tag] == line


@pytest.mark.parametrize("tag", FROZEN)
def test_a_record_that_was_written_once_is_read_for_ever(tag: str) -> None:
    assert tag in RECORD_TYPES, "journals that hold it are still there"
    cls, line = RECORD_TYPES[tag], FROZEN[tag]
    assert decode_record(bytes.fromhex(line["bytes"])) == specimen_of(cls)
    if "bytes_if_absent" in line:
        read = decode_record(bytes.fromhex(line["bytes_if_absent"]))
        assert read == specimen_of(cls, **absent_of(cls))


def test_the_frozen_lines_are_in_the_order_of_their_tags() -> None:
    assert list(FROZEN) == sorted(FROZEN)


def test_two_fields_of_one_type_never_change_places_unnoticed() -> None:
    for cls in set().union(*map(classes_in, RECORD_TYPES.values())):
        value = specimen_of(cls)
        held = [getattr(value, name) for name in names_of(cls)]
        told_apart = {repr(item) for item in held if not isinstance(item, bool)}
        n_flags = sum(isinstance(item, bool) for item in held)
        assert len(told_apart) + n_flags == len(held), cls.__name__
        assert n_flags < 2, f"{cls.__name__}: two flags look the same in its specimen"
