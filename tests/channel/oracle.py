"""BIP 327 signing with secret nonces that are given: only for published vectors.

In integers, apart from libsecp256k1, because the product's nonces cannot be chosen.
"""

import hashlib
from typing import Final

from tests.crypto.integers import FIELD, ORDER, Point, add, multiply

GENERATOR: Final[Point] = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def lift(pubkey: bytes) -> Point:
    x = int.from_bytes(pubkey[-32:], "big")
    y = pow(x**3 + 7, (FIELD + 1) // 4, FIELD)
    is_odd = len(pubkey) == 33 and pubkey[0] == 3
    return x, y if bool(y & 1) == is_odd else FIELD - y


def compress(point: Point) -> bytes:
    assert point is not None
    return bytes((2 + (point[1] & 1),)) + point[0].to_bytes(32, "big")


def tagged(tag: str, data: bytes) -> int:
    prefix = hashlib.sha256(tag.encode()).digest()
    return int.from_bytes(hashlib.sha256(prefix + prefix + data).digest(), "big")


def is_odd(point: Point) -> bool:
    assert point is not None
    return bool(point[1] & 1)


def sign(seckeys: list[bytes], secnonces: list[bytes], message: bytes) -> bytes:
    """Return the signature of all signers for the BIP 86 key of their aggregate."""
    pubkeys = [compress(multiply(GENERATOR, int.from_bytes(seckey, "big"))) for seckey in seckeys]
    ordered = sorted(pubkeys)
    listed = tagged("KeyAgg list", b"".join(ordered)).to_bytes(32, "big")
    second = next((pubkey for pubkey in ordered if pubkey != ordered[0]), None)
    weights = {
        pubkey: 1 if pubkey == second else tagged("KeyAgg coefficient", listed + pubkey) % ORDER
        for pubkey in ordered
    }
    internal: Point = None
    for pubkey in ordered:
        internal = add(internal, multiply(lift(pubkey), weights[pubkey]))
    sign_internal = -1 if is_odd(internal) else 1
    tweak = tagged("TapTweak", compress(internal)[1:]) % ORDER
    output = add(lift(compress(internal)[1:]), multiply(GENERATOR, tweak))
    sign_output = -1 if is_odd(output) else 1

    scalars = [(int.from_bytes(n[:32], "big"), int.from_bytes(n[32:64], "big")) for n in secnonces]
    first: Point = None
    other: Point = None
    for left, right in scalars:
        first = add(first, multiply(GENERATOR, left))
        other = add(other, multiply(GENERATOR, right))
    key = compress(output)[1:]
    binding = tagged("MuSig/noncecoef", compress(first) + compress(other) + key + message) % ORDER
    nonce = add(first, multiply(other, binding))
    nonce_x = compress(nonce)[1:]
    sign_nonce = -1 if is_odd(nonce) else 1
    challenge = tagged("BIP0340/challenge", nonce_x + key + message) % ORDER

    total = challenge * sign_output * tweak
    for seckey, pubkey, (left, right) in zip(seckeys, pubkeys, scalars, strict=True):
        secret = sign_output * sign_internal * int.from_bytes(seckey, "big")
        total += sign_nonce * (left + binding * right) + challenge * weights[pubkey] * secret
    return nonce_x + (total % ORDER).to_bytes(32, "big")
