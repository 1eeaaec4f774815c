"""What a role remembers of live channels and payments. `message` is a wire message's bytes."""

from typing import Final

from cromford.channel.content import CommitmentContent
from cromford.protocol.journal.advance_records import NextFundingRecord
from cromford.protocol.journal.record import Kinds, Record


class ChannelPrepared(Record, frozen=True, kw_only=True, tag="channel_prepared"):
    """We have nonces for our next commitments and told the peer where the channel stands.

    `next_pubnonces` are for those on the next funding, in the order of their numbers. With
    `is_void` we said that the state of the present funding is six deep.
    """

    channel_id: bytes
    pool_id: bytes
    pubnonce: bytes
    next_pubnonces: tuple[bytes, ...] = ()
    is_void: bool = False


class NonceAwaited(Record, frozen=True, kw_only=True, tag="nonce_awaited"):
    """There is no room for a nonce: in this connection the channel is taken up later.

    `reestablish` is the peer's, which it does not send twice; empty until it comes.
    """

    channel_id: bytes
    reestablish: bytes


class ChannelReestablished(Record, frozen=True, kw_only=True, tag="channel_reestablished"):
    """The peer told where the channel stands, and it agrees: updates may flow.

    `own_point` is the point of the secret that the peer showed; empty before the first.
    """

    channel_id: bytes
    message: bytes
    own_point: bytes


class UpdateProposed(Record, frozen=True, kw_only=True, tag="update_proposed"):
    """We add, take or give back an HTLC."""

    channel_id: bytes
    message: bytes


class AddsTakenBack(Record, frozen=True, kw_only=True, tag="adds_taken_back"):
    """We take back our HTLCs from this id on: the peer never heard of them, and never will.

    `waits_again`: what they pay for elsewhere waits for its payee, as if it had not gone on.
    """

    channel_id: bytes
    htlc_id: int
    waits_again: bool = False


class UpdateReceived(Record, frozen=True, kw_only=True, tag="update_received"):
    """The peer adds, takes or gives back an HTLC. A preimage in it is ours for ever."""

    channel_id: bytes
    message: bytes


class CommitmentIntended(Record, frozen=True, kw_only=True, tag="commitment_intended"):
    """We are about to sign the peer's commitment of this number: one sighash for each funding.

    `next_sighash` is that on the next funding, where it is for both; else empty.
    """

    channel_id: bytes
    number: int
    sighash: bytes
    next_sighash: bytes = b""


class CommitmentFinished(Record, frozen=True, kw_only=True, tag="commitment_held"):
    """We hold our next commitment, finished and verified, and revoke the one before.

    `signature` and `htlc_signatures` are what it takes to publish it; `secret` is that of the
    commitment before, `next_point` and the nonce are for the commitment after. What begins with
    `next_` but for that point is for the next funding, where the commitment is for both.
    """

    channel_id: bytes
    signature: bytes
    htlc_signatures: tuple[bytes, ...]
    secret: bytes
    next_point: bytes
    pool_id: bytes
    pubnonce: bytes
    next_signature: bytes = b""
    next_htlc_signatures: tuple[bytes, ...] = ()
    next_pubnonce: bytes = b""


class RevocationReceived(Record, frozen=True, kw_only=True, tag="revocation_received"):
    """The peer revoked its commitment before the latest.

    `names_htlcs` says that what it said is archived with its HTLCs by themselves, each once.
    """

    channel_id: bytes
    message: bytes
    names_htlcs: bool = False


class ChannelFailed(Record, frozen=True, kw_only=True, tag="channel_failed"):
    """No update of this channel any more: it is left by an exit.

    `height` is the chain's; `is_behind` says that we have lost state: our own commitment must never
    be published.
    """

    channel_id: bytes
    reason: str
    height: int
    is_behind: bool = False


class PeerLostState(Record, frozen=True, kw_only=True, tag="peer_lost_state"):
    """The peer's `channel_reestablish` shows that it lost state, or says so.

    It must never publish its own commitment, so ours is published for both.
    """

    channel_id: bytes
    message: bytes


class BreachFound(Record, frozen=True, kw_only=True, tag="breach_found"):
    """The peer published a commitment that it had revoked, and this is what it says."""

    channel_id: bytes
    content: CommitmentContent


class PeerMarked(Record, frozen=True, kw_only=True, tag="peer_marked"):
    """The peer says that its store was put back from a backup, or lies about it.

    It must not publish its own commitment, so ours is published for both, if it may be. `peer_hash`
    commits it to where it believes that the channel stands.
    """

    channel_id: bytes
    peer_hash: bytes


class MarksCompared(Record, frozen=True, kw_only=True, tag="marks_compared"):
    """Both sides' stores were put back, and by the later of them `own_msat` is ours.

    `message` is what the peer revealed.
    """

    channel_id: bytes
    message: bytes
    own_msat: int


class StaleAllowed(Record, frozen=True, kw_only=True, tag="stale_allowed"):
    """The operator lets us publish our commitment of a marked channel: it may be revoked."""

    channel_id: bytes


class HtlcDecided(Record, frozen=True, kw_only=True, tag="htlc_decided"):
    """Our HTLC is decided without an answer of the peer in the channel.

    On chain it was taken by a preimage, or came back to us; or it expired, and its amount is not
    worth going there.
    """

    channel_id: bytes
    htlc_id: int
    preimage: bytes | None


class InvoiceIssued(Record, frozen=True, kw_only=True, tag="invoice_issued"):
    """We want to be paid; the preimage is the proof of payment that we give for it.

    `label` and `external_id` are the operator's own words, which are told to nobody else.
    """

    payment_hash: bytes
    preimage: bytes
    payment_secret: bytes
    amount_msat: int
    description: str
    expires_at: int
    text: str
    expiry_seconds: int = 0
    hold_seconds: int = 0
    label: str = ""
    external_id: str = ""


class HoldAgreed(Record, frozen=True, kw_only=True, tag="hold_agreed"):
    """The LSP says how long it holds what pays an invoice, while we are away."""

    payment_hash: bytes
    hold_seconds: int


class InvoiceExpired(Record, frozen=True, kw_only=True, tag="invoice_expired"):
    """An invoice is no longer paid."""

    payment_hash: bytes


class InvoicePaid(Record, frozen=True, kw_only=True, tag="invoice_paid"):
    """An HTLC pays an invoice; we take it by the preimage."""

    payment_hash: bytes
    channel_id: bytes
    htlc_id: int
    amount_msat: int


class PaymentStarted(Record, frozen=True, kw_only=True, tag="payment_started"):
    """We pay an invoice with our HTLC of this channel and id, which is proposed next.

    `asker` is the stream that asked for it; empty where it is our own. `label` is the operator's,
    and told to nobody else.
    """

    payment_hash: bytes
    payee: bytes
    amount_msat: int
    fee_msat: int
    description: str
    channel_id: bytes
    htlc_id: int
    text: str
    asker: str = ""
    label: str = ""


class PayDeclined(Record, frozen=True, kw_only=True, tag="pay_declined"):
    """No HTLC is offered for a payment that the stream `asker` asked for."""

    asker: str
    payment_hash: bytes
    reason: str


class HtlcHeld(Record, frozen=True, kw_only=True, tag="htlc_held"):
    """An HTLC cannot go on to its payee yet: it waits, for a bounded time.

    `reason` is for the operator alone. `seconds` is how long it waits if its payee announced it.
    """

    channel_id: bytes
    htlc_id: int
    reason: str
    seconds: int = 0


class HoldEnded(Record, frozen=True, kw_only=True, tag="hold_ended"):
    """An HTLC was held, or is on its way, for as long as every failure takes to be told."""

    channel_id: bytes
    htlc_id: int


class HtlcRefused(Record, frozen=True, kw_only=True, tag="htlc_refused"):
    """We give an HTLC of the peer back that we could take; `reason` is for the operator."""

    channel_id: bytes
    htlc_id: int
    reason: str


class HtlcForwarded(Record, frozen=True, kw_only=True, tag="htlc_forwarded"):
    """An HTLC goes on: the payee's factory, whose stream is `to`, is asked to take it.

    `cltv_expiry` is what is left to it there. `seconds` is how long it waits, should it not be
    taken, if its payee announced it.
    """

    channel_id: bytes
    htlc_id: int
    to: str
    fee_msat: int
    cltv_expiry: int
    seconds: int = 0


class ForwardOffered(Record, frozen=True, kw_only=True, tag="forward_offered"):
    """What the stream `asker` has of an HTLC goes on as ours, which is proposed next."""

    asker: str
    in_channel_id: bytes
    in_htlc_id: int
    channel_id: bytes
    htlc_id: int


class ForwardDeclined(Record, frozen=True, kw_only=True, tag="forward_declined"):
    """What the stream `asker` has of an HTLC does not go on here; `reason` is for the operator."""

    asker: str
    in_channel_id: bytes
    in_htlc_id: int
    reason: str


class ForwardWithdrawn(Record, frozen=True, kw_only=True, tag="forward_withdrawn"):
    """An HTLC that another factory was asked to take, and did not yet, is asked for no more.

    The letter that asks is void: whenever it is taken, it says nothing.
    """

    channel_id: bytes
    htlc_id: int


class FeeEarned(Record, frozen=True, kw_only=True, tag="fee_earned"):
    """A forwarded HTLC was paid: the ledger's entry for its fee.

    Of one whose payer was told the preimage, and lost to us on chain all the same, `IncomingEnded`
    takes it back. `announced_by` is its payee, if that had announced it: the house hears that it is
    expected no more. In older journals it is not there.
    """

    channel_id: bytes
    htlc_id: int
    payment_hash: bytes
    fee_msat: int
    announced_by: bytes = b""


class IncomingEnded(Record, frozen=True, kw_only=True, tag="incoming_ended"):
    """An HTLC of the peer's ended with its channel: we neither took it nor gave it back.

    Or the peer was told its preimage, and did not let us have it: then it was not earned.
    `paid_msat` is what we paid on for it, and bear; 0 if nothing. `reason` is for the operator.
    """

    channel_id: bytes
    htlc_id: int
    reason: str
    paid_msat: int


class OutgoingEnded(Record, frozen=True, kw_only=True, tag="outgoing_ended"):
    """Our HTLC ended with its channel, and nothing will tell whether it was paid.

    `reason` is for the operator.
    """

    channel_id: bytes
    htlc_id: int
    reason: str


UpdateRecord = UpdateProposed | UpdateReceived
StepRecord = (
    ChannelPrepared
    | NonceAwaited
    | ChannelReestablished
    | AddsTakenBack
    | CommitmentIntended
    | CommitmentFinished
    | RevocationReceived
    | ChannelFailed
    | PeerLostState
    | BreachFound
    | PeerMarked
    | MarksCompared
    | StaleAllowed
    | NextFundingRecord
)
ChannelRecord = UpdateRecord | StepRecord

ClientPaymentRecord = (
    InvoiceIssued | HoldAgreed | InvoiceExpired | InvoicePaid | HtlcRefused | OutgoingEnded
)
LspPaymentRecord = (
    PayDeclined
    | HtlcHeld
    | HoldEnded
    | HtlcForwarded
    | ForwardOffered
    | ForwardDeclined
    | ForwardWithdrawn
    | FeeEarned
    | IncomingEnded
)
PaymentRecord = HtlcDecided | PaymentStarted | ClientPaymentRecord | LspPaymentRecord

BookRecord = ChannelRecord | PaymentRecord

# Most records are one of these.
UPDATE_RECORDS: Final[Kinds[UpdateRecord]] = Kinds(UpdateRecord)
CHANNEL_RECORDS: Final[Kinds[ChannelRecord]] = Kinds(ChannelRecord)
BOOK_RECORDS: Final[Kinds[BookRecord]] = Kinds(BookRecord)
