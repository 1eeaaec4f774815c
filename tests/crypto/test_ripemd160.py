"""RIPEMD-160 against its authors' values and a second implementation."""

import pytest
from btclib.hashes import ripemd160 as btclib_ripemd160
from hypothesis import given
from hypothesis import strategies as st

from cromford.crypto.ripemd160 import ripemd160

PUBLISHED = {
    b"": "9c1185a5c5e9fc54612808977ee8f548b2258d31",
    b"abc": "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
        "12a053384a9c0c88e405a06c27dcf49ada62eb2b"
    ),
    b"1234567890" * 8: "9b752e45573d4b39f4dbd3323cab82bf63326bfb",
}


@pytest.mark.parametrize("message", PUBLISHED)
def test_the_published_values_are_reproduced(message: bytes) -> None:
    assert ripemd160(message).hex() == PUBLISHED[message]


@given(message=st.binary(max_size=200))
def test_a_second_implementation_agrees(message: bytes) -> None:
    assert ripemd160(message) == btclib_ripemd160(message)
