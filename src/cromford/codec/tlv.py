"""BOLT 1: BigSize integers and type-length-value streams.

The same stream encodes a wire message and the factory terms that are hashed, so an encoding
must be unique: minimal lengths and strictly increasing types are enforced on reading.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from cromford.codec.reader import MalformedBytes, Reader

U64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF
_ONE_BYTE_END: Final = 0xFD  # Numbers below are one byte.
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(_ONE_BYTE_END))


def encode_bigsize(number: int) -> bytes:
    """Return the BigSize encoding of `number` (BOLT 1, Appendix A).

    Raises:
        ValueError: If it does not fit 64 bits.
    """
    if 0 <= number < 0xFD:
        return _ONE_BYTE[number]
    if not 0 <= number <= U64_MAX:
        raise ValueError(f"BigSize holds 0..2^64-1, received {number}")
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "big")
    if number <= 0xFFFF_FFFF:
        return b"\xfe" + number.to_bytes(4, "big")
    return b"\xff" + number.to_bytes(8, "big")


def read_bigsize(reader: Reader) -> int:
    """Read one BigSize integer.

    Raises:
        MalformedBytes: If it is cut short or not the shortest encoding.
    """
    first = reader.byte()
    if first < 0xFD:
        return first
    length_bytes, least = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}[first]
    number = reader.uint_be(length_bytes)
    if number < least:
        raise MalformedBytes(f"BigSize {number} is not minimally encoded")
    return number


def encode_tlv_stream(records: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the TLV stream of `records`, given in strictly increasing order of type.

    Raises:
        ValueError: If the types do not increase.
    """
    parts: list[bytes] = []
    last = -1
    for tlv_type, value in records:
        if tlv_type <= last:
            raise ValueError(f"TLV type {tlv_type} after {last}: types must increase")
        last = tlv_type
        parts += (encode_bigsize(tlv_type), encode_bigsize(len(value)), value)
    return b"".join(parts)


def decode_tlv_stream(data: bytes, *, known: Mapping[int, str]) -> dict[int, bytes]:
    """Return the value of each known type in the stream.

    An unknown odd type is skipped, an unknown even one is refused ("it's ok to be odd",
    BOLT 1).

    Raises:
        MalformedBytes: If the stream is cut short, unordered, not minimal, or holds an unknown
            even type.
    """
    position, size = 0, len(data)
    values: dict[int, bytes] = {}
    last = -1
    while position < size:
        # Most types and lengths are one byte.
        tlv_type = data[position]
        position += 1
        if tlv_type >= _ONE_BYTE_END:
            tlv_type, position = _long_bigsize(data, position - 1)
        if tlv_type <= last:
            raise MalformedBytes(f"TLV type {tlv_type} after {last}: types must increase")
        last = tlv_type
        end = position + 1
        if end <= size and (length_bytes := data[position]) < _ONE_BYTE_END:
            position = end
        else:
            length_bytes, position = _long_bigsize(data, position)
        end = position + length_bytes
        if end > size:
            raise MalformedBytes(
                f"TLV type {tlv_type} claims {length_bytes} bytes, {size - position} are left"
            )
        if tlv_type in known:
            values[tlv_type] = data[position:end]
        elif tlv_type % 2 == 0:
            raise MalformedBytes(f"unknown even TLV type {tlv_type}")
        position = end
    return values


def _long_bigsize(data: bytes, position: int) -> tuple[int, int]:
    """Return the BigSize integer at a place, and the place after it.

    Raises:
        MalformedBytes: As `read_bigsize`.
    """
    reader = Reader(data, position)
    return read_bigsize(reader), reader.position
