"""BOLT 8: the encryption of messages after the handshake, without any I/O."""

from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TAG_SIZE: Final = 16  # Poly1305
LENGTH_SIZE: Final = 2
HEADER_SIZE: Final = LENGTH_SIZE + TAG_SIZE  # The encrypted length before each message.
MESSAGE_SIZE_MAX: Final = 0xFFFF  # The length prefix has 16 bits.
ROTATION_INTERVAL: Final = 1000  # A key encrypts this often, then a new one is derived.


class BadCiphertext(Exception):
    """A message after the handshake does not authenticate. The stream is unusable."""


class MessageCipher:
    """One direction of an established stream: a key, its nonce and its chaining key.

    Both ends rotate the key after `ROTATION_INTERVAL` uses, so a key that leaks later does not
    open what was said before.
    """

    __slots__ = ("_aead", "_chaining_key", "_key", "_nonce")

    def __init__(self, *, key: bytes, chaining_key: bytes) -> None:
        self._key = key
        self._chaining_key = chaining_key
        self._aead = ChaCha20Poly1305(key)
        self._nonce = 0

    def __repr__(self) -> str:
        return "MessageCipher(secret)"

    def __reduce__(self) -> NoReturn:
        # Two copies would encrypt two messages with one key and nonce.
        raise TypeError("a message cipher must not be copied or stored")

    def encrypt(self, message: bytes) -> bytes:
        """Return the bytes on the wire for one message: encrypted length, then encrypted body.

        Raises:
            ValueError: If the message exceeds `MESSAGE_SIZE_MAX`.
        """
        check_size(message)
        header = self._seal(len(message).to_bytes(LENGTH_SIZE, "big"))
        return header + self._seal(message)

    def decrypt_header(self, header: bytes) -> int:
        """Return the size of the body that follows, its tag included.

        Raises:
            BadCiphertext: If these `HEADER_SIZE` bytes do not authenticate.
        """
        return int.from_bytes(self._open(header), "big") + TAG_SIZE

    def decrypt_body(self, body: bytes) -> bytes:
        """Return the message.

        Raises:
            BadCiphertext: If it does not authenticate.
        """
        return self._open(body)

    def _seal(self, plaintext: bytes) -> bytes:
        sealed = self._aead.encrypt(nonce_bytes(self._nonce), plaintext, None)
        self._count_use()
        return sealed

    def _open(self, ciphertext: bytes) -> bytes:
        try:
            plaintext = self._aead.decrypt(nonce_bytes(self._nonce), ciphertext, None)
        except InvalidTag as error:
            raise BadCiphertext("a message does not authenticate") from error
        self._count_use()
        return plaintext

    def _count_use(self) -> None:
        self._nonce += 1
        if self._nonce < ROTATION_INTERVAL:
            return
        self._chaining_key, self._key = hkdf(self._chaining_key, self._key)
        self._aead = ChaCha20Poly1305(self._key)
        self._nonce = 0


def check_size(message: bytes) -> None:
    """Check that a message is not longer than its length prefix can say.

    Raises:
        ValueError: If it exceeds `MESSAGE_SIZE_MAX`.
    """
    if len(message) > MESSAGE_SIZE_MAX:
        raise ValueError(f"a message has at most {MESSAGE_SIZE_MAX} bytes, received {len(message)}")


def hkdf(salt: bytes, key_material: bytes) -> tuple[bytes, bytes]:
    """Return two 32-byte keys: HKDF-SHA256 without info (BOLT 8, RFC 5869)."""
    okm = HKDF(algorithm=SHA256(), length=64, salt=salt, info=b"").derive(key_material)
    return okm[:32], okm[32:]


def nonce_bytes(nonce: int) -> bytes:
    """Return the 12 bytes of a nonce: four zeros, then 64 bits little-endian (BOLT 8)."""
    return bytes(4) + nonce.to_bytes(8, "little")
