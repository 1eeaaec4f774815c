"""Every per-commitment secret the peer has revealed, in at most 49 of them (BOLT 3).

Secrets come from a tree of hashes, so a later one gives the earlier ones below it. That is also
a check: a secret that does not give what was stored before is not of the same tree.
"""

from dataclasses import dataclass
from typing import Final

from cromford.crypto.keys import sha256
from cromford.signing.keychain import FIRST_COMMITMENT_INDEX

N_INDEX_BITS: Final = 48
SECRET_SIZE: Final = 32
N_COMMITMENTS_MAX: Final = 1 << N_INDEX_BITS  # Numbers 0 to 2^48 - 1.


class InconsistentSecret(ValueError):
    """A per-commitment secret that does not belong to the tree of those before it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the secret of commitment {number} is not of the same tree")
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret and the index it was revealed with."""

    index: int
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretStore:
    """Revealed secrets, as a value. The bucket of a secret is the zero bits its index ends in."""

    n_secrets: int = 0
    buckets: tuple[StoredSecret, ...] = ()

    def with_secret(self, secret: bytes) -> "SecretStore":
        """Return the store after the next commitment's secret was revealed.

        Raises:
            InconsistentSecret: If it does not give the secrets stored before.
            ValueError: If it is not 32 bytes, or every commitment is revoked already.
        """
        if len(secret) != SECRET_SIZE:
            raise ValueError(f"a secret has {SECRET_SIZE} bytes, received {len(secret)}")
        if self.n_secrets >= N_COMMITMENTS_MAX:
            raise ValueError(f"all {N_COMMITMENTS_MAX} commitments are revoked")
        index = FIRST_COMMITMENT_INDEX - self.n_secrets
        place = _bucket_of(index)
        for stored in self.buckets[:place]:
            if _derive(secret, n_bits=place, index=stored.index) != stored.secret:
                raise InconsistentSecret(self.n_secrets)
        new = StoredSecret(index=index, secret=secret)
        return SecretStore(
            n_secrets=self.n_secrets + 1,
            buckets=(*self.buckets[:place], new, *self.buckets[place + 1 :]),
        )

    def secret_of(self, number: int) -> bytes:
        """Return the secret that revoked a commitment.

        Raises:
            ValueError: If that commitment is not revoked.
        """
        if not 0 <= number < self.n_secrets:
            raise ValueError(f"commitment {number}: {self.n_secrets} are revoked")
        index = FIRST_COMMITMENT_INDEX - number
        place, stored = next(
            (place, stored)
            for place, stored in enumerate(self.buckets)
            if index >> place == stored.index >> place
        )
        return _derive(stored.secret, n_bits=place, index=index)


EMPTY_STORE: Final = SecretStore()


def _bucket_of(index: int) -> int:
    return (index & -index).bit_length() - 1 if index else N_INDEX_BITS


def _derive(secret: bytes, *, n_bits: int, index: int) -> bytes:
    derived = bytearray(secret)
    for bit in reversed(range(n_bits)):
        if index >> bit & 1:
            derived[bit // 8] ^= 1 << (bit % 8)
            derived = bytearray(sha256(bytes(derived)))
    return bytes(derived)
