"""BIP 32 derivation, as much of it as the key paths of this project need."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from cromford.crypto import keys

HARDENED: Final = 0x8000_0000
MASTER_KEY: Final = b"Bitcoin seed"
SEED_SIZE_MIN: Final = 16
SEED_SIZE_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ExtendedSeckey:
    """A seckey and its chain code. Secret; never printed."""

    seckey: bytes = field(repr=False)
    chain_code: bytes = field(repr=False)

    @property
    def public(self) -> "ExtendedPubkey":
        """The public half."""
        return ExtendedPubkey(keys.pubkey_of(self.seckey), self.chain_code)

    def child(self, number: int) -> "ExtendedSeckey":
        """Return the child of this number; from 2^31 on it is hardened (`CKDpriv`).

        Raises:
            ValueError: With a probability below 2^-127; the next number must be used.
        """
        data = b"\x00" + self.seckey if number >= HARDENED else keys.pubkey_of(self.seckey)
        left, right = _split(self.chain_code, data, number)
        return ExtendedSeckey(keys.seckey_add(self.seckey, left), right)

    def derive(self, *numbers: int) -> "ExtendedSeckey":
        """Return the descendant at a path of numbers."""
        node = self
        for number in numbers:
            node = node.child(number)
        return node

    def derive_hardened(self, *numbers: int) -> "ExtendedSeckey":
        """Return the descendant at a path in which every number is hardened.

        Raises:
            ValueError: If a number is not below 2^31.
        """
        for number in numbers:
            if not 0 <= number < HARDENED:
                raise ValueError(f"a hardened step of 0..{HARDENED - 1}, received {number}")
        return self.derive(*(HARDENED + number for number in numbers))


@dataclass(frozen=True, slots=True)
class ExtendedPubkey:
    """A pubkey and its chain code: derives non-hardened children without any secret."""

    pubkey: bytes
    chain_code: bytes

    def child(self, number: int) -> "ExtendedPubkey":
        """Return the non-hardened child of this number (`CKDpub`).

        Raises:
            ValueError: If the number is hardened.
        """
        if number >= HARDENED:
            raise ValueError("a hardened child needs the seckey")
        left, right = _split(self.chain_code, self.pubkey, number)
        return ExtendedPubkey(keys.pubkey_add(self.pubkey, left), right)


def master_of(seed: bytes) -> ExtendedSeckey:
    """Return the master key of a seed.

    Raises:
        ValueError: If the seed is not of 16 to 64 bytes.
    """
    if not SEED_SIZE_MIN <= len(seed) <= SEED_SIZE_MAX:
        raise ValueError(f"a seed of {SEED_SIZE_MIN}..{SEED_SIZE_MAX} bytes, received {len(seed)}")
    digest = hmac.digest(MASTER_KEY, seed, hashlib.sha512)
    return ExtendedSeckey(digest[:32], digest[32:])


def _split(chain_code: bytes, data: bytes, number: int) -> tuple[bytes, bytes]:
    digest = hmac.digest(chain_code, data + number.to_bytes(4, "big"), hashlib.sha512)
    return digest[:32], digest[32:]
