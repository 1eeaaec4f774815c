"""Events about keys that clients hand over: given, kept, asked for, used in their places."""

from dataclasses import dataclass

from cromford.effects import KeepKeys, LookUpKeys, PrepareSeats, SignForSeats
from cromford.signing.handed_over import OfferedKeys
from cromford.signing.nonces import PublicPool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysOffered:
    """A peer handed keys over. The signer holds them; here is which they are."""

    node_id: bytes
    attempt_id: bytes
    offered: OfferedKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysKept:
    """Answers `KeepKeys`: they are durable."""

    asked: KeepKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysNotKept:
    """Answers `KeepKeys`: the disk, or the signer, refused."""

    asked: KeepKeys
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysLookedUp:
    """Answers `LookUpKeys`; an empty `problem` if they are there, whole, and the client's."""

    asked: LookUpKeys
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatsPrepared:
    """Answers `PrepareSeats`: a pool for each, in its order."""

    asked: PrepareSeats
    pools: tuple[PublicPool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatsLacking:
    """Answers `PrepareSeats`: whose keys are not there, and why; no pool was made.

    Nobody's, if there was no room for that many nonces.
    """

    asked: PrepareSeats
    problems: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatsSigned:
    """Answers `SignForSeats`: for each pool, its partial signature of each transaction."""

    asked: SignForSeats
    partial_sigs: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatsFailed:
    """Answers `SignForSeats`: the signer refused, or a nonce is gone."""

    asked: SignForSeats
    reason: str
