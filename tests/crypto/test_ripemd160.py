"""RIPEMD-160 against its authors' values and a second implementation."""

import hashlib
from typing import Any, Never

import pytest
from btclib.hashes import ripemd160 as btclib_ripemd160
from hypothesis import given
from hypothesis import strategies as st

from cromford.crypto.ripemd160 import ripemd160, ripemd160_in_python

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
    assert ripemd160_in_python(message).hex() == PUBLISHED[message]


@given(message=st.binary(max_size=200))
def test_a_second_implementation_agrees(message: bytes) -> None:
    assert ripemd160_in_python(message) == btclib_ripemd160(message)


def test_a_system_whose_openssl_lacks_it_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: Any, **__: Any) -> Never:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", refuse)
    assert ripemd160(b"abc").hex() == PUBLISHED[b"abc"]


def test_a_system_whose_openssl_has_it_gets_openssls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hash:
        def digest(self) -> bytes:
            return bytes(20)

    monkeypatch.setattr(hashlib, "new", lambda *_, **__: Hash())
    assert ripemd160(b"abc") == bytes(20)
