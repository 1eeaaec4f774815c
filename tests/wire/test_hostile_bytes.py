"""Whatever a peer sends, decoding gives a message, None or `MalformedBytes`, in little memory."""

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.declared import MESSAGES, declared_classes, kind_of, messages, structs

from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import encode_bigsize, encode_tlv_stream
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields, encode_fields
from cromford.wire.messages import MESSAGE_SIZE_MAX, decode_message, encode_message

MEMORY_MAX = 16 * MESSAGE_SIZE_MAX  # Bytes, for the objects made of one message.
CLASSES = "|".join(cls.__name__ for cls in declared_classes())
NAMED = rf"({CLASSES})(\.\w+)?(:| without)|unknown message type|a message of"


def decoded(data: bytes) -> tuple[str | None, m.Message | None]:
    try:
        return None, decode_message(data)
    except MalformedBytes as error:
        return str(error), None


def check_total(data: bytes) -> None:
    """Decode; whatever comes must be a message that can be sent, None, or a fault with a name."""
    fault, message = decoded(data)
    if fault is not None:
        assert re.match(NAMED, fault), fault
        return
    if message is None:
        assert int.from_bytes(data[:2], "big") % 2
        return
    assert isinstance(message, tuple(MESSAGES))
    again = decode_message(encode_message(message))
    assert isinstance(message, (m.Abort, m.Refused)) or again == message


@given(data=st.binary(max_size=300))
def test_random_bytes_are_answered(data: bytes) -> None:
    check_total(data)


@pytest.mark.parametrize("cls", MESSAGES)
@settings(max_examples=40)
@given(rest=st.binary(max_size=200))
def test_random_bytes_after_a_good_header_are_answered(cls: type[m.Message], rest: bytes) -> None:
    check_total(m.MESSAGE_TYPES[cls].to_bytes(2, "big") + b"\x01" + rest)


@pytest.mark.parametrize("cls", declared_classes())
@settings(max_examples=5)
@given(data=st.data())
def test_every_truncation_is_refused(cls: type[Any], data: st.DataObject) -> None:
    whole = data.draw(structs(cls))
    encoded = encode_fields(whole)
    late = [item.name for item in fields(cls) if kind_of(item).is_late]
    before = replace(whole, **dict.fromkeys(late, ())) if late else None
    for size in range(min(len(encoded), 400)):
        if before is not None and encode_fields(before) == encoded[:size]:
            assert decode_fields(cls, encoded[:size]) == before, "what those before us would send"
            continue
        with pytest.raises(MalformedBytes, match=cls.__name__):
            decode_fields(cls, encoded[:size])


@settings(max_examples=60)
@given(message=messages(), data=st.data())
def test_a_truncated_message_is_refused(message: m.Message, data: st.DataObject) -> None:
    encoded = encode_message(message)
    size = data.draw(st.integers(0, len(encoded) - 1))
    late: dict[str, Any] = {item.name: () for item in fields(message) if kind_of(item).is_late}
    if late and encode_message(replace(message, **late)) == encoded[:size]:
        return  # What those before us would send.
    with pytest.raises(MalformedBytes):
        decode_message(encoded[:size])


@settings(max_examples=150)
@given(message=messages(), data=st.data())
def test_changed_bytes_are_answered(message: m.Message, data: st.DataObject) -> None:
    changed = bytearray(encode_message(message))
    places = st.integers(0, len(changed) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    check_total(bytes(changed))


@settings(max_examples=150)
@given(message=messages(), data=st.data())
def test_bytes_put_in_taken_out_or_repeated_are_answered(
    message: m.Message, data: st.DataObject
) -> None:
    encoded = encode_message(message)
    places = st.integers(0, len(encoded))
    first, last = sorted((data.draw(places), data.draw(places)))
    inserted = data.draw(st.binary(max_size=20))
    check_total(encoded[:first] + inserted + encoded[last:])
    check_total(encoded[:last] + encoded[first:])


@settings(max_examples=100)
@given(one=messages(), other=messages(), data=st.data())
def test_the_beginning_of_one_and_the_end_of_another_are_answered(
    one: m.Message, other: m.Message, data: st.DataObject
) -> None:
    head, tail = encode_message(one), encode_message(other)
    check_total(
        head[: data.draw(st.integers(0, len(head)))] + tail[data.draw(st.integers(0, len(tail))) :]
    )


def greedy_messages() -> Iterator[bytes]:
    """Yield messages of the greatest size that try to become many objects."""
    n_left = MESSAGE_SIZE_MAX - 50
    for cls, message_type in m.MESSAGE_TYPES.items():
        header = message_type.to_bytes(2, "big") + b"\x01"
        yield header + b"\xff" * n_left
        yield header + bytes(n_left)
        # As many records as possible, each of one unknown odd type after another.
        yield header + encode_tlv_stream((2 * i + 1, b"") for i in range(n_left // 6))
        for tlv_type in range(0, 2 * len(cls.__dataclass_fields__), 2):
            before = encode_tlv_stream((i, bytes(32)) for i in range(0, tlv_type, 2))
            size = n_left - len(before)
            record = encode_bigsize(tlv_type) + encode_bigsize(size)
            yield header + before + record + bytes(size)
            yield header + before + encode_bigsize(tlv_type) + b"\xff" * 9


@pytest.mark.sampled(0)
def test_no_message_makes_its_reader_take_much_memory() -> None:
    greedy = list(greedy_messages())
    tracemalloc.start()
    try:
        for data in greedy:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            check_total(data)
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY_MAX, data[:20].hex()
    finally:
        tracemalloc.stop()
