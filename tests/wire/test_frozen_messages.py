"""The bytes of every message, as peers of this version send them: numbers, TLV types, values.

`frozen_messages.json` holds, by class, the type number (null for what only travels inside of
messages), the TLV type of each field and the bytes of one specimen. A change of a line is another
protocol. A new message gets a line of its own, and the failing test prints it. One that existed may
get a late list: its bytes of before stand in `older`, and are what is sent while that is empty.
"""

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pytest
from tests.wire.declared import declared, declared_classes, kind_of

from cromford.codec.reader import Reader
from cromford.codec.tlv import read_bigsize
from cromford.wire.fields import FieldKind, decode_fields, encode_fields
from cromford.wire.messages import (
    HEADER_SIZE,
    MESSAGE_TYPES,
    decode_message,
    encode_message,
)

FROZEN_FILE: Final = Path(__file__).parent / "frozen_messages.json"
FROZEN: Final[dict[str, dict[str, Any]]] = json.loads(FROZEN_FILE.read_text(encoding="utf-8"))
CLASSES: Final = {cls.__name__: cls for cls in declared_classes()}


def specimen(kind: FieldKind, name: str) -> Any:
    """Return the one value of a kind that stands for a field of this name."""
    what, given = declared(kind)
    match what:
        case "u64":
            return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        case "fixed":
            return filled(name, given["size"])
        case "varbytes":
            return name.encode()
        case "text":
            return name
        case "fixed_list":
            items = range(min(2, given["limit"]))
            return tuple(filled(f"{name} {place}", given["size"]) for place in items)
        case "list_of":
            items = range(min(2, given["limit"]))
            return tuple(specimen(given["kind"], f"{name} {place}") for place in items)
        case _:
            return specimen_of(given["cls"])


def specimen_of(cls: type[Any]) -> Any:
    """Return a message, or a value in one, each field filled by its name."""
    return cls(**{item.name: specimen(kind_of(item), item.name) for item in fields(cls)})


def filled(name: str, size: int) -> bytes:
    return (name.encode() + b" ").ljust(size, b".")[:size]


def encoded(value: Any) -> bytes:
    return encode_message(value) if type(value) in MESSAGE_TYPES else encode_fields(value)


def read(cls: type[Any], data: bytes) -> Any:
    return decode_message(data) if cls in MESSAGE_TYPES else decode_fields(cls, data)


def without_later(cls: type[Any], older: str) -> Any:
    """Return the specimen without the late lists that its older bytes do not have."""
    known = tlv_types(cls, bytes.fromhex(older))
    later = fields(cls)[len(known) :]
    assert all(kind_of(item).is_late for item in later)
    return replace(_as_it_began(cls), **{item.name: () for item in later})


def _as_it_began(cls: type[Any]) -> Any:
    """Return the specimen, with what is nested in it as that was before its own late lists."""
    made = specimen_of(cls)
    nested = {
        item.name: type(value)
        for item in fields(cls)
        if type(value := getattr(made, item.name)).__name__ in FROZEN
    }
    older = {name: FROZEN[kind.__name__].get("older", [""])[0] for name, kind in nested.items()}
    return replace(
        made, **{name: without_later(nested[name], data) for name, data in older.items() if data}
    )


def tlv_types(cls: type[Any], data: bytes) -> list[int]:
    """Return the TLV types in a specimen's bytes, in their order."""
    reader = Reader(data[HEADER_SIZE if cls in MESSAGE_TYPES else 0 :])
    found = []
    while reader.n_left:
        found.append(read_bigsize(reader))
        reader.take(read_bigsize(reader))
    return found


def line_of(name: str) -> dict[str, Any]:
    """Return what the file should say about a class of today."""
    cls = CLASSES[name]
    names = [item.name for item in fields(cls)]
    data = encoded(specimen_of(cls))
    return {
        "type": MESSAGE_TYPES.get(cls),
        "fields": dict(zip(names, tlv_types(cls, data), strict=True)),
        "bytes": data.hex(),
    }


@pytest.mark.parametrize("name", CLASSES)
def test_a_message_has_the_number_the_tlv_types_and_the_bytes_it_always_had(name: str) -> None:
    line = line_of(name)
    assert name in FROZEN, f"a new message; its line: {json.dumps({name: line})[1:-1]}"
    assert FROZEN[name]["type"] == line["type"]
    assert list(FROZEN[name]["fields"].items()) == list(line["fields"].items())
    assert FROZEN[name]["bytes"] == line["bytes"]
    for older in FROZEN[name].get("older", ()):
        assert encoded(without_later(CLASSES[name], older)).hex() == older


@pytest.mark.parametrize("name", FROZEN)
def test_a_message_that_was_sent_once_is_understood_by_every_version_after_it(name: str) -> None:
    assert name in CLASSES, "peers that send it are still there"
    cls = CLASSES[name]
    assert read(cls, bytes.fromhex(FROZEN[name]["bytes"])) == specimen_of(cls)
    for older in FROZEN[name].get("older", ()):
        assert read(cls, bytes.fromhex(older)) == without_later(cls, older)


def test_the_frozen_lines_are_in_the_order_of_their_names() -> None:
    assert list(FROZEN) == sorted(FROZEN)
