"""What records make of a client's ceremony: each candidate of a fee ladder takes the same steps."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from cromford.changed import changed
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.client_attempt import (
    BelowSent,
    Checked,
    ClientAttempt,
    Complete,
    HasExit,
    Received,
    RootSent,
    Stage,
)
from cromford.protocol.journal.client_candidate import ClientCandidate

Step = (
    op.ProposalAccepted
    | op.BelowPartialsMade
    | op.ExitFinished
    | op.RootPartialMade
    | op.BranchCompleted
    | op.WaitGivenUp
    | op.SharedOpeningRecord
)


def with_client_opening(attempt: ClientAttempt, record: Step) -> ClientAttempt:
    """Return an attempt after remembering one thing of its ceremony, or of its funding."""
    match record:
        case op.ProposalAccepted(inputs=inputs):
            return changed(attempt.with_stages(_checked(attempt, record)), inputs=inputs)
        case op.BelowPartialsMade():
            return attempt.with_stages(
                BelowSent(
                    candidate=candidate,
                    partial_sigs=own.partial_sigs,
                    commitment_partial_sig=own.commitment_partial_sig,
                    own_partial_sig=own.own_partial_sig,
                )
                for candidate, own in zip(attempt.candidates, record.of_each, strict=True)
            )
        case op.ExitFinished():
            return attempt.with_stages(
                HasExit(
                    candidate=candidate,
                    signatures=of_one.signatures,
                    commitment_signature=of_one.commitment_signature,
                )
                for candidate, of_one in zip(attempt.candidates, record.of_each, strict=True)
            )
        case op.RootPartialMade():
            partial_sigs = (record.partial_sig, *record.higher)
            return attempt.with_stages(_root_sent(attempt.ladder, partial_sigs))
        case op.BranchCompleted():
            signatures = (record.signature, *record.higher)
            # An LSP that was silent for too long may still fund it.
            complete = attempt.with_stages(_complete(attempt.ladder, signatures))
            return changed(complete, given_up=False)
        case op.AttemptAborted(reason=reason):
            return changed(attempt, aborted=reason)
        case op.WaitGivenUp():
            return changed(attempt, given_up=True)
        case op.ReadySent(rung=rung):
            # Whatever was said of it before, it is there.
            return changed(attempt.on_rung(rung), ready_sent=True, aborted=None, given_up=False)
        case op.ReadyReceived(rung=rung):
            return changed(attempt, ready_received=True, ready_rung=rung)
        case _:
            assert_never(record)


def _checked(attempt: ClientAttempt, record: op.ProposalAccepted) -> Iterator[Stage]:
    if not isinstance(attempt.stage, Received):
        raise AssertionError("a proposal was accepted twice")
    proposal = record.kept or attempt.stage.kept
    if proposal is None:
        raise AssertionError("a proposal was accepted of which nothing was kept")
    for rung in range(len(proposal.candidates)):
        yield Checked(candidate=ClientCandidate(join=attempt.join, proposal=proposal, rung=rung))


def _root_sent(stages: Iterable[Stage], partial_sigs: tuple[bytes, ...]) -> Iterator[Stage]:
    for stage, partial_sig in zip(stages, partial_sigs, strict=True):
        if not isinstance(stage, HasExit):
            raise AssertionError("the root was signed without holding an exit")
        yield RootSent(
            candidate=stage.candidate,
            signatures=stage.signatures,
            commitment_signature=stage.commitment_signature,
            partial_sig=partial_sig,
        )


def _complete(stages: Iterable[Stage], signatures: tuple[bytes, ...]) -> Iterator[Stage]:
    for stage, signature in zip(stages, signatures, strict=True):
        if not isinstance(stage, RootSent):
            raise AssertionError("a branch was completed before its root was sent")
        yield Complete(
            candidate=stage.candidate,
            signatures=stage.signatures,
            commitment_signature=stage.commitment_signature,
            root_signature=signature,
        )
