"""Base58 addresses of regtest, which Core prints for scripts from before segwit."""

from typing import Final

from cromford.crypto.keys import sha256d

ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PUBKEYHASH_PREFIX: Final = 111
SCRIPTHASH_PREFIX: Final = 196
CHECKSUM_SIZE: Final = 4
PAYLOAD_SIZE: Final = 21
LENGTH_MAX: Final = 36


def address_of_hash(prefix: int, digest: bytes) -> str:
    """Return the address of a 20-byte hash; no regtest address begins with a zero byte."""
    payload = bytes((prefix,)) + digest
    number = int.from_bytes(payload + sha256d(payload)[:CHECKSUM_SIZE], "big")
    digits = ""
    while number:
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def script_of_legacy_address(address: str) -> bytes:
    """Return the script a base58 address pays to.

    Raises:
        ValueError: If it is none of regtest's.
    """
    number = 0
    if len(address) > LENGTH_MAX:
        raise ValueError(f"address {address!r}: too long")
    for char in address:
        number = number * len(ALPHABET) + ALPHABET.index(char)
    size = (number.bit_length() + 7) // 8
    raw = number.to_bytes(size, "big")
    payload, checksum = raw[:-CHECKSUM_SIZE], raw[-CHECKSUM_SIZE:]
    if len(payload) != PAYLOAD_SIZE or sha256d(payload)[:CHECKSUM_SIZE] != checksum:
        raise ValueError(f"address {address!r}: the checksum does not match")
    if payload[0] == PUBKEYHASH_PREFIX:
        return b"\x76\xa9\x14" + payload[1:] + b"\x88\xac"
    if payload[0] == SCRIPTHASH_PREFIX:
        return b"\xa9\x14" + payload[1:] + b"\x87"
    raise ValueError(f"address {address!r}: not one of regtest")
