"""Messages that sell inbound liquidity: quotes, and the advance of a leaf that follows a purchase.

What each may follow is in docs/protocol/13; what a message is, and its number, says `messages`.
"""

from dataclasses import dataclass
from typing import Final

from cromford.channel.terms import HTLCS_MAX
from cromford.crypto.musig2 import PARTIAL_SIG_SIZE, PUBNONCE_SIZE
from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.terms import HASH_SIZE, N_CLIENTS_MAX
from cromford.signing.nonces import POOL_SIZE_MAX
from cromford.wire.fields import fixed, fixed_list, struct_list, text, u64, varbytes
from cromford.wire.sizes import PUBKEY_SIZE, REASON_SIZE_MAX

N_HTLC_SIGNATURES_MAX: Final = 2 * HTLCS_MAX
N_ADVANCE_NONCES: Final = 2  # Of the factory key: for the state, and for the L-stock's poison.
ALL_OF_IT: Final = 0  # In `QuoteRequest`: all that the L-stock holds.


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRequest:
    """Client to LSP: what would so much more capacity cost, from the L-stock of my leaf?

    `amount_sat` is 0 for all of it. With a `payment_hash` the price is to be taken from the payment
    that comes with it, so the balance need not carry it.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    amount_sat: int = u64()
    payment_hash: bytes = varbytes(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededOnline:
    """A client who has to be online for a purchase, by its participant index."""

    client: int = u64()
    is_online: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """LSP to client: it costs this, until a height; here is what it brings, and who is needed.

    `amount_sat` is what the L-stock loses, `capacity_sat` what the channel holds afterwards.
    `sales_left` counts those after this one, `covered_sat` is what the poisons cover afterwards.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    quote_id: bytes = fixed(HASH_SIZE)
    amount_sat: int = u64()
    capacity_sat: int = u64()
    price_msat: int = u64()
    state_index: int = u64()
    needed: tuple[NeededOnline, ...] = struct_list(NeededOnline, N_CLIENTS_MAX)
    sales_left: int = u64()
    covered_sat: int = u64()
    valid_until_height: int = u64()
    usable_blocks: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRefused:
    """LSP to client: nothing is sold so; or what was quoted is not sold any more.

    `quote_id` is the quote's that was to be bought by, empty where one was asked for.
    `missing_msat` is what the client's balance lacks, where that is the reason. `next_factory` says
    that there is a seat with more capacity in the next factory.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    quote_id: bytes = varbytes(HASH_SIZE)
    code: str = text(REASON_SIZE_MAX)
    reason: str = text(REASON_SIZE_MAX)
    missing_msat: int = u64()
    next_factory: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class Buy:
    """Client to LSP: I buy by this quote.

    With a `payment_hash` the price is taken from the payment that comes with it, which the LSP has;
    empty, from my balance.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    quote_id: bytes = fixed(HASH_SIZE)
    payment_hash: bytes = varbytes(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skimmed:
    """In an HTLC's `Delivery`: what the LSP kept of it, for what its payee bought."""

    price_msat: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatedChannel:
    """What a leaf's state pays one channel."""

    capacity_sat: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvancePropose:
    """LSP to client: let us replace our leaf's state by one that pays this. No update from me.

    The channels are in placement order. `quote_id` and `price_msat` are the buyer's: empty and 0
    for others. Sent again, with the same name, for fresh nonces: `session` names the LSP's, so that
    an agreement that is late is not taken for one to what it was not given for.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    state_index: int = u64()
    channels: tuple[AllocatedChannel, ...] = struct_list(AllocatedChannel, N_CLIENTS_MAX)
    lstock_sat: int = u64()
    quote_id: bytes = varbytes(HASH_SIZE)
    price_msat: int = u64()
    session: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextNonces:
    """The sender's nonces for its commitments `number` and the one after, on the next funding."""

    number: int = u64()
    pubnonce: bytes = fixed(PUBNONCE_SIZE)
    following_pubnonce: bytes = fixed(PUBNONCE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceAgree:
    """Client to LSP: I am quiet, and agree. Two nonces of my factory key: state, L-stock's poison.

    `channel` is empty where the next funding carries my commitments already: only signatures of
    state and poisons are missing. `session` is that of the proposal.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    factory_pubkey: bytes = fixed(PUBKEY_SIZE)
    pubnonces: tuple[bytes, ...] = fixed_list(PUBNONCE_SIZE, POOL_SIZE_MAX)
    channel: tuple[NextNonces, ...] = struct_list(NextNonces, 1)
    session: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHalf:
    """The sender's half of the receiver's commitment `number` on the next funding."""

    number: int = u64()
    pubnonce: bytes = fixed(PUBNONCE_SIZE)
    partial_sig: bytes = fixed(PARTIAL_SIG_SIZE)
    htlc_signatures: tuple[bytes, ...] = fixed_list(SIGNATURE_SIZE, N_HTLC_SIGNATURES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceCommit:
    """LSP to client: everybody agreed. Aggregated nonces, and your commitment on the next funding.

    `aggnonces` are of the state and of the L-stock's poison; `poison_pubnonce` is the LSP's for the
    poison of your channel. `half` and `channel` are empty where you hold the commitment already.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    aggnonces: tuple[bytes, ...] = fixed_list(PUBNONCE_SIZE, N_ADVANCE_NONCES)
    poison_pubnonce: bytes = fixed(PUBNONCE_SIZE)
    half: tuple[NextHalf, ...] = struct_list(NextHalf, 1)
    channel: tuple[NextNonces, ...] = struct_list(NextNonces, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvancePartials:
    """A client's partial signatures of the state, of the L-stock's poison, of its channel's."""

    state: bytes = fixed(PARTIAL_SIG_SIZE)
    stock_poison: bytes = fixed(PARTIAL_SIG_SIZE)
    poison_pubnonce: bytes = fixed(PUBNONCE_SIZE)
    channel_poison: bytes = fixed(PARTIAL_SIG_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceSign:
    """Client to LSP: your commitment on the next funding, and my partial signatures.

    After a reconnection either may go alone: what the LSP lacks.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    half: tuple[NextHalf, ...] = struct_list(NextHalf, 1)
    partials: tuple[AdvancePartials, ...] = struct_list(AdvancePartials, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceDone:
    """LSP to client: the signatures of the new state and, unless its kickoff is on chain, poisons.

    Both poisons are empty, or neither is.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    state_signature: bytes = fixed(SIGNATURE_SIZE)
    stock_poison: bytes = varbytes(SIGNATURE_SIZE)
    channel_poison: bytes = varbytes(SIGNATURE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceHeld:
    """Client to LSP: I hold the new state and the poisons, or see that state six deep."""

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceAbort:
    """Either way: nothing comes of this advance, and the channel may be updated again.

    The LSP says so before its first `AdvanceCommit`, a client before it signed.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    reason: str = text(REASON_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRebase:
    """LSP to client: from here on the channel's commitments are for the next funding alone.

    Its price is paid by this update, and what was bought counts.
    """

    channel_id: bytes = fixed(HASH_SIZE)
    advance_id: bytes = fixed(HASH_SIZE)
    capacity_sat: int = u64()
    price_msat: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class NextNonce:
    """The sender's nonce for its commitment `number` on the next funding."""

    number: int = u64()
    pubnonce: bytes = fixed(PUBNONCE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceStage:
    """In `ChannelReestablish`: how far the sender is with an advance that is under way.

    A client: 1 it signed, 2 it holds the state, 3 it holds the poisons; where it signed nothing it
    says nothing. The LSP: 1 it sent `AdvanceCommit`, 2 it holds the state, 3 poisons may have been
    sent. `is_void` is 1 where the sender sees the old state six deep, else 0.
    """

    advance_id: bytes = fixed(HASH_SIZE)
    stage: int = u64()
    is_void: int = u64()
    funding_txid: bytes = fixed(HASH_SIZE)
    nonces: tuple[NextNonce, ...] = struct_list(NextNonce, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherNonce:
    """In `RevokeAndAck`: the sender's nonce for the same commitment on the next funding."""

    funding_txid: bytes = fixed(HASH_SIZE)
    pubnonce: bytes = fixed(PUBNONCE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherPart:
    """In `CommitmentSigned`: the same commitment on the next funding."""

    funding_txid: bytes = fixed(HASH_SIZE)
    pubnonce: bytes = fixed(PUBNONCE_SIZE)
    partial_sig: bytes = fixed(PARTIAL_SIG_SIZE)
    htlc_signatures: tuple[bytes, ...] = fixed_list(SIGNATURE_SIZE, N_HTLC_SIGNATURES_MAX)
