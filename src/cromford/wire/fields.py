"""The kinds of field a message has, each with its bytes and its limit.

A message is a frozen dataclass each of whose fields is declared with a kind. Field i is the TLV
record of type 2i, so a reader that does not know a field refuses the message (BOLT 1: even types
must be understood); later additions that may be ignored take odd types.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from cromford.codec.reader import MalformedBytes, Reader
from cromford.codec.tlv import (
    U64_MAX,
    decode_tlv_stream,
    encode_bigsize,
    read_bigsize,
)

KIND: Final = "cromford.wire.kind"

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class FieldKind:
    """How one field is written and read. Both raise `MalformedBytes` beyond its limits.

    One that `is_late` was added to a message that existed: a list, which is left out where it is
    empty, so that what was written before is read as before. So an empty one is refused: a message
    has one encoding.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    is_late: bool = False


def u64() -> Any:  # noqa: ANN401 - a dataclass field stands in for its value, as in dataclasses.field
    """Return a field for an unsigned 64-bit integer."""
    return _field(U64)


def fixed(size: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for exactly `size` bytes."""
    return _field(_fixed(size))


def secret(size: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for exactly `size` bytes that nothing prints."""
    return field(default=MISSING, repr=False, metadata={KIND: _fixed(size)})


def varbytes(limit: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for at most `limit` bytes."""
    return _field(_varbytes(limit))


def text(limit: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for at most `limit` bytes of UTF-8.

    A longer text is cut when it is written: it is for people. One that is read is refused.
    """
    return _field(_text(limit))


def fixed_list(size: int, limit: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for at most `limit` items of `size` bytes each."""
    return _field(_fixed_list(size, limit))


def struct(cls: type[object]) -> Any:  # noqa: ANN401 - as u64
    """Return a field for a nested dataclass of such fields."""
    return _field(_struct(cls))


def struct_list(cls: type[object], limit: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for at most `limit` nested dataclasses."""
    return _field(_list_of(_struct(cls), limit))


def late_list(cls: type[object], limit: int) -> Any:  # noqa: ANN401 - as u64
    """Return a field for at most `limit` nested dataclasses, in a message that once was without."""
    kind = replace(_list_of(_struct(cls), limit), is_late=True)
    return field(default=(), metadata={KIND: kind})


class _Place(NamedTuple):
    tlv_type: int
    begins: bytes  # The type as it is written. Places are in the order of their types.
    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    is_late: bool


@dataclass(frozen=True, slots=True)
class Layout(Generic[M]):
    """Where each field of a class goes: made once for each class."""

    cls: type[M]
    places: tuple[_Place, ...]
    names: Mapping[int, str]

    def encode(self, message: M) -> bytes:
        """Return the TLV stream of an instance.

        Raises:
            MalformedBytes: If a field exceeds its limit; the message names it.
        """
        parts: list[bytes] = []
        name = ""
        try:
            for _, begins, name, encode, _, is_late in self.places:
                value = getattr(message, name)
                if is_late and not value:
                    continue
                encoded = encode(value)
                parts += (begins, encode_bigsize(len(encoded)), encoded)
        except MalformedBytes as error:
            raise _named(error, self.cls, name) from None
        return b"".join(parts)

    def decode(self, data: bytes) -> M:
        """Return the instance of a TLV stream.

        Raises:
            MalformedBytes: If a field is missing, too long or malformed; the message names it.
        """
        try:
            values = decode_tlv_stream(data, known=self.names)
        except MalformedBytes as error:
            raise MalformedBytes(f"{self.cls.__name__}: {error}") from None
        decoded: dict[str, object] = {}
        name = ""
        try:
            for tlv_type, _, name, _, decode, is_late in self.places:
                value = values.get(tlv_type)
                if value is None:
                    if is_late:
                        continue
                    break
                if is_late:
                    _check_is_said(value)
                decoded[name] = decode(value)
            else:
                return self.cls(**decoded)
        except MalformedBytes as error:
            raise _named(error, self.cls, name) from None
        raise MalformedBytes(f"{self.cls.__name__} without {name}")


_layouts: Final[dict[type[Any], Layout[Any]]] = {}  # No more than there are classes.


def layout_of(cls: type[M]) -> Layout[M]:
    """Return the layout of a dataclass of such fields.

    Raises:
        TypeError: If it is none.
    """
    known = _layouts.get(cls)
    if known is None:
        known = _layouts[cls] = _layout_made_of(cls)
    return known


def _layout_made_of(cls: type[M]) -> Layout[M]:
    if not is_dataclass(cls):
        raise TypeError(f"{cls!r} has no fields")
    kinds = [(item.name, cast("FieldKind", item.metadata[KIND])) for item in fields(cls)]
    places = tuple(
        _Place(2 * place, encode_bigsize(2 * place), name, kind.encode, kind.decode, kind.is_late)
        for place, (name, kind) in enumerate(kinds)
    )
    return Layout(cls, places, {place.tlv_type: place.name for place in places})


def encode_fields(struct: object) -> bytes:
    """Return the TLV stream of a dataclass of such fields.

    Raises:
        MalformedBytes: If a field exceeds its limit; the message names it.
    """
    return layout_of(type(struct)).encode(struct)


def decode_fields(cls: type[M], data: bytes) -> M:
    """Return the dataclass of a TLV stream.

    Raises:
        MalformedBytes: If a field is missing, too long or malformed; the message names it.
    """
    return layout_of(cls).decode(data)


def _check_is_said(value: bytes) -> None:
    if not value:
        raise MalformedBytes("expected to be left out where it is empty")


def _named(error: MalformedBytes, cls: type[object], field_name: str) -> MalformedBytes:
    """Return the error with where it was that bytes are malformed."""
    return MalformedBytes(f"{cls.__name__}.{field_name}: {error}")


def _field(kind: FieldKind) -> object:
    return field(default=MISSING, metadata={KIND: kind})


def _u64_encode(value: int) -> bytes:
    if not 0 <= value <= U64_MAX:
        raise MalformedBytes(f"expected 0..2^64-1, received {value}")
    return value.to_bytes(8, "big")


def _u64_decode(data: bytes) -> int:
    if len(data) != 8:
        raise MalformedBytes(f"expected 8 bytes, received {len(data)}")
    return int.from_bytes(data, "big")


U64: Final = FieldKind(encode=_u64_encode, decode=_u64_decode)


def _fixed(size: int) -> FieldKind:
    def check(data: bytes) -> bytes:
        if len(data) != size:
            raise MalformedBytes(f"expected {size} bytes, received {len(data)}")
        return data

    return FieldKind(encode=check, decode=check)


def _varbytes(limit: int) -> FieldKind:
    def check(data: bytes) -> bytes:
        if len(data) > limit:
            raise MalformedBytes(f"expected at most {limit} bytes, received {len(data)}")
        return data

    return FieldKind(encode=check, decode=check)


def _text(limit: int) -> FieldKind:
    def encode(value: str) -> bytes:
        # The cut may fall inside a character, which then goes as a whole.
        return value.encode(errors="replace")[:limit].decode(errors="ignore").encode()

    def decode(data: bytes) -> str:
        limited: bytes = bytes_kind.decode(data)
        return limited.decode(errors="replace")

    bytes_kind = _varbytes(limit)
    return FieldKind(encode=encode, decode=decode)


def _fixed_list(size: int, limit: int) -> FieldKind:
    check = _fixed(size).encode

    def encode(items: Sequence[bytes]) -> bytes:
        check_count(len(items))
        if not {size}.issuperset(map(len, items)):
            for item in items:
                check(item)
        return b"".join(items)

    def decode(data: bytes) -> tuple[bytes, ...]:
        if len(data) % size:
            raise MalformedBytes(f"expected items of {size} bytes, received {len(data)} bytes")
        check_count(len(data) // size)
        return tuple(data[i : i + size] for i in range(0, len(data), size))

    def check_count(count: int) -> None:
        if count > limit:
            raise MalformedBytes(f"expected at most {limit} items, received {count}")

    return FieldKind(encode=encode, decode=decode)


def _list_of(kind: FieldKind, limit: int) -> FieldKind:
    def encode(items: Sequence[object]) -> bytes:
        if len(items) > limit:
            raise MalformedBytes(f"expected at most {limit} items, received {len(items)}")
        encoded = [kind.encode(item) for item in items]
        return b"".join(encode_bigsize(len(item)) + item for item in encoded)

    def decode(data: bytes) -> tuple[object, ...]:
        reader = Reader(data)
        items: list[object] = []
        while reader.n_left:
            if len(items) == limit:
                raise MalformedBytes(f"expected at most {limit} items, received more")
            items.append(kind.decode(reader.take(read_bigsize(reader))))
        return tuple(items)

    return FieldKind(encode=encode, decode=decode)


def _struct(cls: type[object]) -> FieldKind:
    layout = layout_of(cls)
    return FieldKind(encode=layout.encode, decode=layout.decode)
