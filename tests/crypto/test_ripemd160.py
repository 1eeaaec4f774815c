"""RIPEMD-160 against its authors' values and a second implementation."""

import pytest
import wallycore
from btclib import hashes
from hypothesis import given
from hypothesis import strategies as st

from cromford.crypto.ripemd160 import ripemd160

# Dobbertin, Bosselaers and Preneel: "RIPEMD-160: a strengthened version of RIPEMD", appendix B.
PUBLISHED = {
    b"": "9c1185a5c5e9fc54612808977ee8f548b2258d31",
    b"a": "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe",
    b"abc": "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
    b"message digest": "5d0689ef49d2fae572b881b123a85ffa21595f36",
    b"abcdefghijklmnopqrstuvwxyz": "f71c27109c692c1b56bbdceb5b9d2865b3708dbc",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
        "12a053384a9c0c88e405a06c27dcf49ada62eb2b"
    ),
    b"1234567890" * 8: "9b752e45573d4b39f4dbd3323cab82bf63326bfb",
}


@pytest.mark.parametrize("message", PUBLISHED)
@pytest.mark.parametrize("openssl_has_it", [True, False])
def test_the_published_values_are_reproduced_with_and_without_openssls(
    monkeypatch: pytest.MonkeyPatch, message: bytes, *, openssl_has_it: bool
) -> None:
    if not openssl_has_it:
        monkeypatch.setattr(hashes, "_RIPEMD160_IN_HASHLIB", False)
    assert ripemd160(message).hex() == PUBLISHED[message]


@given(message=st.binary(min_size=1, max_size=200))
def test_a_second_implementation_agrees(message: bytes) -> None:
    assert ripemd160(message) == bytes(wallycore.ripemd160(message))
