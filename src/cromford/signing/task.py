"""One input to be signed by several: the digest, and the tweaked aggregate of the signers."""

from dataclasses import dataclass
from typing import Final

from cromford.crypto import schnorr
from cromford.crypto.musig2 import AggregateKey, KeyAgg, Session

_OPENED: Final = "_opened"  # Where a task keeps its last session, beside its fields.


@dataclass(frozen=True, kw_only=True)
class SigningTask:
    """A MuSig2 key-path signature that a transaction needs.

    `name` is the transaction's name; within one ceremony it names the session too. Of an aggregate
    whose signers are not known it can be told whether it is signed, and no session is opened.
    """

    name: str
    sighash: bytes
    key_agg: AggregateKey  # tweaked for the output that is spent

    @property
    def signers(self) -> tuple[bytes, ...]:
        """The pubkeys of all who sign, in `KeySort` order.

        Raises:
            ValueError: If they are not known.
        """
        return self._known.pubkeys

    @property
    def has_signers(self) -> bool:
        """Whether it is known who signs."""
        return isinstance(self.key_agg, KeyAgg)

    @property
    def _known(self) -> KeyAgg:
        if not isinstance(self.key_agg, KeyAgg):
            raise ValueError(f"{self.name}: it is not known who signs")
        return self.key_agg

    def session(self, aggnonce: bytes) -> Session:
        """Return the signing session of this task.

        The last one is kept: whoever signs last also aggregates, and the session of both is the
        same public value.

        Raises:
            ValueError: If the aggregate nonce is malformed, or it is not known who signs.
        """
        opened: tuple[bytes, Session] | None = self.__dict__.get(_OPENED)
        if opened is not None and opened[0] == aggnonce:
            return opened[1]
        session = Session(key_agg=self._known, aggnonce=aggnonce, message=self.sighash)
        self.__dict__[_OPENED] = (aggnonce, session)
        return session

    def is_signed_by(self, signature: bytes, output_key: bytes) -> bool:
        """Say whether this is a valid signature for the spent output's key."""
        return schnorr.verify(signature, self.sighash, output_key)
