"""What records make of an LSP's ceremony: each candidate of a fee ladder takes the same steps."""

from typing import TypeVar, assert_never

from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.factory.terms import decode_terms
from cromford.protocol.journal import mail
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.encoding import decoded_join, decoded_pool
from cromford.protocol.journal.lsp_attempt import (
    Aborted,
    Acknowledging,
    Funded,
    LspAttempt,
    LspRung,
    SigningBelow,
    SigningRoot,
    Stage,
)
from cromford.protocol.journal.lsp_blueprint import LspBlueprint, LspSeat
from cromford.protocol.journal.lsp_candidate import LspCandidate, SignaturesBelow, SignedCandidate
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields

StageT = TypeVar("StageT")


def ordered_attempt(order: mail.Ordered) -> LspAttempt:
    """Return an attempt as it begins: nothing of any candidate is signed."""
    first, *higher = candidates_of(order)
    return LspAttempt(
        attempt_id=order.attempt_id,
        key_attempt=order.attempt,
        blueprint=first.blueprint,
        reasons=tuple(seat.reason for seat in order.seats),
        stage=SigningBelow(candidate=first),
        others=tuple(
            LspRung(blueprint=one.blueprint, stage=SigningBelow(candidate=one)) for one in higher
        ),
    )


def candidates_of(order: mail.Ordered) -> tuple[LspCandidate, ...]:
    """Return what a proposal is signed with, each candidate of its ladder; blueprints stay."""
    joins = tuple(decoded_join(seat.join) for seat in order.seats)
    factory_pool = decoded_pool(order.lsp_factory_pool)
    terms = decode_terms(order.terms)
    return tuple(
        LspCandidate(
            blueprint=LspBlueprint(
                terms=terms,
                seats=tuple(
                    LspSeat(
                        node_id=seat.node_id,
                        factory_pubkey=join.factory_pool.pubkey,
                        channel=join.candidates[rung].channel,
                        payout_script=join.payout_script,
                    )
                    for seat, join in zip(order.seats, joins, strict=True)
                ),
                lsp_factory_pubkey=factory_pool.pubkey,
                channels=tuple(decode_fields(m.ChannelOffer, data) for data in own.lsp_channels),
                funding_tx=Tx.parse(own.funding_tx),
                rung=rung,
            ),
            joins=joins,
            factory_pool=factory_pool,
            channel_pools=tuple(decoded_pool(data) for data in own.lsp_channel_pools),
        )
        for rung, own in enumerate(order.of_each)
    )


def with_opening(
    attempt: LspAttempt, record: op.SharedOpeningRecord | op.LspOpeningRecord
) -> LspAttempt:
    """Return an attempt after remembering one thing of its ceremony, or of its funding."""
    match record:
        case op.BelowPartialsReceived():
            return attempt.with_stages(
                _with_halves(stage_of(one, SigningBelow), record.client, given)
                for one, given in zip(attempt.ladder, record.of_each, strict=True)
            )
        case op.RootPartialReceived(client=client):
            roots = [stage_of(one, SigningRoot) for one in attempt.ladder]
            given = (record.partial_sig, *record.higher)
            return attempt.with_stages(
                changed(root, partial_sigs={**root.partial_sigs, client: partial_sig})
                for root, partial_sig in zip(roots, given, strict=True)
            )
        case op.BelowSigned():
            return attempt.with_stages(
                _finished_below(one, finished)
                for one, finished in zip(attempt.ladder, record.of_each, strict=True)
            )
        case op.RootSigned():
            signatures = (record.signature, *record.higher)
            return attempt.with_stages(
                _acknowledging(stage_of(one, SigningRoot), signature)
                for one, signature in zip(attempt.ladder, signatures, strict=True)
            )
        case op.Acknowledged(client=client):
            signed = stage_of(attempt, Acknowledging)
            return changed(attempt, stage=changed(signed, done=signed.done | {client}))
        case op.FundingWasSigned():
            return attempt.with_stages(
                Funded(signed=stage_of(one, Acknowledging).signed, funding_tx=Tx.parse(tx))
                for one, tx in zip(attempt.ladder, (record.tx, *record.higher), strict=True)
            )
        case op.ReadySent(rung=rung):
            pinned = attempt.on_rung(rung)
            return changed(pinned, stage=changed(stage_of(pinned, Funded), ready_sent=True))
        case op.ReadyReceived(node_id=node_id, rung=rung):
            return attempt.with_stages(
                _with_ready(one, node_id) if one.blueprint.rung == rung else one.stage
                for one in attempt.ladder
            )
        case op.FundingDied():
            return changed(attempt, stage=changed(stage_of(attempt, Funded), is_dead=True))
        case op.AttemptAborted():
            stage = Aborted(reason=record.reason, culprits=record.culprits)
            return changed(attempt, stage=stage, others=())
        case _:
            assert_never(record)


def stage_of(of: LspAttempt | LspRung, kind: type[StageT]) -> StageT:
    """Return the stage of an attempt, or of one candidate of it.

    Raises:
        AssertionError: If it is of another kind.
    """
    if not isinstance(of.stage, kind):
        raise AssertionError(f"{type(of.stage).__name__} where {kind.__name__} was expected")
    return of.stage


def _with_halves(
    below: SigningBelow, client: int, given: op.BelowPartialsReceived | op.GivenHalves
) -> Stage:
    half = given.commitment_partial_sig
    return SigningBelow(
        candidate=below.candidate,
        partial_sigs={**below.partial_sigs, client: given.partial_sigs},
        commitment_partial_sigs={**below.commitment_partial_sigs, client: half},
    )


def _finished_below(one: LspRung, finished: op.BelowSigned | op.FinishedBelow) -> Stage:
    below = SignaturesBelow(
        blueprint=one.blueprint,
        signatures=finished.signatures,
        commitment_signatures=finished.commitment_signatures,
        commitment_partial_sigs=finished.commitment_partial_sigs,
    )
    return SigningRoot(before=stage_of(one, SigningBelow), below=below)


def _acknowledging(root: SigningRoot, signature: bytes) -> Stage:
    signed = SignedCandidate(below=root.below, root_signature=signature)
    return Acknowledging(before=root, signed=signed)


def _with_ready(one: LspRung, node_id: bytes) -> Stage:
    funded = stage_of(one, Funded)
    return changed(funded, ready_received=funded.ready_received | {node_id})
