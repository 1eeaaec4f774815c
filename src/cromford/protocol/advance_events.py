"""What our signer answers in an advance: nonces, and halves of commitments on the next funding."""

from dataclasses import dataclass

from cromford.effects import FinishNext, PrepareAdvance, SignNext
from cromford.signing.nonces import PublicPool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvancePrepared:
    """Answers `PrepareAdvance`: the factory key's nonces, and each channel key's in their order."""

    asked: PrepareAdvance
    factory_pool: PublicPool
    channel_pools: tuple[PublicPool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceUnprepared:
    """Answers `PrepareAdvance`: too many nonces are held already."""

    asked: PrepareAdvance
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSigned:
    """Answers `SignNext`: our half of the peer's latest commitment on the next funding."""

    asked: SignNext
    pubnonce: bytes
    partial_sig: bytes
    htlc_signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHalfMade:
    """Answers `FinishNext`: our half of our own latest commitment on the next funding."""

    asked: FinishNext
    partial_sig: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSigningFailed:
    """The signer refused to sign for a next funding, or a nonce is gone."""

    asked: SignNext | FinishNext
    reason: str
