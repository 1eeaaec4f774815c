"""Every message between an LSP and a client, and the one place that knows their bytes.

On the wire a message is its type (2 bytes, big-endian), the version of this protocol (1 byte)
and a TLV stream (BOLT 1). Types are in BOLT 1's custom range and even: a peer that does not know
one must not go on. What each means, and what follows when it does not come, is in docs/protocol;
the steps of signing are those of its page 8.
"""

from dataclasses import dataclass
from typing import Final

from cromford.channel.updates import FAILURE_SIZE_MAX
from cromford.codec.reader import MalformedBytes
from cromford.crypto.musig2 import PARTIAL_SIG_SIZE, PUBNONCE_SIZE
from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.terms import (
    HASH_SIZE,
    N_CANDIDATES_MAX,
    N_CLIENTS_MAX,
    N_INNER_LEVELS_MAX,
)
from cromford.wire.closing import (
    CLOSE_TX_SIZE_MAX,
    N_CLOSE_OPTIONS_MAX,
    NO_BALANCE,
    OUTPOINT_SIZE,
    CloseAgree,
    CloseBegin,
    Closed,
    ClosedTx,
    CloseEnd,
    CloseOption,
    CloseProposal,
    ClosePropose,
    CloseSign,
)
from cromford.wire.fields import (
    fixed,
    fixed_list,
    late_list,
    layout_of,
    struct,
    struct_list,
    text,
    u64,
    varbytes,
)
from cromford.wire.pool import Pool
from cromford.wire.seldom import KeyHandover, KeyTaken, LeafStates, MarkRevealed, StoreMarked
from cromford.wire.selling import (
    N_HTLC_SIGNATURES_MAX,
    AdvanceAbort,
    AdvanceAgree,
    AdvanceCommit,
    AdvanceDone,
    AdvanceHeld,
    AdvancePropose,
    AdvanceSign,
    AdvanceStage,
    Buy,
    FurtherNonce,
    FurtherPart,
    Quote,
    QuoteRefused,
    QuoteRequest,
    Skimmed,
    UpdateRebase,
)
from cromford.wire.sizes import PUBKEY_SIZE, REASON_SIZE_MAX, SCRIPT_SIZE_MAX, SECKEY_SIZE

# What is declared elsewhere, and known by this name.
__all__ = [
    "CLOSE_TX_SIZE_MAX",
    "NO_BALANCE",
    "N_CLOSE_OPTIONS_MAX",
    "N_HTLC_SIGNATURES_MAX",
    "OUTPOINT_SIZE",
    "PUBKEY_SIZE",
    "REASON_SIZE_MAX",
    "SCRIPT_SIZE_MAX",
    "SECKEY_SIZE",
    "AdvanceAbort",
    "AdvanceAgree",
    "AdvanceCommit",
    "AdvanceDone",
    "AdvanceHeld",
    "AdvancePropose",
    "AdvanceSign",
    "AdvanceStage",
    "Buy",
    "CloseAgree",
    "CloseBegin",
    "CloseEnd",
    "CloseOption",
    "CloseProposal",
    "ClosePropose",
    "CloseSign",
    "Closed",
    "ClosedTx",
    "FurtherNonce",
    "FurtherPart",
    "KeyHandover",
    "KeyTaken",
    "LeafStates",
    "MarkRevealed",
    "Pool",
    "Quote",
    "QuoteRefused",
    "QuoteRequest",
    "StoreMarked",
    "UpdateRebase",
]

WIRE_VERSION: Final = 1
MESSAGE_SIZE_MAX: Final = 65_535  # BOLT 8's limit of one message.
HEADER_SIZE: Final = 3
TX_SIZE_MAX: Final = 40_000
N_LAYERS_MAX: Final = N_INNER_LEVELS_MAX + 1
N_BRANCH_TXS_MAX: Final = 2 * N_LAYERS_MAX
N_FIRST_COMMITMENTS: Final = 2  # The LSP's, then the client's.


@dataclass(frozen=True, slots=True, kw_only=True)
class Lobby:
    """LSP to client, first: who may join, and within which limits."""

    network: bytes = fixed(HASH_SIZE)
    candidates: int = u64()
    capacity_min_sat: int = u64()
    capacity_max_sat: int = u64()
    min_clients: int = u64()
    max_clients: int = u64()
    pool_size: int = u64()
    deadline_seconds: int = u64()
    fee_base_msat: int = u64()
    fee_proportional_millionths: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOffer:
    """One side's keys of a channel (BOLT 2 `open_channel`'s)."""

    funding_pubkey: bytes = fixed(PUBKEY_SIZE)
    revocation_basepoint: bytes = fixed(PUBKEY_SIZE)
    payment_basepoint: bytes = fixed(PUBKEY_SIZE)
    delayed_payment_basepoint: bytes = fixed(PUBKEY_SIZE)
    htlc_basepoint: bytes = fixed(PUBKEY_SIZE)
    first_per_commitment_point: bytes = fixed(PUBKEY_SIZE)
    second_per_commitment_point: bytes = fixed(PUBKEY_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateOffer:
    """A client's channel keys and their nonce pool for one funding candidate."""

    channel: ChannelOffer = struct(ChannelOffer)
    pool: Pool = struct(Pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Proof that a client moves from a dying factory: a signature by its old factory key."""

    attempt_id: bytes = fixed(HASH_SIZE)
    signature: bytes = fixed(SIGNATURE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Client to LSP: I wish to be in the next factory. Keys and pools are fresh each time."""

    capacity_sat: int = u64()
    capacity_least_sat: int = u64()
    factory_pool: Pool = struct(Pool)
    payout_script: bytes = varbytes(SCRIPT_SIZE_MAX)
    candidates: tuple[CandidateOffer, ...] = struct_list(CandidateOffer, N_CANDIDATES_MAX)
    moves: tuple[Move, ...] = struct_list(Move, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """LSP to client: you wait in the lobby."""

    factory_pubkey: bytes = fixed(PUBKEY_SIZE)
    waiting: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """LSP to client: your wish cannot be met; stay connected and join with another if you like."""

    factory_pubkey: bytes = fixed(PUBKEY_SIZE)
    reason: str = text(REASON_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Client to LSP: I no longer wish to join."""

    factory_pubkey: bytes = fixed(PUBKEY_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceHash:
    """Client to LSP: I expect a payment with this hash; if I am away, hold it for `hold_seconds`.

    `expiry_seconds` is how long it can be paid.
    """

    payment_hash: bytes = fixed(HASH_SIZE)
    hold_seconds: int = u64()
    expiry_seconds: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class HashAnnounced:
    """LSP to client: how long a payment with this hash is held; 0 if no longer than any other."""

    payment_hash: bytes = fixed(HASH_SIZE)
    hold_seconds: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchVertex:
    """One vertex on the way to a client's channel, as the LSP computed it.

    Of a static vertex `state_tx` is its one transaction, and `kickoff_tx` is empty.
    """

    kickoff_tx: bytes = varbytes(TX_SIZE_MAX)
    state_tx: bytes = varbytes(TX_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceUse:
    """Which nonce of the client's pool a session takes, and the aggregate it goes with."""

    index: int = u64()
    aggnonce: bytes = fixed(PUBNONCE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateProposal:
    """A client's branch under one candidate of the funding transaction."""

    funding_tx: bytes = varbytes(TX_SIZE_MAX)
    vertices: tuple[BranchVertex, ...] = struct_list(BranchVertex, N_LAYERS_MAX)
    nonces: tuple[NonceUse, ...] = struct_list(NonceUse, N_BRANCH_TXS_MAX)
    channel: ChannelOffer = struct(ChannelOffer)
    # Of the LSP's first commitment, then of the client's: nonces of the channel's own pool.
    commitment_nonces: tuple[NonceUse, ...] = struct_list(NonceUse, N_FIRST_COMMITMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """LSP to client: the terms and your own branch, for the join that had this factory key.

    `factory_pubkeys` are one per participant, the LSP's first: who signs which vertex follows from
    the terms.
    """

    factory_pubkey: bytes = fixed(PUBKEY_SIZE)
    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    terms: bytes = varbytes(MESSAGE_SIZE_MAX)
    client: int = u64()
    factory_pubkeys: tuple[bytes, ...] = fixed_list(PUBKEY_SIZE, N_CLIENTS_MAX + 1)
    candidates: tuple[CandidateProposal, ...] = struct_list(CandidateProposal, N_CANDIDATES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSigs:
    """One candidate's partial signatures of everything below the root, depth first.

    With them goes the client's half of the LSP's first commitment.
    """

    partial_sigs: tuple[bytes, ...] = fixed_list(PARTIAL_SIG_SIZE, N_BRANCH_TXS_MAX)
    commitment_partial_sig: bytes = fixed(PARTIAL_SIG_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignBelow:
    """Client to LSP: partial signatures of all but the root (signing order, step 1)."""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    candidates: tuple[PartialSigs, ...] = struct_list(PartialSigs, N_CANDIDATES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchSignatures:
    """One candidate's finished signatures below the root, depth first.

    With them goes the LSP's half of the client's first commitment.
    """

    signatures: tuple[bytes, ...] = fixed_list(SIGNATURE_SIZE, N_BRANCH_TXS_MAX)
    commitment_partial_sig: bytes = fixed(PARTIAL_SIG_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBelow:
    """LSP to client: the finished signatures of your branch below the root (step 2)."""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    candidates: tuple[BranchSignatures, ...] = struct_list(BranchSignatures, N_CANDIDATES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRoot:
    """Client to LSP: the partial signature of the root, per candidate (step 3)."""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    partial_sigs: tuple[bytes, ...] = fixed_list(PARTIAL_SIG_SIZE, N_CANDIDATES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRoot:
    """LSP to client: the signature of the root, per candidate (step 4)."""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    signatures: tuple[bytes, ...] = fixed_list(SIGNATURE_SIZE, N_CANDIDATES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """Client to LSP: the whole branch is signed, verified and stored."""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Client to LSP after a reconnect: I signed the root of this attempt; what became of it?"""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelReady:
    """Either way: the agreed funding output is confirmed deep enough."""

    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    funding_txid: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Either way: this attempt is over."""

    attempt_id: bytes = fixed(HASH_SIZE)
    reason: str = text(REASON_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelReestablish:
    """Either way, once in a connection, after both sides' `ChannelReady` (BOLT 2).

    `next_pubnonce` is the sender's nonce for its own next commitment (bolts#1330), on its present
    funding; what is there of a next one is in `advance`.
    """

    channel_id: bytes = fixed(HASH_SIZE)
    next_commitment_number: int = u64()
    next_revocation_number: int = u64()
    your_last_per_commitment_secret: bytes = fixed(HASH_SIZE)
    next_pubnonce: bytes = fixed(PUBNONCE_SIZE)
    advance: tuple[AdvanceStage, ...] = late_list(AdvanceStage, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Whom an HTLC is for, in the clear: what an onion will hide one day.

    With a `skimmed` one the HTLC holds so much less: its payee bought liquidity out of it.
    """

    payee: bytes = fixed(PUBKEY_SIZE)
    payment_secret: bytes = fixed(HASH_SIZE)
    amount_msat: int = u64()
    skimmed: tuple[Skimmed, ...] = late_list(Skimmed, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAddHtlc:
    """Either way: offer an HTLC (BOLT 2). `delivery` stands where an onion will."""

    channel_id: bytes = fixed(HASH_SIZE)
    htlc_id: int = u64()
    amount_msat: int = u64()
    payment_hash: bytes = fixed(HASH_SIZE)
    cltv_expiry: int = u64()
    delivery: Delivery = struct(Delivery)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFulfillHtlc:
    """Either way: take an HTLC by its preimage (BOLT 2)."""

    channel_id: bytes = fixed(HASH_SIZE)
    htlc_id: int = u64()
    payment_preimage: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFailHtlc:
    """Either way: give an HTLC back; `reason` is a plain BOLT 4 failure message."""

    channel_id: bytes = fixed(HASH_SIZE)
    htlc_id: int = u64()
    reason: bytes = varbytes(FAILURE_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentSigned:
    """Either way: the sender's half of the receiver's next commitment (bolts#1330).

    Where that is for two fundings, this is for the present one, and `further` for the next.
    """

    channel_id: bytes = fixed(HASH_SIZE)
    pubnonce: bytes = fixed(PUBNONCE_SIZE)
    partial_sig: bytes = fixed(PARTIAL_SIG_SIZE)
    htlc_signatures: tuple[bytes, ...] = fixed_list(SIGNATURE_SIZE, N_HTLC_SIGNATURES_MAX)
    further: tuple[FurtherPart, ...] = late_list(FurtherPart, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeAndAck:
    """Either way: revoke the commitment before the latest (BOLT 2, bolts#1330).

    `next_pubnonce` is for the present funding, `further` for the next one, if there is one.
    """

    channel_id: bytes = fixed(HASH_SIZE)
    per_commitment_secret: bytes = fixed(HASH_SIZE)
    next_per_commitment_point: bytes = fixed(PUBKEY_SIZE)
    next_pubnonce: bytes = fixed(PUBNONCE_SIZE)
    further: tuple[FurtherNonce, ...] = late_list(FurtherNonce, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFailure:
    """Either way: the sender no longer takes part in updates of this channel (BOLT 1 `error`)."""

    channel_id: bytes = fixed(HASH_SIZE)
    reason: str = text(REASON_SIZE_MAX)


LobbyMessage = Lobby | Join | Joined | Refused | Leave
HoldMessage = AnnounceHash | HashAnnounced
OpeningMessage = (
    Propose
    | SignBelow
    | SignedBelow
    | SignRoot
    | SignedRoot
    | Acknowledge
    | Resume
    | ChannelReady
    | Abort
)
ChannelMessage = (
    ChannelReestablish
    | UpdateAddHtlc
    | UpdateFulfillHtlc
    | UpdateFailHtlc
    | UpdateRebase
    | CommitmentSigned
    | RevokeAndAck
    | ChannelFailure
)
CloseMessage = CloseBegin | CloseAgree | ClosePropose | CloseSign | Closed | CloseEnd
HandoverMessage = KeyHandover | KeyTaken
MarkMessage = StoreMarked | MarkRevealed
QuoteMessage = QuoteRequest | Quote | QuoteRefused | Buy
AdvanceMessage = (
    AdvancePropose
    | AdvanceAgree
    | AdvanceCommit
    | AdvanceSign
    | AdvanceDone
    | AdvanceHeld
    | AdvanceAbort
)
# One union for each room of the protocol that takes messages.
Message = (
    LobbyMessage
    | HoldMessage
    | OpeningMessage
    | ChannelMessage
    | CloseMessage
    | HandoverMessage
    | MarkMessage
    | QuoteMessage
    | AdvanceMessage
    | LeafStates
)

MESSAGE_TYPES: Final[dict[type[Message], int]] = {
    Lobby: 38400,
    Join: 38402,
    Joined: 38404,
    Refused: 38406,
    Leave: 38408,
    Propose: 38410,
    SignBelow: 38412,
    SignedBelow: 38414,
    SignRoot: 38416,
    SignedRoot: 38418,
    Acknowledge: 38420,
    Resume: 38422,
    ChannelReady: 38424,
    Abort: 38426,
    ChannelReestablish: 38428,
    UpdateAddHtlc: 38430,
    UpdateFulfillHtlc: 38432,
    UpdateFailHtlc: 38434,
    CommitmentSigned: 38436,
    RevokeAndAck: 38438,
    ChannelFailure: 38440,
    AnnounceHash: 38442,
    HashAnnounced: 38444,
    StoreMarked: 38446,
    MarkRevealed: 38448,
    LeafStates: 38450,
    CloseBegin: 38454,
    CloseAgree: 38456,
    ClosePropose: 38458,
    CloseSign: 38460,
    Closed: 38462,
    CloseEnd: 38464,
    KeyHandover: 38466,
    KeyTaken: 38468,
    QuoteRequest: 38470,
    Quote: 38472,
    QuoteRefused: 38474,
    Buy: 38476,
    AdvancePropose: 38478,
    AdvanceAgree: 38480,
    AdvanceCommit: 38482,
    AdvanceSign: 38484,
    AdvanceDone: 38486,
    AdvanceHeld: 38488,
    AdvanceAbort: 38490,
    UpdateRebase: 38492,
}
_LAYOUTS: Final = {message_type: layout_of(cls) for cls, message_type in MESSAGE_TYPES.items()}


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message.

    Raises:
        MalformedBytes: If it exceeds a limit; it names the field.
    """
    message_type = MESSAGE_TYPES[type(message)]
    encoded = (
        message_type.to_bytes(2, "big")
        + WIRE_VERSION.to_bytes(1, "big")
        + _LAYOUTS[message_type].encode(message)
    )
    if len(encoded) > MESSAGE_SIZE_MAX:
        raise MalformedBytes(
            f"{type(message).__name__}: at most {MESSAGE_SIZE_MAX} bytes, needs {len(encoded)}"
        )
    return encoded


def decode_message(data: bytes) -> Message | None:
    """Return the message of these bytes; None for an unknown odd type, which may be ignored.

    Raises:
        MalformedBytes: If they are no message of this version; it names the field.
    """
    if not HEADER_SIZE <= len(data) <= MESSAGE_SIZE_MAX:
        raise MalformedBytes(
            f"a message of {HEADER_SIZE}..{MESSAGE_SIZE_MAX} bytes, received {len(data)}"
        )
    message_type = int.from_bytes(data[:2], "big")
    layout = _LAYOUTS.get(message_type)
    if layout is None:
        if message_type % 2:
            return None
        raise MalformedBytes(f"unknown message type {message_type}")
    if data[2] != WIRE_VERSION:
        raise MalformedBytes(
            f"{layout.cls.__name__}: expected version {WIRE_VERSION}, got {data[2]}"
        )
    return layout.decode(data[HEADER_SIZE:])
