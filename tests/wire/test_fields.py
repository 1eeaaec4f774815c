"""The limit of every field, both ways, and the name it has when it is broken."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.declared import declared, declared_classes, kind_of, least, least_struct, structs

from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import U64_MAX, encode_bigsize, encode_tlv_stream
from cromford.wire.fields import (
    FieldKind,
    decode_fields,
    encode_fields,
    fixed,
    fixed_list,
    struct,
    struct_list,
    text,
    u64,
    varbytes,
)

CLASSES = declared_classes()
FIELDS = [(cls, item.name) for cls in CLASSES for item in fields(cls)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: int = u64()
    name: bytes = fixed(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    number: int = u64()
    id: bytes = fixed(4)
    script: bytes = varbytes(5)
    reason: str = text(6)
    keys: tuple[bytes, ...] = fixed_list(3, 4)
    inner: Inner = struct(Inner)  # noqa: RUF009 - made once, as in the messages
    many: tuple[Inner, ...] = struct_list(Inner, 2)


def kind_named(cls: type[Any], name: str) -> FieldKind:
    return next(kind_of(item) for item in fields(cls) if item.name == name)


def changed(cls: type[Any], **values: object) -> Any:
    return cls(**{item.name: least(kind_of(item)) for item in fields(cls)} | values)


def raw(cls: type[Any], **values: bytes) -> bytes:
    """Encode the shortest instance with these fields' bytes as they are given."""
    return encode_tlv_stream(
        (2 * place, values.get(item.name, kind_of(item).encode(least(kind_of(item)))))
        for place, item in enumerate(fields(cls))
    )


def largest(kind: FieldKind) -> Any:
    """Return a value at the very limit of its kind, or None where a struct has its own."""
    name, given = declared(kind)
    match name:
        case "u64":
            return U64_MAX
        case "fixed":
            return b"\xff" * given["size"]
        case "varbytes":
            return b"\xff" * given["limit"]
        case "text":
            return "a" * given["limit"]
        case "fixed_list":
            return (b"\xff" * given["size"],) * given["limit"]
        case "list_of":
            return (least(given["kind"]),) * given["limit"]
        case _:
            return least_struct(given["cls"])


def beyond(kind: FieldKind) -> list[tuple[Any, bytes]]:
    """Return values just beyond the limit, and the same as bytes somebody else encoded."""
    name, given = declared(kind)
    match name:
        case "u64":
            return [(U64_MAX + 1, bytes(9)), (-1, bytes(7)), (2**300, b"")]
        case "fixed":
            return [
                (bytes(size), bytes(size)) for size in (0, given["size"] - 1, given["size"] + 1)
            ]
        case "varbytes":
            over = bytes(given["limit"] + 1)
            return [(over, over)]
        case "fixed_list":
            items = (bytes(given["size"]),) * (given["limit"] + 1)
            odd = (bytes(given["size"] + 1),)
            return [(items, b"".join(items)), (odd, odd[0])]
        case "list_of":
            items = (least(given["kind"]),) * (given["limit"] + 1)
            encoded = [given["kind"].encode(item) for item in items]
            return [(items, b"".join(encode_bigsize(len(e)) + e for e in encoded))]
        case _:  # A struct has no limit of its own; a text is cut on encoding.
            return []


@pytest.mark.parametrize(("cls", "name"), FIELDS)
def test_a_field_may_be_as_large_as_its_limit(cls: type[Any], name: str) -> None:
    value = changed(cls, **{name: largest(kind_named(cls, name))})
    assert decode_fields(cls, encode_fields(value)) == value


@pytest.mark.parametrize(("cls", "name"), FIELDS)
def test_a_field_beyond_its_limit_is_refused_by_name_both_ways(cls: type[Any], name: str) -> None:
    for value, encoded in beyond(kind_named(cls, name)):
        with pytest.raises(MalformedBytes, match=rf"^{cls.__name__}\.{name}: expected"):
            encode_fields(changed(cls, **{name: value}))
        with pytest.raises(MalformedBytes, match=rf"^{cls.__name__}\.{name}: expected"):
            decode_fields(cls, raw(cls, **{name: encoded}))


def test_every_kind_of_field_has_been_seen_by_these_tests() -> None:
    seen = {declared(kind_of(item))[0] for item in fields(Everything)}
    assert seen == {"u64", "fixed", "varbytes", "text", "fixed_list", "list_of", "struct"}


@given(value=structs(Everything))
def test_every_kind_of_field_is_the_same_after_the_wire(value: Everything) -> None:
    assert decode_fields(Everything, encode_fields(value)) == value


@pytest.mark.parametrize("item", fields(Everything))
def test_the_limits_of_every_kind_hold(item: Any) -> None:
    test_a_field_may_be_as_large_as_its_limit(Everything, item.name)
    test_a_field_beyond_its_limit_is_refused_by_name_both_ways(Everything, item.name)


def test_a_fault_deep_inside_is_named_all_the_way_down() -> None:
    inner = raw(Inner, name=b"123")
    with pytest.raises(MalformedBytes, match=r"^Everything\.inner: Inner\.name: expected 2 bytes"):
        decode_fields(Everything, raw(Everything, inner=inner))
    many = encode_bigsize(len(inner)) + inner
    with pytest.raises(MalformedBytes, match=r"^Everything\.many: Inner\.name: expected 2 bytes"):
        decode_fields(Everything, raw(Everything, many=many))
    with pytest.raises(MalformedBytes, match=r"^Everything\.inner: Inner\.name: expected 2 bytes"):
        encode_fields(changed(Everything, inner=Inner(number=0, name=b"1")))


def test_an_item_that_claims_more_than_there_is_is_refused() -> None:
    with pytest.raises(MalformedBytes, match=r"Everything\.many: expected 18446744073709551615"):
        decode_fields(Everything, raw(Everything, many=b"\xff" * 9))


def test_an_unknown_even_field_is_refused_inside_too_and_an_odd_one_skipped() -> None:
    known = raw(Inner, name=b"ab")
    skipped = raw(Everything, inner=known + encode_tlv_stream([(5, b"later")]))
    assert decode_fields(Everything, skipped).inner == Inner(number=0, name=b"ab")
    refused = raw(Everything, inner=known + encode_tlv_stream([(4, b"later")]))
    with pytest.raises(MalformedBytes, match=r"Everything\.inner: Inner: unknown even TLV type 4"):
        decode_fields(Everything, refused)


@given(reason=st.text(max_size=12) | st.text("aé€𝄞\ud800", max_size=12))
def test_a_long_text_is_cut_between_characters(reason: str) -> None:
    """Whoever sends a reason must not fail because of it."""
    encoded = kind_named(Everything, "reason").encode(reason)
    whole = reason.encode(errors="replace")
    assert whole.startswith(encoded)
    assert len(whole) - 3 <= len(encoded) if len(whole) <= 6 else 3 <= len(encoded) <= 6
    assert whole.decode().startswith(encoded.decode())
    assert (encoded == whole) == (len(whole) <= 6)


def test_a_text_beyond_its_limit_is_refused_by_its_reader() -> None:
    with pytest.raises(MalformedBytes, match=r"Everything\.reason: expected at most 6 bytes"):
        decode_fields(Everything, raw(Everything, reason=b"1234567"))


@given(data=st.binary(max_size=6))
def test_a_text_that_is_not_utf_8_is_read_all_the_same(data: bytes) -> None:
    assert kind_named(Everything, "reason").decode(data) == data.decode(errors="replace")


def test_what_is_no_dataclass_has_no_fields() -> None:
    with pytest.raises(TypeError, match="has no fields"):
        encode_fields("a string")
    with pytest.raises(TypeError, match="has no fields"):
        decode_fields(int, b"")
