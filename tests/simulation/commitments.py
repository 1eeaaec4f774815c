"""What must be true of both first commitments before a factory is funded."""

from cromford.bitcoin.tx import TxOut
from cromford.channel.commitment import CommitmentOutputKind
from cromford.channel.held import HeldCommitment
from cromford.channel.terms import Party
from cromford.protocol.client_attempt import ClientAttempt
from cromford.protocol.lsp_attempt import LspAttempt
from cromford.regtest.kernel import check_scripts


def check_first_commitments(attempt: LspAttempt, client: int, held: ClientAttempt) -> None:
    """Check that each side holds its own, whole, and that everything in it is the LSP's."""
    assert attempt.setting(client) == held.setting, "both mean one channel"
    both = {Party.OPENER: attempt.first_held(client), Party.ACCEPTER: held.first_held}
    for party, own in both.items():
        content = own.commitment.content
        assert (content.holder, content.number) == (party, 0)
        assert own.tx.inputs[0].outpoint == held.branch.channel_outpoint
        check_spends(own, held.branch.channel.txout)
        check_all_is_the_lsps(own)


def check_spends(held: HeldCommitment, channel_output: TxOut) -> None:
    """Check that the kernel takes it: it spends the leaf's output that funds the channel."""
    check_scripts(held.tx, [channel_output])


def check_all_is_the_lsps(held: HeldCommitment) -> None:
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
