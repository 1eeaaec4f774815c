"""What an older version kept of a client's attempt, the whole proposal, is read as it is today."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.ladders import funded
from tests.protocol.pump import Pump

from cromford.codec.reader import MalformedBytes
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.client_attempt import Checked, ClientAttempt, Received
from cromford.protocol.journal.client_opening_fold import with_client_opening
from cromford.protocol.journal.client_state import ClientState, apply
from cromford.protocol.journal.kept import kept_join
from cromford.protocol.journal.older import (
    OlderCandidate,
    OlderClaim,
    OlderPropose,
    OlderVertex,
    decode_propose,
    kept_of,
)
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields, encode_fields

HEADER_SIZE: Final = 3  # A message's type, in two bytes, and the wire's version.
KEY: Final = b"\2" * 33


@cache
def ceremony() -> tuple[ClientState, m.Join, m.Propose, ClientAttempt]:
    """Return a client that joined, what it sent and got, and what became of it.

    Three clients in two leaves, and three candidates of their funding.
    """
    pump = Pump(3, policy=LspPolicy(min_clients=1))
    proposed: list[tuple[ClientState, m.Propose]] = []
    client = pump.clients[0]

    def note(_by: object, to: object, message: m.Message) -> tuple[m.Message, ...]:
        if to is client and isinstance(message, m.Propose):
            proposed.append((client.state, message))
        return (message,)

    with pump.tampering(note):
        funded(pump)
    ((before, propose),) = proposed
    return before, pump.sent(client, m.Join)[-1], propose, pump.held(client)


def older_propose() -> OlderPropose:
    """Return a proposal as it travelled once: each vertex with all of its signers."""
    _, _, propose, _ = ceremony()
    return OlderPropose(
        factory_pubkey=propose.factory_pubkey,
        attempt_id=propose.attempt_id,
        terms_hash=propose.terms_hash,
        terms=propose.terms,
        client=propose.client,
        candidates=tuple(
            OlderCandidate(
                funding_tx=one.funding_tx,
                vertices=tuple(
                    OlderVertex(
                        signers=propose.factory_pubkeys,
                        kickoff_tx=vertex.kickoff_tx,
                        state_tx=vertex.state_tx,
                    )
                    for vertex in one.vertices
                ),
                nonces=one.nonces,
                channel=one.channel,
                commitment_nonces=one.commitment_nonces,
            )
            for one in propose.candidates
        ),
    )


def journalled(propose: OlderPropose) -> bytes:
    """Return a proposal as it stands in an older journal."""
    header = m.encode_message(ceremony()[2])[:HEADER_SIZE]
    return header + encode_fields(propose)


def test_an_older_proposal_says_what_todays_does() -> None:
    _, _, propose, held = ceremony()
    older = decode_propose(journalled(older_propose()))
    assert older == older_propose()
    assert older.today() == propose
    kept = kept_of(older, held.join)
    assert kept == held.candidate.proposal


@pytest.mark.parametrize(
    "changes",
    [{"candidates": ()}, {"terms": b""}],
    ids=["nothing is proposed", "terms that are none"],
)
def test_of_an_older_proposal_that_was_refused_nothing_is_kept(changes: dict[str, Any]) -> None:
    _, _, _, held = ceremony()
    older = decode_propose(journalled(replace(older_propose(), **changes)))
    assert kept_of(older, held.join) is None
    first, *others = older_propose().candidates
    bare = replace(older, candidates=(replace(first, vertices=()), *others))
    for one in (replace(older, candidates=()), bare):
        assert one.today().factory_pubkeys == ()


def test_what_is_no_proposal_is_not_read_as_one() -> None:
    data = journalled(older_propose())
    for other in (data[HEADER_SIZE:], b"\0" + data[1:], data[: HEADER_SIZE - 1] + b"\xff"):
        with pytest.raises(MalformedBytes, match="a proposal was journalled"):
            decode_propose(other + data[HEADER_SIZE:])
    with pytest.raises(MalformedBytes):
        decode_propose(data[:-1])


def test_the_signers_of_an_older_vertex_are_the_lsp_and_as_many_clients_as_there_may_be() -> None:
    most = OlderVertex(signers=(KEY,) * (N_CLIENTS_MAX + 1), kickoff_tx=b"", state_tx=b"")
    assert decode_fields(OlderVertex, encode_fields(most)) == most
    more = replace(most, signers=(*most.signers, KEY))
    with pytest.raises((MalformedBytes, ValueError)):
        decode_fields(OlderVertex, encode_fields(more))


def test_an_older_proposal_is_received_as_todays_is() -> None:
    """What is kept of it stands by until it is accepted, by a record that says no more of it."""
    before, _, propose, held = ceremony()
    whole = apply(before, op.ProposalReceived(message=journalled(older_propose())))
    bare = apply(
        before,
        op.ProposalReceived(
            attempt_id=propose.attempt_id, client=propose.client, terms_hash=propose.terms_hash
        ),
    )
    (older,), (today,) = whole.attempts.values(), bare.attempts.values()
    assert older == replace(today, stage=Received(kept=held.candidate.proposal))
    assert (whole.joining, [*whole.attempts]) == (None, [propose.attempt_id])
    accepted = with_client_opening(
        older, op.ProposalAccepted(attempt_id=older.attempt_id, inputs=held.inputs)
    )
    assert [one.proposal for one in accepted.candidates] == [held.candidate.proposal] * 3
    assert accepted.candidates == held.candidates


# Checkpoints


def read_older(stage: Any, *, other_stages: tuple[Any, ...] = (), **held: Any) -> ClientAttempt:
    """Return an attempt that stood in an older checkpoint, as it is read."""
    read = ClientAttempt.older.read
    assert read is not None
    found = read(
        join=ceremony()[1],
        propose=older_propose(),
        stage=stage,
        other_stages=other_stages,
        **held,
    )
    assert isinstance(found, ClientAttempt)
    return found


def claim(rung: int) -> Any:
    """Return what was read of a candidate in an older checkpoint, where one of today's stands."""
    return OlderClaim(join=ceremony()[1], propose=older_propose(), rung=rung)


def test_an_older_attempt_has_the_candidates_that_it_had_each_in_its_place() -> None:
    _, join, propose, held = ceremony()
    found = read_older(
        Checked(candidate=claim(0)),
        other_stages=tuple(Checked(candidate=claim(rung)) for rung in (1, 2)),
        lsp_node_id=held.lsp_node_id,
        key_attempt=held.key_attempt,
        is_marked=True,
    )
    assert found.candidates == held.candidates
    assert [one.rung for one in found.candidates] == [0, 1, 2]
    assert (found.stage, len(found.other_stages)) == (Checked(candidate=held.candidates[0]), 2)
    assert found.join == kept_join(join)
    assert (found.attempt_id, found.client, found.terms_hash) == (
        propose.attempt_id,
        propose.client,
        propose.terms_hash,
    )
    assert (found.lsp_node_id, found.key_attempt, found.is_marked) == (
        held.lsp_node_id,
        held.key_attempt,
        True,
    )


def test_an_older_attempt_that_was_only_received_has_one_stage_with_all_candidates_in_it() -> None:
    _, _, _, held = ceremony()
    read = Received.older.read
    assert read is not None
    stages = [read(claim=claim(rung)) for rung in range(3)]
    assert stages == [Received(kept=held.candidate.proposal)] * 3
    found = read_older(stages[0], other_stages=tuple(stages[1:]), lsp_node_id=b"n", key_attempt=7)
    assert (found.stage, found.other_stages) == (stages[0], ())
    assert (found.is_checked, found.rung) == (False, 0)
