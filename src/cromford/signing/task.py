"""One input to be signed by several: the digest, and the tweaked aggregate of the signers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cromford.crypto import schnorr
from cromford.crypto.musig2 import KeyAgg, Session

# Whoever signs last also aggregates, soon after, and the session of both is the same public value.
SESSIONS_CACHED: Final = 64


@dataclass(frozen=True, kw_only=True)
class SigningTask:
    """A MuSig2 key-path signature that a transaction needs.

    `name` is the transaction's name; within one ceremony it names the session too.
    """

    name: str
    sighash: bytes
    key_agg: KeyAgg  # tweaked for the output that is spent

    @property
    def signers(self) -> tuple[bytes, ...]:
        """The pubkeys of all who sign, in `KeySort` order."""
        return self.key_agg.pubkeys

    def session(self, aggnonce: bytes) -> Session:
        """Return the signing session of this task.

        Raises:
            ValueError: If the aggregate nonce is malformed.
        """
        return _session(self.key_agg, aggnonce, self.sighash)

    def is_signed_by(self, signature: bytes, output_key: bytes) -> bool:
        """Say whether this is a valid signature for the spent output's key."""
        return schnorr.verify(signature, self.sighash, output_key)


@lru_cache(maxsize=SESSIONS_CACHED)
def _session(key_agg: KeyAgg, aggnonce: bytes, sighash: bytes) -> Session:
    return Session(key_agg=key_agg, aggnonce=aggnonce, message=sighash)
