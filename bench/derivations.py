"""The operations that derive a commitment's keys (BOLT 3), as batches to be timed."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import Any

from bench.op import Batch, Op
from btclib_secp256k1 import ffi, lib
from btclib_secp256k1.context import ctx

from cromford.crypto.keys import pubkey_of


def derivations(calls: int) -> dict[Op, Batch]:
    """Return a batch of `calls` of each. Objects are parsed and allocated beforehand."""
    scalars = _scalars(calls)
    # Each works in place, on top of the one before, which costs the same.
    multiplied, tweaked = _pubkey(b"multiplied"), _pubkey(b"tweaked")
    seckey = ffi.new("unsigned char[32]", sha256(b"seckey").digest())
    total, output_key = ffi.new("secp256k1_pubkey *"), ffi.new("secp256k1_pubkey *")
    addends = ffi.new("secp256k1_pubkey *[]", [_pubkey(b"one"), _pubkey(b"two")])
    internal_key = ffi.new("secp256k1_xonly_pubkey *")
    lib.secp256k1_xonly_pubkey_from_pubkey(ctx, internal_key, ffi.NULL, tweaked)
    return {
        Op.PUBKEY_MUL: _batch(lib.secp256k1_ec_pubkey_tweak_mul, (multiplied,), scalars),
        Op.PUBKEY_SUM: Batch(
            lib.secp256k1_ec_pubkey_combine, [(ctx, total, addends, len(addends))] * calls
        ),
        Op.PUBKEY_TWEAK: _batch(lib.secp256k1_ec_pubkey_tweak_add, (tweaked,), scalars),
        Op.XONLY_TWEAK: _batch(
            lib.secp256k1_xonly_pubkey_tweak_add, (output_key, internal_key), scalars
        ),
        Op.SECKEY_TWEAK: _batch(lib.secp256k1_ec_seckey_tweak_add, (seckey,), scalars),
    }


def _batch(function: Any, objects: tuple[Any, ...], scalars: Sequence[bytes]) -> Batch:  # noqa: ANN401 - cffi's objects
    return Batch(function, [(ctx, *objects, scalar) for scalar in scalars])


@cache
def _scalars(n: int) -> tuple[bytes, ...]:
    return tuple(sha256(b"scalar %d" % i).digest() for i in range(n))


def _pubkey(name: bytes) -> Any:  # noqa: ANN401 - cffi's objects
    out = ffi.new("secp256k1_pubkey *")
    if not lib.secp256k1_ec_pubkey_parse(ctx, out, pubkey_of(sha256(name).digest()), 33):
        raise AssertionError("libsecp256k1 refused its own key")
    return out
