"""The bytes of every record, as they were written once: a journal outlives the version of it.

`frozen_records.json` holds, by tag, the names of a record's fields in their order and the bytes of
one specimen, of the version without a checksum; where a field may be absent, also the bytes without
it. Mail that was taken has a line for each kind of it. A record, or a value in one, may get further
fields, at its end, each with a default: its bytes of before stand in `older`, and are read for
ever. A new record gets a line of its own, and the failing test prints it.
"""

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

import msgspec
import pytest

from cromford.protocol.journal import records as r
from cromford.protocol.journal.mail import AnyMail, Mail
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.records import decode_record, encode_record

FROZEN_FILE: Final = Path(__file__).parent / "frozen_records.json"
FROZEN: Final[dict[str, dict[str, Any]]] = json.loads(FROZEN_FILE.read_text(encoding="utf-8"))
RECORD_TYPES: Final = get_args(r.AnyRecord)
MAIL_TYPES: Final = get_args(AnyMail)


def tag_of(cls: type[Any]) -> str:
    return str(cls.__struct_config__.tag)


# By the tag of a line: the record, and what is in it if that is mail.
LINES: Final[dict[str, tuple[type[Any], type[Any] | None]]] = dict(
    sorted(
        [
            *((tag_of(cls), (cls, None)) for cls in RECORD_TYPES if cls is not MailTaken),
            *((f"{tag_of(MailTaken)}: {tag_of(mail)}", (MailTaken, mail)) for mail in MAIL_TYPES),
        ]
    )
)


def specimen(kind: Any, name: str) -> Any:
    """Return the one value of a type that stands for a field of this name."""
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
    if items:  # One of several: the first, which is not `None`.
        return specimen(items[0], name)
    return specimen_of(kind)


def specimen_of(cls: type[Any], **given: object) -> Any:
    """Return a record, or a value in one, fields filled by names; every second flag is off."""
    hints = get_type_hints(cls)
    flags = [name for name in names_of(cls) if hints[name] is bool]
    values = {
        name: flags.index(name) % 2 == 0 if name in flags else specimen(hints[name], name)
        for name in names_of(cls)
    }
    return cls(**values | given)


def names_of(cls: type[Any]) -> tuple[str, ...]:
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    assert is_dataclass(cls), f"{cls.__name__} is in a record and has no specimen"
    return tuple(item.name for item in fields(cls))


def specimens(tag: str) -> tuple[Any, Any | None]:
    """Return the specimen of a line, and the one without what may be absent, if anything may."""
    cls, mail = LINES[tag]
    if mail is None:
        absent = absent_of(cls)
        return specimen_of(cls), specimen_of(cls, **absent) if absent else None
    absent = absent_of(mail)
    without = specimen_of(cls, mail=specimen_of(mail, **absent)) if absent else None
    return specimen_of(cls, mail=specimen_of(mail)), without


def line_of(tag: str) -> dict[str, Any]:
    """Return what the file should say about a record of today."""
    cls, mail = LINES[tag]
    whole, without = specimens(tag)
    line: dict[str, Any] = {"fields": list(names_of(cls))}
    if mail is not None:
        line["mail"] = list(names_of(mail))
    line["bytes"] = unchecked(encode_record(whole)).hex()
    if without is not None:
        line["bytes_if_absent"] = unchecked(encode_record(without)).hex()
    return line


def unchecked(data: bytes) -> bytes:
    """Return a record's bytes of the version without a checksum: what it says is the same."""
    return bytes((r.UNCHECKED_VERSION,)) + data[1 + r.CHECKSUM_SIZE :]


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


@pytest.mark.parametrize("tag", LINES)
def test_a_record_is_written_as_it_always_was(tag: str) -> None:
    line = line_of(tag)
    assert tag in FROZEN, f"a new record; its line: {json.dumps({tag: line})[1:-1]}"
    assert {key: value for key, value in FROZEN[tag].items() if key != "older"} == line


@pytest.mark.parametrize("tag", FROZEN)
def test_a_record_that_was_written_once_is_read_for_ever(tag: str) -> None:
    assert tag in LINES, "journals that hold it are still there"
    line, (whole, without) = FROZEN[tag], specimens(tag)
    assert decode_record(bytes.fromhex(line["bytes"])) == whole
    if "bytes_if_absent" in line:
        assert decode_record(bytes.fromhex(line["bytes_if_absent"])) == without
    for older in line.get("older", ()):
        assert decode_record(bytes.fromhex(older)) == shortened(whole, bytes.fromhex(older))


def shortened(record: Any, older: bytes) -> Any:
    """Return a record as it was before it, or a value in it, got what its older bytes lack."""
    return _shortened(record, msgspec.msgpack.decode(older[1:]))  # Behind the version.


def _shortened(record: Any, raw: list[Any]) -> Any:
    """Return the same of a record, or of mail in one, by what was decoded: its tag is first."""
    held = raw[1:]
    names = names_of(type(record))
    defaults = dict(zip(reversed(names), reversed(record.__struct_defaults__), strict=False))
    later = {name: defaults[name] for name in names[len(held) :]}
    inner = {
        name: without_later(getattr(record, name), raw)
        for name, raw in zip(names, held, strict=False)
        if isinstance(raw, dict)
    }
    inner |= {
        name: _shortened(getattr(record, name), raw)
        for name, raw in zip(names, held, strict=False)
        if isinstance(getattr(record, name), Mail)
    }
    return msgspec.structs.replace(record, **later, **inner)


def without_later(value: Any, raw: dict[str, Any]) -> Any:
    """Return a value in a record as it was before it got the fields that its older bytes lack."""
    later = {item.name: item.default for item in fields(value) if item.name not in raw}
    return replace(value, **later)


def test_the_frozen_lines_are_in_the_order_of_their_tags() -> None:
    assert list(FROZEN) == sorted(FROZEN)


def test_two_fields_of_one_type_never_change_places_unnoticed() -> None:
    for cls in set().union(*map(classes_in, RECORD_TYPES)):
        value = specimen_of(cls)
        held = [getattr(value, name) for name in names_of(cls)]
        assert len({repr(item) for item in held}) == len(held), cls.__name__
