"""Everything that can happen to a role: messages, blocks, deadlines, answers and requests."""

from dataclasses import dataclass

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.effects import (
    Broadcast,
    Deadline,
    FinishCommitment,
    LookUpCoins,
    PartialSign,
    PrepareAttempt,
    PrepareClose,
    PrepareJoin,
    PrepareMove,
    PrepareNonce,
    RecallPoint,
    SignCommitment,
    SignFunding,
)
from cromford.protocol.advance_events import (
    AdvancePrepared,
    AdvanceUnprepared,
    NextHalfMade,
    NextSigned,
    NextSigningFailed,
)
from cromford.protocol.exit_events import (
    CommitmentRecalled,
    JointSweepSigned,
    PayoutsSigned,
    SpendersLookedUp,
    SweepSigned,
    TakingTxSigned,
)
from cromford.protocol.journal.mail import Posted
from cromford.protocol.key_events import (
    KeysKept,
    KeysLookedUp,
    KeysNotKept,
    KeysOffered,
    SeatsFailed,
    SeatsLacking,
    SeatsPrepared,
    SeatsSigned,
)
from cromford.protocol.market_events import (
    PriceRequested,
    PurchaseRequested,
    QuoteRequested,
)
from cromford.protocol.spending_events import (
    AbandonRequested,
    AddressRequested,
    SpendingBumpRequested,
    SpendingRequested,
    SpendingSigned,
    SplitRequested,
)
from cromford.signing.keychain import ChannelPubkeys
from cromford.signing.nonces import PublicPool
from cromford.wire.messages import Message

# What is declared elsewhere, and known by this name.
__all__ = [
    "AbandonRequested",
    "AddressRequested",
    "AdvancePrepared",
    "AdvanceUnprepared",
    "CommitmentRecalled",
    "JointSweepSigned",
    "KeysKept",
    "KeysLookedUp",
    "KeysNotKept",
    "KeysOffered",
    "NextHalfMade",
    "NextSigned",
    "NextSigningFailed",
    "PayoutsSigned",
    "PriceRequested",
    "PurchaseRequested",
    "QuoteRequested",
    "SeatsFailed",
    "SeatsLacking",
    "SeatsPrepared",
    "SeatsSigned",
    "SpendersLookedUp",
    "SpendingBumpRequested",
    "SpendingRequested",
    "SpendingSigned",
    "SplitRequested",
    "SweepSigned",
    "TakingTxSigned",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted:
    """The journal was replayed; nothing else has happened yet. `unix_time` is in seconds.

    `drawn` is a random number of this start, below 2^26.
    """

    unix_time: int = 0
    drawn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreProven:
    """A high-water mark from a third place proves that a restored store lost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened:
    """A peer proved its node key."""

    node_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed:
    """A peer's connection ended; `is_ours` where we hung up for a reason that is not its doing."""

    node_id: bytes
    is_ours: bool = False


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
class RescanRequested:
    """The operator wants blocks read again, for what was missed: they are about to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsChanged:
    """What the facts say changed without a block.

    The chain is fresh again: what waited for that is decided. Or it stays stale while the node
    learns of more blocks that it does not show: deadlines are told by their headers.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class MailArrived:
    """A letter of one stream reached another, perhaps late, and perhaps not for the first time."""

    delivery: Posted


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineReached:
    """A deadline passed, and of which stream it was."""

    stream: str
    deadline: Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPrepared:
    """Answers `PrepareJoin`."""

    asked: PrepareJoin
    factory_pool: PublicPool
    channels: tuple[tuple[ChannelPubkeys, PublicPool], ...]  # one per candidate
    move_signature: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BanRequested:
    """The LSP's operator closes the lobby to a node for a number of blocks, and says why."""

    node_id: bytes
    n_blocks: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BanEndRequested:
    """The LSP's operator opens the lobby to a node again."""

    node_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePrepared:
    """Answers `PrepareMove` with random values."""

    asked: PrepareMove
    preimage: bytes
    payment_secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptPrepared:
    """Answers `PrepareAttempt`."""

    asked: PrepareAttempt
    attempt_id: bytes
    factory_pool: PublicPool
    channels: tuple[tuple[ChannelPubkeys, PublicPool], ...]  # one per client
    higher: tuple[tuple[tuple[ChannelPubkeys, PublicPool], ...], ...] = ()  # of a ladder's others


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSigned:
    """Answers `PartialSign`: by session name."""

    asked: PartialSign
    partial_sigs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningFailed:
    """Answers `PartialSign`: the signer refused, or a nonce is gone."""

    asked: PartialSign
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinsLookedUp:
    """Answers `LookUpCoins`; a spent or unknown outpoint is None."""

    asked: LookUpCoins
    coins: tuple[tuple[OutPoint, Coin | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingSigned:
    """Answers `SignFunding`."""

    asked: SignFunding
    tx: Tx
    higher: tuple[Tx, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastRefused:
    """The node refused a transaction, with its reason."""

    asked: Broadcast
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
class MoveRequested:
    """The client's operator wants to move out of a factory that dies, whatever the policy says."""

    attempt_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitPauseRequested:
    """A client's operator wants an exit to rest."""

    attempt_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRequested:
    """The operator leaves a channel by publishing its branch; the LSP's says whose.

    `publishes_stale` says that our commitment is published though the store was restored: if the
    peer can prove that we revoked it, all of the channel is the peer's.
    """

    attempt_id: bytes
    client: int | None = None
    publishes_stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryAbandonRequested:
    """The LSP's operator gives up a funding that our node has just refused, with this reason."""

    attempt_id: bytes
    reason: str
    feerate_sat_per_kw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingBumpRequested:
    """The LSP's operator wants a funding to pay more, by a child of its change."""

    attempt_id: bytes
    feerate_sat_per_kw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRequested:
    """The LSP's operator closes a factory, or a part of it, together with its clients.

    Attributes:
        attempt_id: The factory.
        vertex: A vertex's name, or a transaction's of it; None for the whole factory.
        client: Whose channel that is on chain; None for a vertex.
        feerates_sat_per_kw: At which it is signed, the lowest first; none for what our node says.
    """

    attempt_id: bytes
    vertex: str | None = None
    client: int | None = None
    feerates_sat_per_kw: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePrepared:
    """Answers `PrepareClose`."""

    asked: PrepareClose
    pool: PublicPool


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseUnprepared:
    """Answers `PrepareClose`: too many nonces are held already."""

    asked: PrepareClose
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequested:
    """The LSP's operator builds a factory with those who wait in the lobby.

    `feerates_sat_per_kw` are those of a fee ladder, lowest first; empty: the policy's one. By one
    `external_id` one factory is built.
    """

    min_clients: int
    max_clients: int
    feerates_sat_per_kw: tuple[int, ...] = ()
    external_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderRequested:
    """The LSP's operator wants clients to join with keys for this many funding candidates."""

    n_candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingReplaceRequested:
    """The LSP's operator publishes a higher candidate of a funding's fee ladder.

    `rung` is its place, the first being 0; None: the lowest that takes the other's place.
    """

    attempt_id: bytes
    rung: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoncePrepared:
    """Answers `PrepareNonce`."""

    asked: PrepareNonce
    pool: PublicPool


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceLacking:
    """Answers `PrepareNonce`: too many nonces are held already."""

    asked: PrepareNonce


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePart:
    """Our half of the peer's commitment on one funding."""

    pubnonce: bytes
    partial_sig: bytes
    htlc_signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentMade:
    """Answers `SignCommitment`: a half for each part that was asked for."""

    asked: SignCommitment
    parts: tuple[MadePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfMade:
    """Answers `FinishCommitment`.

    Attributes:
        asked: For which commitment.
        partial_sigs: Our half for each part that was asked for.
        secret: What revokes the commitment before.
        next_point: Our per-commitment point of the commitment after.
        pool: Our nonces for the commitment after: for the present funding, and for the next.
    """

    asked: FinishCommitment
    partial_sigs: tuple[bytes, ...]
    secret: bytes
    next_point: bytes
    pool: PublicPool


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRecalled:
    """Answers `RecallPoint`."""

    asked: RecallPoint
    point: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSigningFailed:
    """The signer refused to sign for a channel, or a nonce is gone."""

    asked: SignCommitment | FinishCommitment | RecallPoint
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRequested:
    """The client's operator wants to be paid. Random values are drawn by the daemon."""

    preimage: bytes
    payment_secret: bytes
    amount_msat: int
    description: str
    expires_at: int  # unix time
    expiry_seconds: int
    text: str  # BOLT 11
    hold_seconds: int = 0  # how long the LSP is asked to hold it while we are away
    label: str = ""  # the operator's, as is the id; neither leaves the machine
    external_id: str = ""  # of no other invoice; empty for none


@dataclass(frozen=True, slots=True, kw_only=True)
class PayRequested:
    """The operator pays an invoice that the daemon has read and that is not expired."""

    text: str  # BOLT 11
    payment_hash: bytes
    payment_secret: bytes
    payee: bytes
    amount_msat: int
    description: str
    min_final_cltv_expiry_delta: int
    fee_max_msat: int | None = None  # None: what the policy allows
    attempt_id: bytes | None = None  # the factory to pay from; None: any
    label: str = ""  # the operator's; it does not leave the machine
    created_at: int | None = None  # when the payee made it, in unix seconds; None: only just


WorldEvent = (
    DaemonStarted
    | StoreProven
    | ConnectionOpened
    | ConnectionClosed
    | MessageReceived
    | MessageMalformed
    | BlockAdded
    | BlockRemoved
    | RescanRequested
    | FactsChanged
    | MailArrived
    | DeadlineReached
    | BroadcastRefused
)
LobbyEvent = (
    JoinRequested
    | LeaveRequested
    | JoinPrepared
    | BuildRequested
    | LadderRequested
    | BanRequested
    | BanEndRequested
)
MoveEvent = MoveRequested | MovePrepared
OpeningEvent = (
    AttemptPrepared
    | CoinsLookedUp
    | PartialSigned
    | SigningFailed
    | FundingSigned
    | FactoryAbandonRequested
    | FundingBumpRequested
    | FundingReplaceRequested
)
# What a live channel asked the signer for.
ChannelAnswer = (
    NoncePrepared | NonceLacking | CommitmentMade | HalfMade | PointRecalled | ChannelSigningFailed
)
ChannelEvent = ChannelAnswer | InvoiceRequested | PayRequested
ExitEvent = (
    ExitRequested
    | ExitPauseRequested
    | TakingTxSigned
    | SweepSigned
    | PayoutsSigned
    | CommitmentRecalled
)
SeatsEvent = SeatsPrepared | SeatsLacking | SeatsSigned | SeatsFailed
CloseEvent = CloseRequested | ClosePrepared | CloseUnprepared | SeatsEvent
MarketEvent = PriceRequested | QuoteRequested | PurchaseRequested
AdvanceEvent = AdvancePrepared | AdvanceUnprepared | NextSigned | NextHalfMade | NextSigningFailed
JointSweepEvent = SpendersLookedUp | JointSweepSigned
SpendingEvent = (
    AddressRequested
    | SpendingRequested
    | SplitRequested
    | SpendingBumpRequested
    | SpendingSigned
    | AbandonRequested
)

HandoverEvent = KeysOffered | KeysKept | KeysNotKept | KeysLookedUp

# What a peer does while it is connected. That it is gone is no word of its own any more.
PeerEvent = ConnectionOpened | MessageReceived | MessageMalformed | KeysOffered

# One union for each room that takes events, and one for what concerns several.
Event = (
    WorldEvent
    | LobbyEvent
    | MoveEvent
    | OpeningEvent
    | ChannelEvent
    | ExitEvent
    | CloseEvent
    | AdvanceEvent
    | MarketEvent
    | JointSweepEvent
    | SpendingEvent
    | HandoverEvent
)
