"""BOLT 1: BigSize integers and type-length-value streams.

The same stream encodes a wire message and the factory terms that are hashed, so an encoding
must be unique: minimal lengths and strictly increasing types are enforced on reading.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from cromford.codec.reader import MalformedBytes, Reader

U64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(0xFD))


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
    reader, size = Reader(data), len(data)
    values: dict[int, bytes] = {}
    last = -1
    while reader.position < size:
        tlv_type = read_bigsize(reader)
        if tlv_type <= last:
            raise MalformedBytes(f"TLV type {tlv_type} after {last}: types must increase")
        last = tlv_type
        length_bytes = read_bigsize(reader)
        n_left = size - reader.position
        if length_bytes > n_left:
            raise MalformedBytes(
                f"TLV type {tlv_type} claims {length_bytes} bytes, {n_left} are left"
            )
        value = reader.take(length_bytes)
        if tlv_type in known:
            values[tlv_type] = value
        elif tlv_type % 2 == 0:
            raise MalformedBytes(f"unknown even TLV type {tlv_type}")
    return values
