"""The reader gives exactly the bytes it was given, and never one more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.codec.reader import MalformedBytes, Reader


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_a_reader_gives_every_byte_once_and_then_refuses(data: bytes, cuts: list[int]) -> None:
    reader = Reader(data)
    taken = b""
    for cut in cuts:
        if cut > reader.n_left:
            before = reader.position
            with pytest.raises(MalformedBytes, match=rf"expected {cut} bytes at offset {before}"):
                reader.take(cut)
            assert reader.position == before
        else:
            taken += reader.take(cut)
    assert taken == data[: len(taken)]
    assert reader.n_left == len(data) - len(taken)


@given(number=st.integers(0, 2**64 - 1))
def test_both_byte_orders_read_back_what_was_written(number: int) -> None:
    assert Reader(number.to_bytes(8, "little")).uint_le(8) == number
    assert Reader(number.to_bytes(8, "big")).uint_be(8) == number


@pytest.mark.parametrize("read", [Reader.uint_le, Reader.uint_be])
def test_an_integer_cut_short_is_refused(read: object) -> None:
    assert callable(read)
    with pytest.raises(MalformedBytes):
        read(Reader(b"\x01\x02\x03"), 4)


def test_trailing_bytes_are_refused_and_counted() -> None:
    reader = Reader(b"\x01\x02\x03")
    reader.take(1)
    with pytest.raises(MalformedBytes, match="2 unexpected bytes"):
        reader.check_end()
    reader.take(2)
    reader.check_end()
    assert reader.n_left == 0


def test_a_claim_of_more_bytes_than_memory_is_refused_without_allocating_them() -> None:
    with pytest.raises(MalformedBytes):
        Reader(b"\x00" * 8).take(2**62)
