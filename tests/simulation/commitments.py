"""What must be true of both first commitments before a factory is funded."""

from collections.abc import Iterable

from cromford.bitcoin.tx import TxOut
from cromford.channel.commitment import CommitmentOutputKind
from cromford.channel.finished import FinishedCommitment, finish_commitment
from cromford.channel.terms import Party
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete, HasExit, RootSent
from cromford.protocol.journal.lsp_attempt import LspAttempt, SigningRoot
from cromford.protocol.journal.lsp_candidate import LspCandidate
from cromford.protocol.journal.mail import Ordered
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.opening_fold import candidates_of
from cromford.protocol.journal.opening_records import Acknowledged
from cromford.protocol.journal.records import AnyRecord
from cromford.regtest.kernel import check_scripts


def acknowledged(journal: Iterable[AnyRecord], attempt_id: bytes) -> set[int]:
    """Return the clients whose acknowledgement an LSP's journal holds; a factory forgets them."""
    return {
        record.client
        for record in journal
        if isinstance(record, Acknowledged) and record.attempt_id == attempt_id
    }


def signed_with(journal: Iterable[AnyRecord], attempt_id: bytes) -> LspCandidate:
    """Return the pools an attempt was proposed with, by an LSP's journal; the fold forgets them."""
    for record in journal:
        order = record.mail if isinstance(record, MailTaken) else None
        if isinstance(order, Ordered) and order.attempt_id == attempt_id:
            return candidates_of(order)[0]
    raise AssertionError("never proposed")


def lsp_first_commitment(attempt: LspAttempt, client: int) -> FinishedCommitment:
    """Return the LSP's first commitment with a client, finished; raises unless it is valid."""
    below = attempt.stage.below if isinstance(attempt.stage, SigningRoot) else None
    if below is None and attempt.signed is not None:
        below = attempt.signed.below
    assert below is not None, "not signed yet"
    commitment = attempt.blueprint.first_commitments[client, Party.OPENER]
    return finish_commitment(commitment, signature=below.commitment_signatures[client - 1])


def client_first_commitment(held: ClientAttempt) -> FinishedCommitment:
    """Return the client's own first commitment, finished; raises unless it is valid."""
    assert isinstance(held.stage, HasExit | RootSent | Complete), "not signed yet"
    commitment = held.candidate.setting.first_commitment(Party.ACCEPTER)
    return finish_commitment(commitment, signature=held.stage.commitment_signature)


def check_first_commitments(attempt: LspAttempt, client: int, held: ClientAttempt) -> None:
    """Check that each side holds its own, whole, and that everything in it is the LSP's."""
    assert attempt.setting(client) == held.setting, "both mean one channel"
    both = {
        Party.OPENER: lsp_first_commitment(attempt, client),
        Party.ACCEPTER: client_first_commitment(held),
    }
    for party, own in both.items():
        content = own.commitment.content
        assert (content.holder, content.number) == (party, 0)
        assert own.tx.inputs[0].outpoint == held.branch.channel_outpoint
        check_spends(own, held.branch.channel.txout)
        check_all_is_the_lsps(own)


def check_spends(held: FinishedCommitment, channel_output: TxOut) -> None:
    """Check that the kernel takes it: it spends the leaf's output that funds the channel."""
    check_scripts(held.tx, [channel_output])


def check_all_is_the_lsps(held: FinishedCommitment) -> None:
    """Check that a commitment pays the LSP everything but its fee and its anchor."""
    commitment = held.commitment
    holds_it = commitment.content.holder is Party.OPENER
    cost_sat = commitment.terms.commitment_fee_sat(n_htlc_outputs=0)
    anchor_sat = commitment.terms.paid_anchor_sat
    assert {output.kind: output.amount_sat for output in commitment.outputs} == {
        CommitmentOutputKind.TO_HOLDER if holds_it else CommitmentOutputKind.TO_PEER: (
            commitment.funding.capacity_sat - cost_sat - anchor_sat
        ),
        CommitmentOutputKind.ANCHOR: anchor_sat,
    }
    assert held.tx.outputs == tuple(output.txout for output in commitment.outputs)
