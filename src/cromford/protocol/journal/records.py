"""Everything a role remembers: the entries of its journal.

A role's state is the fold of these, so a record holds what happened and nothing that can be
computed from earlier ones. Each is encoded after a version byte; a version that is not known
stops the daemon before it acts on half an understanding.
"""

from typing import Final

import msgspec

from cromford.protocol.journal.channel_records import BookRecord
from cromford.protocol.journal.record import Record

RECORD_VERSION: Final = 1


class Created(Record, frozen=True, kw_only=True, tag="created"):
    """The journal's first entry: whose it is.

    `journal_number` is drawn at random and is a step of every factory and channel key's path, so
    that a seed with a lost journal never repeats a key. `seed_fingerprint` names the seed that
    its keys come from: signatures of one seed's keys are worth nothing beside another seed.
    """

    role: str
    network: bytes
    journal_number: int
    seed_fingerprint: bytes = b""  # Empty in a journal that is older than this field.


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """The daemon started: connections, nonces and whatever depended on them are gone."""


class PeerConnected(Record, frozen=True, kw_only=True, tag="peer_connected"):
    """A peer proved its node key."""

    node_id: bytes


class PeerDisconnected(Record, frozen=True, kw_only=True, tag="peer_disconnected"):
    """A peer's connection ended."""

    node_id: bytes


class BlockConnected(Record, frozen=True, kw_only=True, tag="block_connected"):
    """A block joined the active chain; `txs` are those that concern this role."""

    height: int
    block_hash: bytes
    txs: tuple[bytes, ...]


class BlockDisconnected(Record, frozen=True, kw_only=True, tag="block_disconnected"):
    """The block at `height`, the tip, left the active chain."""

    height: int


class AddressIssued(Record, frozen=True, kw_only=True, tag="address_issued"):
    """A fresh wallet script was handed out."""

    change: int


class SpendingWasSigned(Record, frozen=True, kw_only=True, tag="payment_signed"):
    """A payment out of the wallet, about to be broadcast."""

    tx: bytes
    has_change: bool


class PaymentAbandoned(Record, frozen=True, kw_only=True, tag="payment_abandoned"):
    """A payment that our node refuses is given up: it is published no more, its coins are free."""

    txid: bytes
    reason: str


class BroadcastRefusalSeen(Record, frozen=True, kw_only=True, tag="broadcast_refused"):
    """Our node refused a transaction of ours, for the first time for a reason of this kind."""

    name: str
    txid: bytes
    reason: str


class Intent(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What is about to be signed: one sighash per kind, outpoint and state index, for ever.

    `kind` is "kickoff", "state", "commitment_opener" or "commitment_accepter", by the
    commitment's holder. A commitment's outpoint is its channel's, its index the commitment number.
    """

    kind: str
    outpoint: bytes
    state_index: int
    sighash: bytes


class SigningIntended(Record, frozen=True, kw_only=True, tag="signing_intended"):
    """Signatures are about to be made."""

    attempt_id: bytes
    intents: tuple[Intent, ...]


class AttemptAborted(Record, frozen=True, kw_only=True, tag="attempt_aborted"):
    """An attempt to build a factory ended.

    `culprits` are the node ids of those who caused it; `is_fault` says that it was proven against
    them, not only that they were silent or unwilling.
    """

    attempt_id: bytes
    reason: str
    culprits: tuple[bytes, ...]
    is_fault: bool = False


class ReadySent(Record, frozen=True, kw_only=True, tag="ready_sent"):
    """We told the other side that the funding is deep enough."""

    attempt_id: bytes


class ReadyReceived(Record, frozen=True, kw_only=True, tag="ready_received"):
    """The other side told us that the funding is deep enough."""

    attempt_id: bytes
    node_id: bytes


class ExitStarted(Record, frozen=True, kw_only=True, tag="exit_started"):
    """We leave a client's channel by publishing its branch, for this reason."""

    attempt_id: bytes
    client: int
    reason: str


class TreePublished(Record, frozen=True, kw_only=True, tag="tree_published"):
    """Somebody publishes the factory: these transactions of its tree confirmed at this height.

    Of a client's journal, its own branch. It changes no state, which the block did already: it says
    by a number of its own, once for each block, what an operator must not overlook.
    """

    attempt_id: bytes
    height: int
    transactions: tuple[str, ...]


# The client's


class LobbyGreeted(Record, frozen=True, kw_only=True, tag="lobby_greeted"):
    """The LSP told who may join."""

    message: bytes


class WishMade(Record, frozen=True, kw_only=True, tag="wish_made"):
    """The operator wishes to be in the next factory."""

    capacity_sat: int
    capacity_least_sat: int


class WishWithdrawn(Record, frozen=True, kw_only=True, tag="wish_withdrawn"):
    """The operator no longer wishes to join."""


class JoinSent(Record, frozen=True, kw_only=True, tag="join_sent"):
    """A wish went out with fresh keys; `attempt` is their index."""

    attempt: int
    message: bytes


class JoinAnswered(Record, frozen=True, kw_only=True, tag="join_answered"):
    """The LSP accepted the wish, or refused it with a reason."""

    factory_pubkey: bytes
    refusal: str | None


class ProposalReceived(Record, frozen=True, kw_only=True, tag="proposal_received"):
    """The LSP proposed a factory; nothing is believed yet."""

    message: bytes


class FundingInput(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A coin that the funding transaction spends, as the client's own chain showed it."""

    txid: bytes
    vout: int
    amount_sat: int
    script_pubkey: bytes


class ProposalAccepted(Record, frozen=True, kw_only=True, tag="proposal_accepted"):
    """Every check passed. The inputs are kept, because a chain forgets spent coins."""

    attempt_id: bytes
    inputs: tuple[FundingInput, ...]


class BelowPartialsMade(Record, frozen=True, kw_only=True, tag="below_partials_made"):
    """Our partial signatures below the root, in branch order, and of both first commitments.

    `commitment_partial_sig` is for the LSP's, `own_partial_sig` our half of our own, which never
    leaves.
    """

    attempt_id: bytes
    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes
    own_partial_sig: bytes


class ExitFinished(Record, frozen=True, kw_only=True, tag="exit_held"):
    """The finished, verified signatures below the root, in branch order, and our commitment's."""

    attempt_id: bytes
    signatures: tuple[bytes, ...]
    commitment_signature: bytes


class RootPartialMade(Record, frozen=True, kw_only=True, tag="root_partial_made"):
    """Our partial signature of kickoff_root."""

    attempt_id: bytes
    partial_sig: bytes


class BranchCompleted(Record, frozen=True, kw_only=True, tag="branch_completed"):
    """The finished, verified kickoff_root: the client can leave alone."""

    attempt_id: bytes
    signature: bytes


class WaitGivenUp(Record, frozen=True, kw_only=True, tag="wait_given_up"):
    """The LSP went silent after we signed the root. The records stay."""

    attempt_id: bytes


# The LSP's


class ClientJoined(Record, frozen=True, kw_only=True, tag="client_joined"):
    """A client waits in the lobby."""

    node_id: bytes
    message: bytes
    is_moving: bool


class ClientLeft(Record, frozen=True, kw_only=True, tag="client_left"):
    """A client no longer waits."""

    node_id: bytes


class BuildStarted(Record, frozen=True, kw_only=True, tag="build_started"):
    """Clients were chosen and placed, in placement order; keys are being made."""

    attempt: int
    node_ids: tuple[bytes, ...]
    reasons: tuple[str, ...]
    capacity_sat: tuple[int, ...]
    min_clients: int
    max_clients: int


class BuildDropped(Record, frozen=True, kw_only=True, tag="build_dropped"):
    """The build ended before anything was proposed, or will not be tried again."""

    reason: str


class RebuildAwaited(Record, frozen=True, kw_only=True, tag="rebuild_awaited"):
    """An attempt was aborted; the clients that stayed are expected back with fresh keys."""

    node_ids: tuple[bytes, ...]
    min_clients: int
    max_clients: int


class Seat(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One client of an attempt, as it joined."""

    node_id: bytes
    join: bytes


class AttemptProposed(Record, frozen=True, kw_only=True, tag="attempt_proposed"):
    """All that a tree is computed from: terms, keys, pools and the funding transaction."""

    attempt_id: bytes
    attempt: int
    terms: bytes
    seats: tuple[Seat, ...]
    lsp_factory_pool: bytes
    lsp_channels: tuple[bytes, ...]
    lsp_channel_pools: tuple[bytes, ...]
    funding_tx: bytes


class BelowPartialsReceived(Record, frozen=True, kw_only=True, tag="below_partials_received"):
    """One client's partial signatures below the root, in its branch's order.

    `commitment_partial_sig` is its half of our first commitment of its channel.
    """

    attempt_id: bytes
    client: int
    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes


class BelowSigned(Record, frozen=True, kw_only=True, tag="below_signed"):
    """Every signature below the root, finished and verified, depth first.

    `commitment_signatures` are those of our own first commitments, `commitment_partial_sigs` our
    halves of the clients', both one per client.
    """

    attempt_id: bytes
    signatures: tuple[bytes, ...]
    commitment_signatures: tuple[bytes, ...]
    commitment_partial_sigs: tuple[bytes, ...]


class RootPartialReceived(Record, frozen=True, kw_only=True, tag="root_partial_received"):
    """One client's partial signature of kickoff_root."""

    attempt_id: bytes
    client: int
    partial_sig: bytes


class RootSigned(Record, frozen=True, kw_only=True, tag="root_signed"):
    """The finished, verified kickoff_root."""

    attempt_id: bytes
    signature: bytes


class Acknowledged(Record, frozen=True, kw_only=True, tag="acknowledged"):
    """One client holds its whole branch."""

    attempt_id: bytes
    client: int


class FundingWasSigned(Record, frozen=True, kw_only=True, tag="funding_signed"):
    """The signed funding transaction, about to be broadcast."""

    attempt_id: bytes
    tx: bytes


class FundingAbandoned(Record, frozen=True, kw_only=True, tag="funding_abandoned"):
    """A funding that our node refuses is given up. `tx`, unsigned, pays a coin of it back to us."""

    attempt_id: bytes
    tx: bytes
    reason: str


class FundingDied(Record, frozen=True, kw_only=True, tag="funding_died"):
    """A coin of a funding is spent by another transaction, so deep that it will not confirm."""

    attempt_id: bytes


SharedRecord = (
    Created
    | Started
    | PeerConnected
    | PeerDisconnected
    | BlockConnected
    | BlockDisconnected
    | AddressIssued
    | SpendingWasSigned
    | PaymentAbandoned
    | BroadcastRefusalSeen
)

SharedAttemptRecord = (
    SigningIntended | AttemptAborted | ReadySent | ReadyReceived | ExitStarted | TreePublished
)

ClientAttemptRecord = (
    ProposalReceived
    | ProposalAccepted
    | BelowPartialsMade
    | ExitFinished
    | RootPartialMade
    | BranchCompleted
    | WaitGivenUp
)

ClientOnly = LobbyGreeted | WishMade | WishWithdrawn | JoinSent | JoinAnswered | ClientAttemptRecord

LspAttemptRecord = (
    AttemptProposed
    | BelowPartialsReceived
    | BelowSigned
    | RootPartialReceived
    | RootSigned
    | Acknowledged
    | FundingWasSigned
    | FundingAbandoned
    | FundingDied
)

LspOnly = (
    ClientJoined | ClientLeft | BuildStarted | BuildDropped | RebuildAwaited | LspAttemptRecord
)

AnyRecord = SharedRecord | SharedAttemptRecord | BookRecord | ClientOnly | LspOnly


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)  # A txid is bytes with a name.
    raise TypeError(f"{type(value).__name__} cannot be journalled")


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_plain_bytes)
_DECODER: Final[msgspec.msgpack.Decoder[AnyRecord]] = msgspec.msgpack.Decoder(AnyRecord)


class UnknownRecord(ValueError):
    """A journal entry this version cannot read."""


def encode_record(record: AnyRecord) -> bytes:
    """Return the bytes of a record."""
    return RECORD_VERSION.to_bytes(1, "big") + _ENCODER.encode(record)


def decode_record(data: bytes) -> AnyRecord:
    """Return the record of these bytes.

    Raises:
        UnknownRecord: If it is of another version or malformed.
    """
    if not data or data[0] != RECORD_VERSION:
        raise UnknownRecord(f"record version {data[:1].hex() or 'none'}, expected {RECORD_VERSION}")
    try:
        return _DECODER.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnknownRecord(str(error)) from error
