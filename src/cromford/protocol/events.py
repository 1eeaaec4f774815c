"""Everything that can happen to a role: messages, blocks, deadlines, answers and requests."""

from dataclasses import dataclass

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.signing.keychain import ChannelPubkeys
from cromford.signing.nonces import PublicPool
from cromford.wire.messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted:
    """The journal was replayed; nothing else has happened yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened:
    """A peer proved its node key."""

    node_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed:
    """A peer's connection ended."""

    node_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    """A peer sent a well-formed message."""

    node_id: bytes
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageMalformed:
    """A peer sent bytes that are no message."""

    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAdded:
    """A block joined the active chain; `txs` are those that concern the role."""

    height: int
    block_hash: Txid
    txs: tuple[Tx, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRemoved:
    """The tip left the active chain."""

    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineReached:
    """A deadline of this name passed."""

    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPrepared:
    """Answers `PrepareJoin`."""

    attempt: int
    factory_pool: PublicPool
    channels: tuple[tuple[ChannelPubkeys, PublicPool], ...]  # one per candidate
    move_signature: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptPrepared:
    """Answers `PrepareAttempt`."""

    attempt: int
    attempt_id: bytes
    factory_pool: PublicPool
    channels: tuple[ChannelPubkeys, ...]  # one per client


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSigned:
    """Answers `PartialSign`: by session name."""

    attempt_id: bytes
    partial_sigs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningFailed:
    """Answers `PartialSign`: the signer refused, or a nonce is gone."""

    attempt_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinsLookedUp:
    """Answers `LookUpCoins`; a spent or unknown outpoint is None."""

    attempt_id: bytes
    coins: tuple[tuple[OutPoint, Coin | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingSigned:
    """Answers `SignFunding`."""

    attempt_id: bytes
    tx: Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastRefused:
    """The node refused a transaction, with its reason."""

    name: str
    txid: Txid
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequested:
    """The client's operator wishes to be in the next factory."""

    capacity_sat: int
    capacity_least_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveRequested:
    """The client's operator no longer wishes to join."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRequested:
    """The client's operator leaves a factory by publishing its branch."""

    attempt_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRequested:
    """The operator wants a fresh wallet address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequested:
    """The operator pays out of the wallet; without an amount, all that is free."""

    script_pubkey: bytes
    amount_sat: int | None
    feerate_sat_per_kw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSigned:
    """Answers `SignPayment`."""

    tx: Tx
    has_change: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequested:
    """The LSP's operator builds a factory with who waits in the lobby."""

    min_clients: int
    max_clients: int


Event = (
    DaemonStarted
    | ConnectionOpened
    | ConnectionClosed
    | MessageReceived
    | MessageMalformed
    | BlockAdded
    | BlockRemoved
    | DeadlineReached
    | JoinPrepared
    | AttemptPrepared
    | PartialSigned
    | SigningFailed
    | CoinsLookedUp
    | FundingSigned
    | BroadcastRefused
    | JoinRequested
    | LeaveRequested
    | ExitRequested
    | AddressRequested
    | PaymentRequested
    | PaymentSigned
    | BuildRequested
)
