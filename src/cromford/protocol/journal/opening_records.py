"""What is remembered of a ceremony, from the proposal to a factory that both sides found ready.

Where a fee ladder has several funding candidates, a record is about all of them: its own fields are
of the first, and `higher` has the same of each one after it. `rung` is a candidate's place.
"""

from enum import StrEnum

import msgspec

from cromford.protocol.journal.kept import KeptProposal
from cromford.protocol.journal.record import Record


class Intent(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What is about to be signed: one sighash per kind, outpoint and state index, for ever.

    `kind` is "kickoff", "state", "static", "commitment_opener" or "commitment_accepter", by the
    commitment's holder, "close_" and a cooperative close's id, or "stock_poison" and
    "channel_poison". A commitment's outpoint is its channel's, its index the commitment number; a
    close's index is its option's number, a poison's that of the state that it spends.
    """

    kind: str
    outpoint: bytes
    state_index: int
    sighash: bytes


class Outcome(StrEnum):
    """How a ceremony ended at the LSP. What becomes of a funding is no part of it."""

    FUNDED = "funded"  # its funding was signed
    FAULT = "fault"  # a deviation was proven against a client
    SILENCE = "silence"  # somebody did not answer in time
    REFUSED = "refused"  # a client said no
    DISCONNECTED = "disconnected"  # a client was gone, and its nonces with it
    SIGNER = "signer"  # our own signer could not
    RESTARTED = "restarted"  # the LSP was, and its nonces are gone
    UNFUNDED = "unfunded"  # all was signed, and no funding could be


class SigningIntended(Record, frozen=True, kw_only=True, tag="signing_intended"):
    """Signatures are about to be made."""

    attempt_id: bytes
    intents: tuple[Intent, ...]


class AttemptAborted(Record, frozen=True, kw_only=True, tag="attempt_aborted"):
    """An attempt to build a factory ended.

    `culprits` are the node ids of those who caused it; `is_fault` says that it was proven against
    them, not only that they were silent or unwilling. Where `tries_again` is false, another try
    would end alike. `outcome` is one of `Outcome`; empty at a client, and in older journals.
    """

    attempt_id: bytes
    reason: str
    culprits: tuple[bytes, ...]
    is_fault: bool = False
    tries_again: bool = True
    outcome: str = ""


class ReadySent(Record, frozen=True, kw_only=True, tag="ready_sent"):
    """We told the other side that the funding is deep enough: channels are in this candidate."""

    attempt_id: bytes
    rung: int = 0


class ReadyReceived(Record, frozen=True, kw_only=True, tag="ready_received"):
    """The other side told us that the funding is deep enough."""

    attempt_id: bytes
    node_id: bytes
    rung: int = 0


class FundingInput(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A coin that the funding transaction spends, as the client's own chain showed it."""

    txid: bytes
    vout: int
    amount_sat: int
    script_pubkey: bytes


class ProposalReceived(Record, frozen=True, kw_only=True, tag="proposal_received"):
    """The LSP proposed a factory; nothing is believed yet.

    `client` is the participant index that it says is ours. In older journals `message` is all of
    the proposal, and the rest is empty: today it is empty.
    """

    message: bytes = b""
    attempt_id: bytes = b""
    client: int = 0
    terms_hash: bytes = b""


class ProposalAccepted(Record, frozen=True, kw_only=True, tag="proposal_accepted"):
    """Every check passed. The inputs are kept, because a chain forgets spent coins.

    `kept` is what is kept of the proposal; in older journals that follows from what was received.
    """

    attempt_id: bytes
    inputs: tuple[FundingInput, ...]
    kept: KeptProposal | None = None


class OwnHalves(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Of one candidate, a client's own partial signatures, as `BelowPartialsMade` has them."""

    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes
    own_partial_sig: bytes


class HeldExit(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Of one candidate, the finished signatures that `ExitFinished` has."""

    signatures: tuple[bytes, ...]
    commitment_signature: bytes


class GivenHalves(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Of one candidate, a client's partial signatures, as `BelowPartialsReceived` has them."""

    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes


class FinishedBelow(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Of one candidate, the signatures that `BelowSigned` has."""

    signatures: tuple[bytes, ...]
    commitment_signatures: tuple[bytes, ...]
    commitment_partial_sigs: tuple[bytes, ...]


class BelowPartialsMade(Record, frozen=True, kw_only=True, tag="below_partials_made"):
    """Our partial signatures below the root, in branch order, and of both first commitments.

    `commitment_partial_sig` is for the LSP's, `own_partial_sig` our half of our own, which never
    leaves.
    """

    attempt_id: bytes
    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes
    own_partial_sig: bytes
    higher: tuple[OwnHalves, ...] = ()

    @property
    def of_each(self) -> "tuple[BelowPartialsMade | OwnHalves, ...]":
        """What is remembered of each candidate, lowest feerate first."""
        return (self, *self.higher)


class ExitFinished(Record, frozen=True, kw_only=True, tag="exit_held"):
    """The finished, verified signatures below the root, in branch order, and our commitment's."""

    attempt_id: bytes
    signatures: tuple[bytes, ...]
    commitment_signature: bytes
    higher: tuple[HeldExit, ...] = ()

    @property
    def of_each(self) -> "tuple[ExitFinished | HeldExit, ...]":
        """What is remembered of each candidate, lowest feerate first."""
        return (self, *self.higher)


class RootPartialMade(Record, frozen=True, kw_only=True, tag="root_partial_made"):
    """Our partial signature of the root."""

    attempt_id: bytes
    partial_sig: bytes
    higher: tuple[bytes, ...] = ()


class BranchCompleted(Record, frozen=True, kw_only=True, tag="branch_completed"):
    """The finished, verified the root: the client can leave alone."""

    attempt_id: bytes
    signature: bytes
    higher: tuple[bytes, ...] = ()


class WaitGivenUp(Record, frozen=True, kw_only=True, tag="wait_given_up"):
    """The LSP went silent after we signed the root, or the funding will not be used.

    The records stay. `rung` is the candidate that took the place of the one our channel is in.
    """

    attempt_id: bytes
    rung: int | None = None


class BelowPartialsReceived(Record, frozen=True, kw_only=True, tag="below_partials_received"):
    """One client's partial signatures below the root, in its branch's order.

    `commitment_partial_sig` is its half of our first commitment of its channel.
    """

    attempt_id: bytes
    client: int
    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes
    higher: tuple[GivenHalves, ...] = ()

    @property
    def of_each(self) -> "tuple[BelowPartialsReceived | GivenHalves, ...]":
        """What is remembered of each candidate, lowest feerate first."""
        return (self, *self.higher)


class BelowSigned(Record, frozen=True, kw_only=True, tag="below_signed"):
    """Every signature below the root, finished and verified, depth first.

    `commitment_signatures` are those of our own first commitments, `commitment_partial_sigs` our
    halves of the clients', both one per client.
    """

    attempt_id: bytes
    signatures: tuple[bytes, ...]
    commitment_signatures: tuple[bytes, ...]
    commitment_partial_sigs: tuple[bytes, ...]
    higher: tuple[FinishedBelow, ...] = ()

    @property
    def of_each(self) -> "tuple[BelowSigned | FinishedBelow, ...]":
        """What is remembered of each candidate, lowest feerate first."""
        return (self, *self.higher)


class RootPartialReceived(Record, frozen=True, kw_only=True, tag="root_partial_received"):
    """One client's partial signature of the root."""

    attempt_id: bytes
    client: int
    partial_sig: bytes
    higher: tuple[bytes, ...] = ()


class RootSigned(Record, frozen=True, kw_only=True, tag="root_signed"):
    """The finished, verified the root."""

    attempt_id: bytes
    signature: bytes
    higher: tuple[bytes, ...] = ()


class Acknowledged(Record, frozen=True, kw_only=True, tag="acknowledged"):
    """One client holds its whole branch."""

    attempt_id: bytes
    client: int


class FundingWasSigned(Record, frozen=True, kw_only=True, tag="funding_signed"):
    """The signed funding transaction, about to be broadcast; `higher` may take its place."""

    attempt_id: bytes
    tx: bytes
    higher: tuple[bytes, ...] = ()


class FundingDied(Record, frozen=True, kw_only=True, tag="funding_died"):
    """A coin of a funding is spent by another transaction, so deep that it will not confirm.

    `rung` is which candidate of its ladder that is, if channels were in another.
    """

    attempt_id: bytes
    rung: int | None = None


SharedOpeningRecord = AttemptAborted | ReadySent | ReadyReceived

ClientOpeningRecord = (
    ProposalReceived
    | ProposalAccepted
    | BelowPartialsMade
    | ExitFinished
    | RootPartialMade
    | BranchCompleted
    | WaitGivenUp
)

LspOpeningRecord = (
    BelowPartialsReceived
    | BelowSigned
    | RootPartialReceived
    | RootSigned
    | Acknowledged
    | FundingWasSigned
    | FundingDied
)
