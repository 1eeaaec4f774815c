"""What journals and checkpoints of older versions hold of a client's attempt, and how it is read.

They hold the whole proposal, with everybody's keys in it, and the whole join. What is kept today
follows from that. Checkpoints name the classes as they were called.
"""

from dataclasses import dataclass
from typing import Final

from cromford.codec.reader import MalformedBytes
from cromford.factory.terms import HASH_SIZE, N_CANDIDATES_MAX, N_CLIENTS_MAX
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.kept import KeptJoin, KeptProposal
from cromford.protocol.journal.proposal import claims_of, kept_proposal
from cromford.protocol.journal.state_classes import Older
from cromford.wire import messages as m
from cromford.wire.fields import (
    decode_fields,
    fixed,
    fixed_list,
    struct,
    struct_list,
    u64,
    varbytes,
)

_HEADER: Final = m.MESSAGE_TYPES[m.Propose].to_bytes(2, "big") + bytes((m.WIRE_VERSION,))


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderVertex:
    """A vertex with all its signers."""

    older = Older(name="BranchVertex")

    signers: tuple[bytes, ...] = fixed_list(m.PUBKEY_SIZE, N_CLIENTS_MAX + 1)
    kickoff_tx: bytes = varbytes(m.TX_SIZE_MAX)
    state_tx: bytes = varbytes(m.TX_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderCandidate:
    """A client's branch under one candidate of the funding transaction."""

    older = Older(name="CandidateProposal")

    funding_tx: bytes = varbytes(m.TX_SIZE_MAX)
    vertices: tuple[OlderVertex, ...] = struct_list(OlderVertex, m.N_LAYERS_MAX)
    nonces: tuple[m.NonceUse, ...] = struct_list(m.NonceUse, m.N_BRANCH_TXS_MAX)
    channel: m.ChannelOffer = struct(m.ChannelOffer)
    commitment_nonces: tuple[m.NonceUse, ...] = struct_list(m.NonceUse, m.N_FIRST_COMMITMENTS)

    def today(self) -> m.CandidateProposal:
        """Return the same as it travels today."""
        return m.CandidateProposal(
            funding_tx=self.funding_tx,
            vertices=tuple(
                m.BranchVertex(kickoff_tx=one.kickoff_tx, state_tx=one.state_tx)
                for one in self.vertices
            ),
            nonces=self.nonces,
            channel=self.channel,
            commitment_nonces=self.commitment_nonces,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderPropose:
    """A proposal whose every vertex names its signers: the root's are everybody."""

    older = Older(name="Propose")

    factory_pubkey: bytes = fixed(m.PUBKEY_SIZE)
    attempt_id: bytes = fixed(HASH_SIZE)
    terms_hash: bytes = fixed(HASH_SIZE)
    terms: bytes = varbytes(m.MESSAGE_SIZE_MAX)
    client: int = u64()
    candidates: tuple[OlderCandidate, ...] = struct_list(OlderCandidate, N_CANDIDATES_MAX)

    def today(self) -> m.Propose:
        """Return the same as it travels today."""
        vertices = [vertex for one in self.candidates[:1] for vertex in one.vertices[:1]]
        return m.Propose(
            factory_pubkey=self.factory_pubkey,
            attempt_id=self.attempt_id,
            terms_hash=self.terms_hash,
            terms=self.terms,
            client=self.client,
            factory_pubkeys=vertices[0].signers if vertices else (),
            candidates=tuple(one.today() for one in self.candidates),
        )


@dataclass(frozen=True, kw_only=True)
class OlderClaim:
    """What followed from a proposal under one candidate, as checkpoints had it."""

    join: m.Join
    propose: OlderPropose
    rung: int = 0


def decode_propose(data: bytes) -> OlderPropose:
    """Return a proposal that was journalled whole.

    Raises:
        MalformedBytes: If it is none.
    """
    if not data.startswith(_HEADER):
        raise MalformedBytes(f"a proposal was journalled, {data[: len(_HEADER)].hex()} was read")
    return decode_fields(OlderPropose, data[len(_HEADER) :])


def kept_of(propose: OlderPropose, join: KeptJoin) -> KeptProposal | None:
    """Return what is kept of a proposal that passed the checks, if it did: else it may be None.

    One that was refused says anything. It is never asked what follows from it.
    """
    try:
        return kept_proposal(claims_of(join, propose.today()))
    except (Refusal, ValueError, LookupError):
        return None
