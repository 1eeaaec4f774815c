"""Authenticated encryption of one thing with a key that seals nothing else (RFC 8439)."""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

TAG_SIZE: Final = 16  # Poly1305
# The key has one use, so its nonce has one value.
_NONCE: Final = bytes(12)


class NotSealed(ValueError):
    """These bytes were not sealed with this key, or are damaged."""


def seal_once(key: bytes, plaintext: bytes, *, said: bytes) -> bytes:
    """Return what only the holder of `key` can read: `TAG_SIZE` bytes longer.

    Two different texts under one key would tell both: a key is derived for what it seals.

    Args:
        key: 32 bytes, of this one use.
        plaintext: What is hidden.
        said: What stays readable beside it, and cannot be changed either.
    """
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, said)


def unseal(key: bytes, sealed: bytes, *, said: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        NotSealed: If it was not sealed with this key, beside these words.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, said)
    except InvalidTag:
        raise NotSealed("the bytes do not authenticate") from None
