"""A cooperative close while it is agreed on and signed, as each role remembers it.

Pools are those of one run: where a restart or a connection ends them, it ends the close, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.signing.nonces import PublicPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A client's word: what it is owed, in msat, and the nonces that it signs with.

    `is_ours` where the client moved out, and we sign for it.
    """

    balance_msat: int
    pool: PublicPool
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreeing:
    """Clients say what they are owed. `pool` is ours, once it is made."""

    pool: PublicPool | None = None
    agreed: Mapping[int, Agreed] = field(default_factory=dict)
    label = "agreeing"

    @property
    def done(self) -> frozenset[int]:
        """The clients who agreed."""
        return frozenset(self.agreed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Everybody agreed. Clients sign: whose signature is here is bound by it, and nobody else."""

    pool: PublicPool
    agreed: Mapping[int, Agreed]
    txs: tuple[Tx, ...]
    partial_sigs: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)
    label = "signing"

    @property
    def done(self) -> frozenset[int]:
        """The clients who signed."""
        return frozenset(self.partial_sigs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A close that an LSP leads.

    Attributes:
        close_id: Its name.
        outpoint: What it spends.
        clients: The participant indices of the clients in its scope, in placement order.
        feerates_sat_per_kw: Its options, the lowest first.
        stage: How far it came.
    """

    close_id: bytes
    outpoint: OutPoint
    clients: tuple[int, ...]
    feerates_sat_per_kw: tuple[int, ...]
    stage: Agreeing | Signing = field(default_factory=Agreeing)

    @property
    def holdouts(self) -> tuple[int, ...]:
        """The clients whose word the present stage waits for; those we sign for are none."""
        return tuple(client for client in self.others if client not in self.stage.done)

    @property
    def own(self) -> tuple[int, ...]:
        """The clients that moved out, and for whom we sign."""
        words = self.stage.agreed
        agreed = (client for client in self.clients if client in words)
        return tuple(client for client in agreed if words[client].is_ours)

    @property
    def others(self) -> tuple[int, ...]:
        """The clients who sign for themselves."""
        own = self.own
        return tuple(client for client in self.clients if client not in own)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedClose:
    """A close that came to nothing, what it would have spent, and why."""

    close_id: bytes
    reason: str
    outpoint: OutPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientClosing:
    """A close that a client agreed to, until it hears that it is over.

    Attributes:
        close_id: Its name.
        attempt_id: The factory.
        channel_id: The channel.
        outpoint: What it spends.
        feerates_sat_per_kw: Its options, the lowest first.
        balance_msat: What we are owed by it; None where our store was restored: what it pays.
        pool: Our nonces, once they are made.
        is_signed: Whether we signed it: then only the LSP can still end it.
    """

    close_id: bytes
    attempt_id: bytes
    channel_id: bytes
    outpoint: OutPoint
    feerates_sat_per_kw: tuple[int, ...]
    balance_msat: int | None
    pool: PublicPool | None = None
    is_signed: bool = False
