"""secp256k1 and MuSig2's hashes in plain integers: a second implementation, and a slow one."""

import hashlib
from collections.abc import Sequence
from typing import Final

FIELD: Final = 2**256 - 2**32 - 977
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
Point = tuple[int, int] | None


def add(left: Point, right: Point) -> Point:
    if left is None or right is None:
        return left or right
    if left[0] == right[0] and left[1] != right[1]:
        return None
    if left == right:
        slope = 3 * left[0] * left[0] * pow(2 * left[1], -1, FIELD) % FIELD
    else:
        slope = (right[1] - left[1]) * pow(right[0] - left[0], -1, FIELD) % FIELD
    x = (slope * slope - left[0] - right[0]) % FIELD
    return x, (slope * (left[0] - x) - left[1]) % FIELD


def multiply(point: Point, scalar: int) -> Point:
    total: Point = None
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


def lift(pubkey: bytes) -> Point:
    x = int.from_bytes(pubkey[1:], "big")
    y = pow(x**3 + 7, (FIELD + 1) // 4, FIELD)
    return x, y if y % 2 == pubkey[0] % 2 else FIELD - y


def tagged(tag: str, data: bytes) -> bytes:
    tag_hash = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(tag_hash * 2 + data).digest()


def coefficient(pubkeys: Sequence[bytes], pubkey: bytes) -> int:
    """Return what a key is multiplied with in the aggregate (BIP 327, `KeyAggCoef`)."""
    second = next((one for one in pubkeys if one != pubkeys[0]), None)
    if pubkey == second:
        return 1
    list_hash = tagged("KeyAgg list", b"".join(pubkeys))
    return int.from_bytes(tagged("KeyAgg coefficient", list_hash + pubkey), "big") % ORDER


def aggregate(pubkeys: Sequence[bytes]) -> Point:
    total: Point = None
    for pubkey in pubkeys:
        total = add(total, multiply(lift(pubkey), coefficient(pubkeys, pubkey)))
    return total
