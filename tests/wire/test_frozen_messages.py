"""The bytes of every message, as peers of this version send them: numbers, TLV types, values.

`frozen_messages.json` holds, by class, the type number (null for what only travels inside of
messages), the TLV type of each field and the bytes of one specimen. A change of a line is another
protocol. A new message gets a line of its own, and the failing test prints it.
"""

import hashlib
import json
from dataclasses import fields
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


def encoded(cls: type[Any]) -> bytes:
    value = specimen_of(cls)
    return encode_message(value) if cls in MESSAGE_TYPES else encode_fields(value)


def tlv_types(cls: type[Any]) -> list[int]:
    """Return the TLV types in the specimen's bytes, in their order."""
    reader = Reader(encoded(cls)[HEADER_SIZE if cls in MESSAGE_TYPES else 0 :])
    found = []
    while reader.n_left:
        found.append(read_bigsize(reader))
        reader.take(read_bigsize(reader))
    return found


def line_of(name: str) -> dict[str, Any]:
    """Return what the file should say about a class of today."""
    cls = CLASSES[name]
    names = [item.name for item in fields(cls)]
    return {
        "type": MESSAGE_TYPES.get(cls),
        "fields": dict(zip(names, tlv_types(cls), strict=True)),
        "bytes": encoded(cls).hex(),
    }


@pytest.mark.parametrize("name", CLASSES)
def test_a_message_has_the_number_the_tlv_types_and_the_bytes_it_always_had(name: str) -> None:
    line = line_of(name)
    assert name in FROZEN, f"a new message; its line: {json.dumps({name: line})[1:-1]}"
    assert FROZEN[name]["type"] == line["type"]
    assert list(FROZEN[name]["fields"].items()) == list(line["fields"].items())
    assert FROZEN[name]["bytes"] == line["bytes"]


@pytest.mark.parametrize("name", FROZEN)
def test_a_message_that_was_sent_once_is_understood_by_every_version_after_it(name: str) -> None:
    assert name in CLASSES, "peers that send it are still there"
    cls, data = CLASSES[name], bytes.fromhex(FROZEN[name]["bytes"])
    read = decode_message(data) if cls in MESSAGE_TYPES else decode_fields(cls, data)
    assert read == specimen_of(cls)


def test_the_frozen_lines_are_in_the_order_of_their_names() -> None:
    assert list(FROZEN) == sorted(FROZEN)
