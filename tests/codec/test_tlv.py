"""BOLT 1: BigSize (appendix A) and TLV streams (appendix B), against the BOLT's own vectors."""

import itertools

import pytest
from _pytest.mark import ParameterSet
from hypothesis import given
from hypothesis import strategies as st

from cromford.codec.reader import MalformedBytes, Reader
from cromford.codec.tlv import (
    U64_MAX,
    decode_tlv_stream,
    encode_bigsize,
    encode_tlv_stream,
    read_bigsize,
)

BIGSIZE_VALID = [
    (0, "00"),
    (252, "fc"),
    (253, "fd00fd"),
    (65535, "fdffff"),
    (65536, "fe00010000"),
    (4294967295, "feffffffff"),
    (4294967296, "ff0000000100000000"),
    (18446744073709551615, "ffffffffffffffffff"),
]
BIGSIZE_NOT_CANONICAL = ["fd00fc", "fe0000ffff", "ff00000000ffffffff"]
BIGSIZE_SHORT = ["fd00", "feffff", "ffffffffff", "", "fd", "fe", "ff"]

N1 = {1: "tlv1", 2: "tlv2", 3: "tlv3", 254: "tlv4"}
N2 = {0: "tlv1", 11: "tlv2"}

NODE_ID = "023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb"
TLV3_VALUE = NODE_ID + "0000000000000001" + "0000000000000002"

INVALID_ANYWHERE = [
    ("fd", "type truncated"),
    ("fd01", "type truncated"),
    ("fd0001 00", "not minimally encoded type"),
    ("fd0101", "missing length"),
    ("0f fd", "length truncated"),
    ("0f fd26", "length truncated"),
    ("0f fd2602", "missing value"),
    ("0f fd0001 00", "not minimally encoded length"),
    ("0f fd0201" + "00" * 256, "value truncated"),
]
UNKNOWN_EVEN = ["12 00", "fd0102 00", "fe01000002 00", "ff0100000000000002 00"]
UNKNOWN_ODD = [
    "",
    "21 00",
    "fd0201 00",
    "fd00fd 00",
    "fd00ff 00",
    "fe02000001 00",
    "ff0200000000000001 00",
]
N1_VALID = [
    ("01 00", 1, ""),
    ("01 01 01", 1, "01"),
    ("01 02 0100", 1, "0100"),
    ("01 03 010000", 1, "010000"),
    ("01 04 01000000", 1, "01000000"),
    ("01 05 0100000000", 1, "0100000000"),
    ("01 06 010000000000", 1, "010000000000"),
    ("01 07 01000000000000", 1, "01000000000000"),
    ("01 08 0100000000000000", 1, "0100000000000000"),
    ("02 08 0000000000000226", 2, "0000000000000226"),
    (f"03 31 {TLV3_VALUE}", 3, TLV3_VALUE),
    ("fd00fe 02 0226", 254, "0226"),
]
N1_INVALID_STREAM = [
    ("02 08 0000000000000226 01 01 2a", "invalid ordering"),
    ("02 08 0000000000000231 02 08 0000000000000451", "duplicate type"),
    ("1f 00 0f 01 2a", "ignored records in invalid ordering"),
    ("1f 00 1f 01 2a", "duplicate ignored type"),
]
# Appendix B also holds streams whose records are well formed and whose values are not what n1
# declares. Values are the message's business; a stream must hand them over untouched.
N1_VALUES_ARE_NOT_OUR_CONCERN = [
    ("01 09 ffffffffffffffffff", 1),
    ("01 01 00", 1),
    ("01 02 0001", 1),
    ("01 03 000100", 1),
    ("01 04 00010000", 1),
    ("01 05 0001000000", 1),
    ("01 06 000100000000", 1),
    ("01 07 00010000000000", 1),
    ("01 08 0001000000000000", 1),
    ("02 07 01010101010101", 2),
    ("02 09 010101010101010101", 2),
    (f"03 21 {NODE_ID}", 3),
    (f"03 29 {NODE_ID}0000000000000001", 3),
    (f"03 30 {NODE_ID}000000000000000100000000000001", 3),
    (f"03 31 04{TLV3_VALUE[2:]}", 3),
    (f"03 32 {NODE_ID}0000000000000001000000000000000001", 3),
    ("fd00fe 00", 254),
    ("fd00fe 01 01", 254),
    ("fd00fe 03 010101", 254),
]

numbers = st.one_of(
    st.integers(0, U64_MAX),
    st.sampled_from([0, 0xFC, 0xFD, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x1_0000_0000, U64_MAX]),
)
streams = st.dictionaries(numbers, st.binary(max_size=40), max_size=8)


def named(vectors: list[tuple[str, str]]) -> list[ParameterSet]:
    """Let the BOLT's reason for a refusal be the name of its case."""
    return [pytest.param(stream, id=f"{why}-{stream[:10]}") for stream, why in vectors]


@pytest.mark.parametrize(("number", "encoded"), BIGSIZE_VALID)
def test_bigsize_agrees_with_appendix_a(number: int, encoded: str) -> None:
    assert encode_bigsize(number).hex() == encoded
    reader = Reader(bytes.fromhex(encoded))
    assert read_bigsize(reader) == number
    reader.check_end()


@pytest.mark.parametrize("encoded", BIGSIZE_NOT_CANONICAL)
def test_a_bigsize_longer_than_needed_is_refused(encoded: str) -> None:
    with pytest.raises(MalformedBytes, match="not minimally encoded"):
        read_bigsize(Reader(bytes.fromhex(encoded)))


@pytest.mark.parametrize("encoded", BIGSIZE_SHORT)
def test_a_bigsize_cut_short_is_refused(encoded: str) -> None:
    with pytest.raises(MalformedBytes, match="expected"):
        read_bigsize(Reader(bytes.fromhex(encoded)))


@pytest.mark.parametrize("number", [-1, U64_MAX + 1])
def test_a_number_outside_64_bits_has_no_bigsize(number: int) -> None:
    with pytest.raises(ValueError, match=str(number)):
        encode_bigsize(number)


@given(number=numbers)
def test_bigsize_reads_back_and_has_one_encoding(number: int) -> None:
    encoded = encode_bigsize(number)
    assert read_bigsize(Reader(encoded)) == number
    for first, length_bytes in ((0xFD, 2), (0xFE, 4), (0xFF, 8)):
        if number < 1 << 8 * length_bytes:
            other = bytes((first,)) + number.to_bytes(length_bytes, "big")
            if other != encoded:
                with pytest.raises(MalformedBytes):
                    read_bigsize(Reader(other))


@pytest.mark.parametrize("known", [N1, N2], ids=["n1", "n2"])
@pytest.mark.parametrize("stream", named(INVALID_ANYWHERE))
def test_a_broken_stream_is_refused_in_every_namespace(stream: str, known: dict[int, str]) -> None:
    with pytest.raises(MalformedBytes):
        decode_tlv_stream(bytes.fromhex(stream), known=known)


@pytest.mark.parametrize("known", [N1, N2], ids=["n1", "n2"])
@pytest.mark.parametrize("stream", UNKNOWN_EVEN)
def test_an_unknown_even_type_is_refused(stream: str, known: dict[int, str]) -> None:
    with pytest.raises(MalformedBytes, match="unknown even"):
        decode_tlv_stream(bytes.fromhex(stream), known=known)


def test_a_type_known_elsewhere_is_unknown_here() -> None:
    with pytest.raises(MalformedBytes, match="unknown even TLV type 0"):
        decode_tlv_stream(bytes.fromhex("0000"), known=N1)
    assert decode_tlv_stream(bytes.fromhex("0000"), known=N2) == {0: b""}


@pytest.mark.parametrize("known", [N1, N2], ids=["n1", "n2"])
@pytest.mark.parametrize("stream", UNKNOWN_ODD)
def test_an_unknown_odd_type_is_skipped(stream: str, known: dict[int, str]) -> None:
    assert decode_tlv_stream(bytes.fromhex(stream), known=known) == {}


@pytest.mark.parametrize(("stream", "tlv_type", "value"), N1_VALID)
def test_a_valid_stream_gives_the_value_and_encodes_back(
    stream: str, tlv_type: int, value: str
) -> None:
    raw = bytes.fromhex(stream)
    assert decode_tlv_stream(raw, known=N1) == {tlv_type: bytes.fromhex(value)}
    assert encode_tlv_stream([(tlv_type, bytes.fromhex(value))]) == raw


@pytest.mark.parametrize(("stream", "tlv_type"), N1_VALUES_ARE_NOT_OUR_CONCERN)
def test_a_value_is_handed_over_untouched_whatever_it_means(stream: str, tlv_type: int) -> None:
    raw = bytes.fromhex(stream)
    values = decode_tlv_stream(raw, known=N1)
    assert encode_tlv_stream(values.items()) == raw
    assert list(values) == [tlv_type]


@pytest.mark.parametrize("stream", named(N1_INVALID_STREAM))
def test_unordered_and_repeated_types_are_refused(stream: str) -> None:
    with pytest.raises(MalformedBytes, match="types must increase"):
        decode_tlv_stream(bytes.fromhex(stream), known=N1)


def test_the_largest_type_is_not_followed_by_the_smallest() -> None:
    with pytest.raises(MalformedBytes, match="types must increase"):
        decode_tlv_stream(bytes.fromhex("ffffffffffffffffff000000"), known=N2)


@pytest.mark.parametrize("broken", named(INVALID_ANYWHERE))
@pytest.mark.parametrize("valid", [stream for stream, _, _ in N1_VALID])
def test_a_broken_stream_after_a_valid_one_is_refused(valid: str, broken: str) -> None:
    with pytest.raises(MalformedBytes):
        decode_tlv_stream(bytes.fromhex(valid + broken), known=N1)


def test_a_higher_numbered_stream_after_a_lower_one_is_valid() -> None:
    by_type = sorted(N1_VALID, key=lambda vector: vector[1])
    for low, high in itertools.combinations(by_type, 2):
        if low[1] < high[1]:
            values = decode_tlv_stream(bytes.fromhex(low[0] + high[0]), known=N1)
            assert {kind: value.hex() for kind, value in values.items()} == {
                low[1]: low[2],
                high[1]: high[2],
            }


@given(records=streams)
def test_a_stream_reads_back_every_record(records: dict[int, bytes]) -> None:
    known = dict.fromkeys(records, "known")
    assert decode_tlv_stream(encode_tlv_stream(sorted(records.items())), known=known) == records


@given(records=st.dictionaries(numbers, st.binary(max_size=8), min_size=2, max_size=6))
def test_records_out_of_order_are_never_encoded(records: dict[int, bytes]) -> None:
    ordered = sorted(records.items())
    with pytest.raises(ValueError, match="types must increase"):
        encode_tlv_stream([ordered[-1], *ordered[:-1]])
    with pytest.raises(ValueError, match="types must increase"):
        encode_tlv_stream([ordered[0], ordered[0]])


@given(data=st.binary(max_size=120))
def test_any_bytes_decode_to_the_one_stream_they_are_or_are_malformed(data: bytes) -> None:
    try:
        values = decode_tlv_stream(data, known=dict.fromkeys(range(256), "known"))
    except MalformedBytes:
        return
    known_part = encode_tlv_stream(values.items())
    if all(kind < 256 for kind in _types_of(data)):
        assert known_part == data


@given(records=streams, position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_raises_anything_but_malformed(
    records: dict[int, bytes], position: int, bit: int
) -> None:
    stream = bytearray(encode_tlv_stream(sorted(records.items())))
    if not stream:
        return
    stream[position % len(stream)] ^= 1 << bit
    try:
        values = decode_tlv_stream(bytes(stream), known=dict.fromkeys(records, "known"))
    except MalformedBytes:
        return
    assert values != records or any(kind not in records for kind in _types_of(bytes(stream)))


def _types_of(stream: bytes) -> list[int]:
    reader = Reader(stream)
    types: list[int] = []
    while reader.n_left:
        types.append(read_bigsize(reader))
        reader.take(read_bigsize(reader))
    return types
