"""Everything the pure core can ask for, on one screen.

The driver performs an effect after the records it came with are durable, and tells an outcome as an
event. Losing one to a crash is harmless: what is still owed is asked for again on the next start.
"""

from dataclasses import dataclass, field

from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.channel.commitment import Commitment
from cromford.factory.close import CloseScope
from cromford.signing.handed_over import OfferedKeys
from cromford.signing.keychain import ChannelKey, FactoryKey, HandedOverKey
from cromford.signing.task import SigningTask
from cromford.wallet.account import WalletPath
from cromford.wallet.spending import Booking
from cromford.watch.bumping import Bumping
from cromford.watch.joint_sweep import JointSweep
from cromford.watch.lsp_sweep import SweepTx
from cromford.watch.poisons import PayoutTx
from cromford.watch.sweep import TakingTx
from cromford.wire.messages import (
    AdvanceCommit,
    AdvanceSign,
    ChannelReestablish,
    CommitmentSigned,
    Message,
    Propose,
)
from cromford.wire.selling import AdvancePartials, NextHalf


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a message to a peer. If it is not connected, nothing happens."""

    node_id: bytes
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """Close the connection to a peer; `is_ours` where the reason is our own, and not its doing."""

    node_id: bytes
    reason: str
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareJoin:
    """Derive a client's fresh keys and make its pools. Answered by `JoinPrepared`."""

    attempt: int
    pool_size: int
    n_candidates: int
    move: tuple[int, bytes] | None  # the old attempt's key index, and what it says


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareMove:
    """Draw what a client pays itself with, out of this factory. Answered by `MovePrepared`."""

    attempt_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareAttempt:
    """Derive the LSP's fresh keys, make its pools, draw the attempt id.

    `pool_size` is of the factory key's pool; a channel's holds a nonce for each first commitment.
    Each funding candidate has channels of its own. Answered by `AttemptPrepared`.
    """

    attempt: int
    n_clients: int
    pool_size: int
    n_candidates: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """One partial signature: with which key, which nonce, of what."""

    pool_id: bytes
    nonce_index: int
    task: SigningTask
    aggnonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSign:
    """Make partial signatures. Answered by `PartialSigned` or `SigningFailed`.

    `close_id` is the cooperative close they are for, `advance_id` the advance; both are empty where
    they are for the opening of the factory. `bound` is signed later: its nonces are bound to it.
    """

    attempt_id: bytes
    requests: tuple[SignRequest, ...]
    close_id: bytes = b""
    advance_id: bytes = b""
    bound: tuple[SignRequest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareClose:
    """Make a close's nonces, one an option. Answered by `ClosePrepared` or `CloseUnprepared`."""

    attempt_id: bytes
    close_id: bytes
    key: FactoryKey | ChannelKey
    n_options: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareAdvance:
    """Make the nonces of an advance: `factory_size` of the factory key, and of each channel's key.

    Answered by `AdvancePrepared` or `AdvanceUnprepared`. `session` is the LSP's, at a client.
    """

    attempt_id: bytes
    advance_id: bytes
    factory_key: FactoryKey
    factory_size: int
    channel_keys: tuple[ChannelKey, ...]
    channel_size: int
    session: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignNext:
    """Sign the peer's latest commitment for the next funding, with its HTLC transactions.

    Answered by `NextSigned` or `NextSigningFailed`. `partials` are what goes with it, made before.
    """

    channel_id: bytes
    attempt_id: bytes
    advance_id: bytes
    key: ChannelKey
    task: SigningTask
    number: int
    pubnonce: bytes
    per_commitment_point: bytes
    htlc_sighashes: tuple[bytes, ...]
    partials: tuple[AdvancePartials, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishNext:
    """Make our half of our own latest commitment on the next funding. Nothing is revoked.

    Answered by `NextHalfMade` or `NextSigningFailed`. `message` is what brought the peer's half.
    """

    channel_id: bytes
    attempt_id: bytes
    advance_id: bytes
    key: ChannelKey
    pool_id: bytes
    nonce_index: int
    aggnonce: bytes
    commitment: Commitment
    half: NextHalf
    message: AdvanceCommit | AdvanceSign


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPools:
    """Forget secret nonces."""

    pool_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpCoins:
    """Ask the chain for the unspent outputs that `propose` takes. Answered by `CoinsLookedUp`."""

    attempt_id: bytes
    outpoints: tuple[OutPoint, ...]
    propose: Propose | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFunding:
    """Sign a funding and its `higher` candidates, with our coins. Answered by `FundingSigned`."""

    attempt_id: bytes
    tx: Tx
    prevouts: tuple[TxOut, ...]
    paths: tuple[WalletPath, ...]
    higher: tuple[Tx, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignSpending:
    """Sign a payment with the wallet's keys. Answered by `SpendingSigned`."""

    tx: Tx
    prevouts: tuple[TxOut, ...]
    paths: tuple[WalletPath, ...]
    booking: Booking = field(default_factory=Booking)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """Publish a transaction. Answered by `BroadcastRefused` if the node refuses it.

    `stream` is whose transaction it is; the turn that asks writes it in. One that `replaces` was
    signed anew for the fees of this block: that another of ours waits that pays more is no news.
    `bumping` says what may be done so that it confirms in time: it is asked for at every block.
    """

    name: str
    tx: Tx
    replaces: bool = False
    bumping: Bumping | None = None
    stream: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishBumped:
    """Publish a funding with the child that pays for it; `BroadcastRefused` is of the child.

    `stream` is whose it is; the turn that asks writes it in.
    """

    name: str
    funding: Tx
    child: Tx
    stream: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDeadline:
    """Until when the present step of an attempt has to be finished."""

    attempt_id: bytes


@dataclass(frozen=True, slots=True)
class RejoinDeadline:
    """Until when those who stay of an aborted attempt may join again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDeadline:
    """Until when an HTLC waits for its payee; a channel and an HTLC's id name the HTLC."""

    channel_id: bytes
    htlc_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceDeadline:
    """When an invoice of ours expires."""

    payment_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceDeadline:
    """When a channel is tried again that there was no nonce for."""

    channel_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationDeadline:
    """Until when a peer has to answer our `commitment_signed` of a channel."""

    channel_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseDeadline:
    """Until when the present step of a cooperative close has to be finished."""

    close_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceDeadline:
    """Until when the present step of an advance has to be finished."""

    advance_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafDeadline:
    """Until when a restored store waits for what its LSP knows of a leaf."""

    attempt_id: bytes


# A type for each origin: an id that a peer chose can then never be taken for another's.
Deadline = (
    AttemptDeadline
    | RejoinDeadline
    | HoldDeadline
    | InvoiceDeadline
    | NonceDeadline
    | RevocationDeadline
    | CloseDeadline
    | AdvanceDeadline
    | LeafDeadline
)


@dataclass(frozen=True, kw_only=True)  # without slots: each is addressed
class SetDeadline:
    """Ask for `DeadlineReached` after `seconds`; a stream's same deadline set again is moved.

    `stream` is whose deadline it is; the turn that asks writes it in.
    """

    deadline: Deadline
    seconds: int
    stream: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)  # without slots: each is addressed
class ClearDeadline:
    """Forget a deadline. Harmless if there is none.

    `stream` is whose deadline it is; the turn that asks writes it in.
    """

    deadline: Deadline
    stream: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareNonce:
    """Make the nonces of our next commitments. Answered by `NoncePrepared` or `NonceLacking`.

    One, and `n_next` more for those on the next funding.
    """

    channel_id: bytes
    key: ChannelKey
    n_next: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentPart:
    """The peer's commitment on one funding, with what it takes to sign it: the peer's nonce."""

    commitment: Commitment
    pubnonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignCommitment:
    """Sign the peer's commitment and its HTLC transactions. Answered by `CommitmentMade`.

    One part for each funding that it is for, the present one first. `before` and `after` are what
    is sent around the `commitment_signed`, in this order.
    """

    channel_id: bytes
    key: ChannelKey
    per_commitment_point: bytes
    parts: tuple[CommitmentPart, ...]
    before: tuple[Message, ...] = ()
    after: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPart:
    """Our own commitment on one funding, with the nonce of ours that signs it."""

    pool_id: bytes
    nonce_index: int
    aggnonce: bytes
    commitment: Commitment


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCommitment:
    """Make our halves of our own commitment, and what revokes the one before.

    Answered by `HalfMade`, with the secret of the commitment before. The secret is journalled in
    one record with the new commitment, and sent to the peer only when that record is durable.
    `n_nonces` are made for the commitment after, in the place of the pool `after`.
    """

    channel_id: bytes
    key: ChannelKey
    parts: tuple[OwnPart, ...]
    message: CommitmentSigned
    after: bytes
    n_nonces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallPoint:
    """Derive the point whose secret a peer claims to know. Answered by `PointRecalled`."""

    channel_id: bytes
    key: ChannelKey
    number: int
    message: ChannelReestablish


@dataclass(frozen=True, slots=True, kw_only=True)
class SignTakingTx:
    """Sign what takes outputs of a channel that is on chain. Answered by `TakingTxSigned`.

    `bumping` is of what is then published, where its fee was agreed long ago.
    """

    key: ChannelKey
    spend: TakingTx
    bumping: Bumping | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignSweep:
    """Sign what takes an output of a tree by the LSP's own script. Answered by `SweepSigned`."""

    key: FactoryKey
    spend: SweepTx


@dataclass(frozen=True, slots=True, kw_only=True)
class SignPayouts:
    """Sign what takes outputs that pay our factory key alone. Answered by `PayoutsSigned`."""

    attempt_id: bytes
    key: FactoryKey
    spend: PayoutTx


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpSpenders:
    """Ask what spends outputs in the mempool that can be swept. Answered by `SpendersLookedUp`.

    `factories` are the numbers of those whose outputs they are. Of one decision all are asked for
    at once: that lets the house take them together.
    """

    factories: tuple[int, ...]
    outpoints: tuple[OutPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignJointSweep:
    """Sign what takes outputs of several trees, each input by its own factory's key.

    Answered by `JointSweepSigned`. The keys are in the order of the inputs.
    """

    keys: tuple[FactoryKey, ...]
    spend: JointSweep


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOverKeys:
    """Give two keys of one attempt to its LSP, for ever. The message never comes by here."""

    node_id: bytes
    attempt_id: bytes
    factory: FactoryKey
    channel: ChannelKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepKeys:
    """Keep the keys that were just offered, durably. Answered by `KeysKept` or `KeysNotKept`.

    Attributes:
        attempt_id: The factory.
        node_id: Who offered them.
        attempt: The LSP's number of the attempt.
        client: Whose seat they sign for.
        offered: Which keys they are.
    """

    attempt_id: bytes
    node_id: bytes
    attempt: int
    client: int
    offered: OfferedKeys


@dataclass(frozen=True, slots=True)
class DropOffered:
    """Forget keys that were offered."""

    offered: OfferedKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpKeys:
    """Say whether a client's keys are there, and its own. Answered by `KeysLookedUp`."""

    attempt_id: bytes
    attempt: int
    client: int
    offered: OfferedKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatKey:
    """A key that a client handed over, and the public key that it has to be the secret of."""

    name: HandedOverKey
    pubkey: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSeats:
    """Make a pool for each client that moved out. Answered by `SeatsPrepared` or `SeatsLacking`.

    `close_id` names the close, `pool_size` is how many transactions it signs at most.
    """

    attempt_id: bytes
    close_id: bytes
    seats: tuple[SeatKey, ...]
    pool_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignForSeats:
    """Sign closes with keys of clients that moved out. Answered by `SeatsSigned`, or `SeatsFailed`.

    The digests are made where it is performed, of a close's form alone: no state, no kickoff and no
    commitment is signed with these keys. Transaction k takes nonce k of each pool.

    Attributes:
        attempt_id: The factory.
        close_id: The close.
        scope: What it spends.
        txs: Unsigned, one for each option.
        aggnonces: Of their sessions.
        pool_ids: One of each client.
    """

    attempt_id: bytes
    close_id: bytes
    scope: CloseScope
    txs: tuple[Tx, ...]
    aggnonces: tuple[bytes, ...]
    pool_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallCommitment:
    """Look up what a revoked commitment of the peer said: it was archived when it was revoked.

    Answered by `CommitmentRecalled`. `stream` is the channel's; the turn that asks writes it in.
    """

    channel_id: bytes
    number: int
    stream: str = field(default="", compare=False)


# What the world performs; the journal alone answers `RecallCommitment`.
Performed = (
    Send
    | Disconnect
    | PrepareJoin
    | PrepareMove
    | PrepareAttempt
    | PartialSign
    | PrepareClose
    | PrepareAdvance
    | SignNext
    | FinishNext
    | DropPools
    | LookUpCoins
    | SignFunding
    | SignSpending
    | Broadcast
    | SetDeadline
    | ClearDeadline
    | PrepareNonce
    | SignCommitment
    | FinishCommitment
    | RecallPoint
    | SignTakingTx
    | SignSweep
    | SignPayouts
    | LookUpSpenders
    | SignJointSweep
    | PublishBumped
    | HandOverKeys
    | KeepKeys
    | DropOffered
    | LookUpKeys
    | PrepareSeats
    | SignForSeats
)

Effect = Performed | RecallCommitment
