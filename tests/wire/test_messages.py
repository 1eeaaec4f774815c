"""Every message: the same again after the wire, within its limits, under its own number."""

from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.declared import MESSAGES, kind_of, least_struct, messages, structs

from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import encode_bigsize, encode_tlv_stream
from cromford.wire import messages as m
from cromford.wire.messages import decode_message, encode_message

CUSTOM_TYPES = range(32_768, 65_536)  # BOLT 1, "Lightning Message Format".


@pytest.mark.parametrize("cls", MESSAGES)
@settings(max_examples=40)
@given(data=st.data())
def test_every_message_is_the_same_after_the_wire(
    cls: type[m.Message], data: st.DataObject
) -> None:
    message = data.draw(structs(cls))
    encoded = encode_message(message)
    assert encoded[:3] == m.MESSAGE_TYPES[cls].to_bytes(2, "big") + b"\x01"
    assert decode_message(encoded) == message


@given(message=messages())
def test_a_message_has_one_encoding(message: m.Message) -> None:
    encoded = encode_message(message)
    decoded = decode_message(encoded)
    assert decoded is not None
    assert encode_message(decoded) == encoded


@given(one=messages(), other=messages())
def test_different_messages_have_different_encodings(one: m.Message, other: m.Message) -> None:
    assert (one == other) == (encode_message(one) == encode_message(other))


def test_type_numbers_are_unique_even_and_custom() -> None:
    numbers = list(m.MESSAGE_TYPES.values())
    assert len(set(numbers)) == len(numbers)
    assert all(number % 2 == 0 and number in CUSTOM_TYPES for number in numbers)


def test_every_message_has_a_type_number() -> None:
    assert set(m.MESSAGE_TYPES) == set(get_args(m.Message))


@pytest.mark.parametrize("cls", MESSAGES)
@pytest.mark.parametrize("version", [0, 2, 127, 255])
def test_another_version_is_refused(cls: type[m.Message], version: int) -> None:
    encoded = bytearray(encode_message(least_struct(cls)))
    encoded[2] = version
    with pytest.raises(MalformedBytes, match=f"{cls.__name__}: expected version 1, got {version}"):
        decode_message(bytes(encoded))


@given(
    message_type=st.integers(0, 0xFFFF).filter(lambda n: n not in m.MESSAGE_TYPES.values()),
    rest=st.binary(min_size=1, max_size=40),
)
def test_an_unknown_type_may_be_ignored_if_it_is_odd_and_only_then(
    message_type: int, rest: bytes
) -> None:
    data = message_type.to_bytes(2, "big") + rest
    if message_type % 2:
        assert decode_message(data) is None
        return
    with pytest.raises(MalformedBytes, match=f"unknown message type {message_type}"):
        decode_message(data)


@pytest.mark.parametrize("data", [b"", b"\x96", b"\x96\x00"])
def test_fewer_bytes_than_a_header_are_no_message(data: bytes) -> None:
    with pytest.raises(MalformedBytes, match=rf"3\.\.65535 bytes, received {len(data)}"):
        decode_message(data)


def stream_of(message: Any, extra: dict[int, bytes]) -> bytes:
    """Encode a message with more records than it has, each in its place."""
    encoded = encode_message(message)
    kinds = {2 * place: item for place, item in enumerate(fields(message))}
    values = {
        t: item.metadata["cromford.wire.kind"].encode(getattr(message, item.name))
        for t, item in kinds.items()
        if getattr(message, item.name) or not kind_of(item).is_late
    }
    return encoded[:3] + encode_tlv_stream(sorted((values | extra).items()))


@pytest.mark.parametrize("cls", MESSAGES)
@settings(max_examples=25)
@given(data=st.data(), value=st.binary(max_size=20))
def test_an_unknown_odd_field_is_skipped_wherever_it_stands(
    cls: type[m.Message], data: st.DataObject, value: bytes
) -> None:
    message = data.draw(structs(cls))
    odd = 2 * data.draw(st.integers(0, len(fields(cls)) + 3)) + 1
    assert decode_message(stream_of(message, {odd: value})) == message


@pytest.mark.parametrize("cls", MESSAGES)
def test_an_unknown_even_field_is_refused(cls: type[m.Message]) -> None:
    even = 2 * len(fields(cls))
    refusal = f"{cls.__name__}: unknown even TLV type {even}"
    with pytest.raises(MalformedBytes, match=refusal):
        decode_message(stream_of(least_struct(cls), {even: b""}))


def test_a_late_list_that_is_empty_is_left_out_and_has_no_second_encoding() -> None:
    message = least_struct(m.ChannelReestablish)
    place = next(i for i, item in enumerate(fields(message)) if kind_of(item).is_late)
    twice = stream_of(message, {2 * place: b""})
    with pytest.raises(MalformedBytes, match="to be left out where it is empty"):
        decode_message(twice)


@pytest.mark.parametrize("cls", MESSAGES)
def test_a_missing_field_is_named(cls: type[m.Message]) -> None:
    message = least_struct(cls)
    for place, item in enumerate(fields(cls)):
        kept = [
            (2 * i, other.metadata["cromford.wire.kind"].encode(getattr(message, other.name)))
            for i, other in enumerate(fields(cls))
            if i != place and not kind_of(other).is_late
        ]
        data = encode_message(message)[:3] + encode_tlv_stream(kept)
        if kind_of(item).is_late:
            assert decode_message(data) == message, "empty, as it is where nobody knew of it"
            continue
        with pytest.raises(MalformedBytes, match=f"{cls.__name__} without {item.name}"):
            decode_message(data)


def propose_with(terms_size: int) -> m.Propose:
    return m.Propose(
        factory_pubkey=bytes(33),
        attempt_id=bytes(32),
        terms_hash=bytes(32),
        terms=bytes(terms_size),
        client=1,
        factory_pubkeys=(),
        candidates=(),
    )


def test_a_message_is_as_long_as_bolt_8_allows_and_no_longer() -> None:
    frame = len(encode_message(propose_with(0xFD))) - 0xFD
    longest = m.MESSAGE_SIZE_MAX - frame
    encoded = encode_message(propose_with(longest))
    assert len(encoded) == m.MESSAGE_SIZE_MAX == 65_535
    assert decode_message(encoded) == propose_with(longest)
    with pytest.raises(MalformedBytes, match="Propose: at most 65535 bytes, needs 65536"):
        encode_message(propose_with(longest + 1))


def test_bytes_beyond_the_longest_message_are_refused_unread() -> None:
    """They would be a good message: an unknown odd record is all that makes it too long."""
    good = encode_message(m.Leave(factory_pubkey=bytes(33)))
    n_left = m.MESSAGE_SIZE_MAX - len(good) - 6
    fits = good + encode_tlv_stream([(0xFFFD, bytes(n_left))])
    assert len(fits) == m.MESSAGE_SIZE_MAX
    assert decode_message(fits) == m.Leave(factory_pubkey=bytes(33))
    with pytest.raises(MalformedBytes, match="received 65536"):
        decode_message(good + encode_tlv_stream([(0xFFFD, bytes(n_left + 1))]))


@pytest.mark.parametrize("claim", [0xFD, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 2**64 - 1])
def test_a_length_beyond_the_message_is_refused(claim: int) -> None:
    data = encode_message(m.Leave(factory_pubkey=bytes(33)))[:3] + b"\x00" + encode_bigsize(claim)
    with pytest.raises(MalformedBytes, match=f"Leave: TLV type 0 claims {claim} bytes, 0 are left"):
        decode_message(data)
