"""Nonce pools: secret nonces made ahead, each bound to one use for ever.

A pool belongs to one pubkey, and to one attempt or one commitment. It lives in the memory of one
process and is never written down: a pool that is lost is replaced by a fresh one.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from cromford.crypto.curve import Keypair
from cromford.crypto.keys import TaggedHash
from cromford.crypto.musig2 import SecNonce
from cromford.signing.task import SigningTask

POOL_SIZE_MIN: Final = 64
POOL_SIZE_MAX: Final = 4096

_hash_pool: Final = TaggedHash("cromford/pool")


class NonceFault(Exception):
    """An index was asked to sign something else than what it is bound to, or does not exist."""


class NoPoolFree(Exception):
    """As many pools are held as there may be. Once one is dropped, there is room again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPool:
    """The public half of a pool, as it travels."""

    pubkey: bytes
    pubnonces: tuple[bytes, ...]

    @property
    def pool_id(self) -> bytes:
        """The hash of the content, so that two sides cannot mean different pools by one id."""
        return _hash_pool(self.pubkey + b"".join(self.pubnonces))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """How many pools are held, and how many of their nonces have signed, and have not."""

    n_pools: int
    n_used: int
    n_left: int


class _Bound(NamedTuple):
    """What a nonce signs; `task` says who else does."""

    session_name: str
    sighash: bytes
    output_key: bytes
    aggnonce: bytes
    task: SigningTask


class NoncePool:
    """Secret nonces of one seckey. Each signs one thing; asked again, the same bytes come back.

    Args:
        keypair: What they sign with.
        size: How many to make.
    """

    def __init__(self, keypair: Keypair, *, size: int) -> None:
        if not 1 <= size <= POOL_SIZE_MAX:
            raise ValueError(f"a pool of 1..{POOL_SIZE_MAX} nonces, received {size}")
        self._secnonces = SecNonce.several(keypair, size)
        self._bound: dict[int, _Bound] = {}
        self._partial_sigs: dict[int, bytes] = {}
        self.public = PublicPool(
            pubkey=keypair.pubkey,
            pubnonces=tuple(secnonce.pubnonce for secnonce in self._secnonces),
        )

    def bind(self, index: int, task: SigningTask, aggnonce: bytes) -> None:
        """Bind the nonce at `index` to `task`, which it signs when it is asked to.

        From then on whoever asks need not know the other signers. The same call again does nothing.

        Raises:
            NonceFault: If the index is bound to anything else, or there is no such index.
            ValueError: If it is not known who signs.
        """
        self._bound_to(index, task, aggnonce)

    def partial_sign(self, index: int, task: SigningTask, aggnonce: bytes) -> bytes:
        """Return the 32-byte partial signature of `task` with the nonce at `index`.

        The first call binds the index to the session, the sighash, the key aggregation and the
        aggregate nonce. The same call again returns the stored bytes and signs nothing.

        Raises:
            NonceFault: If the index is bound to anything else, or there is no such index.
            ValueError: If the aggregate nonce is malformed, or it is not known who signs. The nonce
                is then still unspent.
        """
        bound = self._bound_to(index, task, aggnonce)
        signed = self._partial_sigs.get(index)
        if signed is not None:
            return signed
        secnonce = self._secnonces[index]
        try:
            signed = secnonce.sign(bound.task.session(aggnonce))
        except ValueError:
            if not secnonce.is_spent:
                del self._bound[index]
            raise
        self._partial_sigs[index] = signed
        return signed

    def _bound_to(self, index: int, task: SigningTask, aggnonce: bytes) -> _Bound:
        """Return what an index is bound to: this, now, unless it was bound to the same before."""
        if not 0 <= index < len(self._secnonces):
            raise NonceFault(f"nonce {index} of a pool of {len(self._secnonces)}")
        asked = _Bound(task.name, task.sighash, task.key_agg.output_key, aggnonce, task)
        bound = self._bound.get(index)
        if bound is None:
            if self.public.pubkey not in task.signers:
                raise NonceFault(f"session {task.name} is not for this pool's key")
            bound = self._bound[index] = asked
        elif bound[:-1] != asked[:-1]:
            raise NonceFault(f"nonce {index} is bound to session {bound.session_name}")
        return bound

    @property
    def n_used(self) -> int:
        """How many nonces have signed."""
        return len(self._partial_sigs)

    @property
    def n_left(self) -> int:
        """How many have not."""
        return len(self._secnonces) - self.n_used

    def drop(self) -> None:
        """Forget every secret. What was signed before is no longer returned either."""
        for secnonce in self._secnonces:
            secnonce.drop()
        self._secnonces = []
        self._bound = {}
        self._partial_sigs = {}

    def __repr__(self) -> str:
        return f"NoncePool({len(self._secnonces)} nonces, secret)"

    def __reduce__(self) -> str:
        raise TypeError("a nonce pool must not be copied or stored")
