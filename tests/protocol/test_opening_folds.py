"""A ceremony as it is remembered: each record follows the one before it, or the decision ends."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from tests.protocol.attacks import proposed
from tests.protocol.houses import spend_of, txid_of
from tests.protocol.ladders import funded
from tests.protocol.pump import Pump
from tests.protocol.test_first_commitments import EPHEMERAL

from cromford.bitcoin.tx import OutPoint, vsize_of
from cromford.channel.finished import finish_commitment
from cromford.channel.terms import COMMITMENT_WEIGHT
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import sweep_records as sw
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete, Received
from cromford.protocol.journal.client_opening_fold import with_client_opening
from cromford.protocol.journal.gathered import Build, build_of
from cromford.protocol.journal.joint_sweeps import JOINTS_KEPT_MAX, with_joint_sweep
from cromford.protocol.journal.lsp_attempt import Aborted, Funded, LspAttempt
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.opened import client_link, lsp_link
from cromford.protocol.journal.opening_fold import with_opening
from cromford.protocol.policy import LspPolicy
from cromford.watch.sweep import SWEEP_FEERATE_SAT_PER_KW
from cromford.watch.worth import least_balance_sat


@cache
def ceremony() -> tuple[ClientAttempt, list[Any], LspAttempt]:
    """Return a client's attempt with three candidates, its records of it, and the LSP's attempt."""
    pump = funded(Pump(2, policy=LspPolicy(min_clients=1)))
    client = pump.client_at(1)
    kinds = op.ClientOpeningRecord | op.SharedOpeningRecord
    records = [one for one in client.store.remembered if isinstance(one, kinds)]
    return pump.held(client), records, pump.attempt


def said(kind: type[Any]) -> Any:
    (record, *_) = [one for one in ceremony()[1] if isinstance(one, kind)]
    return record


def received() -> ClientAttempt:
    attempt, _, _ = ceremony()
    return replace(attempt, stage=Received(), other_stages=(), inputs=())


def after(attempt: ClientAttempt, *kinds: type[Any]) -> ClientAttempt:
    for kind in kinds:
        attempt = with_client_opening(attempt, said(kind))
    return attempt


STEPS: tuple[type[Any], ...] = (
    op.ProposalAccepted,
    op.BelowPartialsMade,
    op.ExitFinished,
    op.RootPartialMade,
    op.BranchCompleted,
)


def test_a_clients_records_lead_step_by_step_to_its_signed_branches() -> None:
    attempt, _, _ = ceremony()
    done = after(received(), *STEPS)
    assert isinstance(done.stage, Complete)
    assert (done.stage, done.other_stages) == (attempt.stage, attempt.other_stages)
    assert done.inputs == attempt.inputs


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((op.ProposalAccepted, op.ProposalAccepted), "a proposal was accepted twice"),
        ((op.ProposalAccepted, op.RootPartialMade), "the root was signed without holding an exit"),
        (STEPS[:3] + STEPS[4:], "a branch was completed before its root was sent"),
    ],
)
def test_a_record_of_a_ceremony_out_of_its_order_ends_the_decision(
    steps: tuple[type[Any], ...], why: str
) -> None:
    with pytest.raises(AssertionError, match=why):
        after(received(), *steps)


def test_a_proposal_of_which_nothing_was_kept_is_never_accepted() -> None:
    """In older journals it is kept as it is received, and today as it is accepted."""
    record = said(op.ProposalAccepted)
    bare = type(record)(attempt_id=record.attempt_id, inputs=record.inputs)
    with pytest.raises(AssertionError, match="of which nothing was kept"):
        with_client_opening(received(), bare)
    older = replace(received(), stage=Received(kept=record.kept))
    assert with_client_opening(older, bare).candidates == after(received(), STEPS[0]).candidates


def test_what_ends_a_wait_is_over_once_the_funding_is_there_all_the_same() -> None:
    attempt_id = received().attempt_id
    given_up = with_client_opening(
        after(received(), *STEPS[:4]), op.WaitGivenUp(attempt_id=attempt_id)
    )
    assert (given_up.given_up, given_up.is_open) == (True, False)
    late = after(given_up, op.BranchCompleted)
    assert (late.given_up, late.is_open) == (False, True), "the LSP funds it after all"
    aborted = with_client_opening(
        late, op.AttemptAborted(attempt_id=attempt_id, reason="why", culprits=())
    )
    assert aborted.aborted == "why"
    ready = with_client_opening(aborted, op.ReadySent(attempt_id=attempt_id, rung=2))
    assert (ready.ready_sent, ready.aborted, ready.given_up, ready.rung) == (True, None, False, 2)
    both = with_client_opening(ready, op.ReadyReceived(attempt_id=attempt_id, node_id=b"", rung=2))
    assert (both.ready_received, both.is_ready_on_both_sides) == (True, True)


def test_whom_an_lsp_found_ready_is_known_of_the_candidate_that_it_is_ready_in() -> None:
    _, _, lsp = ceremony()
    told = op.ReadyReceived(attempt_id=lsp.attempt_id, node_id=b"n", rung=1)
    after_it = with_opening(lsp, told)
    ready = [one.stage.ready_received for one in after_it.ladder if isinstance(one.stage, Funded)]
    assert ready == [frozenset(), frozenset({b"n"}), frozenset()]
    sent = with_opening(lsp, op.ReadySent(attempt_id=lsp.attempt_id, rung=1))
    assert (sent.rung, sent.is_pinned) == (1, True)
    died = with_opening(lsp, op.FundingDied(attempt_id=lsp.attempt_id))
    assert isinstance(died.stage, Funded)
    assert died.stage.is_dead
    aborted = with_opening(
        lsp, op.AttemptAborted(attempt_id=lsp.attempt_id, reason="why", culprits=(b"n",))
    )
    assert (aborted.stage, aborted.others) == (Aborted(reason="why", culprits=(b"n",)), ())
    with pytest.raises(AssertionError, match="Aborted where Funded was expected"):
        with_opening(aborted, op.FundingDied(attempt_id=lsp.attempt_id))


# The channels that come of it


def test_both_sides_know_the_same_channel_and_only_what_is_signed_is_one() -> None:
    client, _, lsp = ceremony()
    ours, theirs = client_link(client), lsp_link(lsp, client.client, is_marked=False)
    assert ours.setting.channel_id == theirs.channel_id
    assert ours.path == theirs.path
    assert (ours.client, theirs.client, ours.mark) == (client.client, client.client, None)
    assert (theirs.key.channel, ours.key.channel) == (client.client, 0)
    assert client_link(replace(client, is_marked=True)).mark == StoreMark()
    assert lsp_link(lsp, client.client, is_marked=True).mark == StoreMark()
    others = lsp_link(lsp, 3 - client.client, is_marked=False)
    assert others.signature != theirs.signature
    assert others.node_id == lsp.seats[2 - client.client].node_id
    for link in (ours, theirs, others):
        finish_commitment(link.finished.commitment, signature=link.signature)
    with pytest.raises(ValueError, match="is not complete"):
        client_link(after(received(), *STEPS[:4]))
    with pytest.raises(ValueError, match="not every commitment is signed"):
        lsp_link(replace(lsp, stage=Aborted(reason="")), 1, is_marked=False)


def test_what_is_not_worth_an_exit_is_what_nobody_would_sweep() -> None:
    link = client_link(ceremony()[0])
    terms = link.setting.terms
    assert not terms.is_zero_fee
    assert link.exit_cost_sat == least_balance_sat(terms) - 1


def test_who_pays_for_every_transaction_of_an_exit_leaves_for_no_less_than_all_of_them_cost() -> (
    None
):
    """Of these none pays a fee itself. The commitment is the last of them."""
    pump = proposed(2, policy=EPHEMERAL)
    pump.run()
    attempt = pump.held(pump.client_at(1))
    link = client_link(attempt)
    assert link.setting.terms.is_zero_fee
    vsizes = [node.vsize for node in attempt.branch.nodes]
    vsizes.append(vsize_of(COMMITMENT_WEIGHT))
    assert link.exit_cost_sat == -(-4 * sum(vsizes) * SWEEP_FEERATE_SAT_PER_KW // 1000)
    assert lsp_link(pump.attempt, 1, is_marked=False).exit_cost_sat == link.exit_cost_sat


# Builds


def test_a_build_that_waits_for_its_clients_has_no_keys_and_is_as_large_as_it_was_to_be() -> None:
    waiting = lr.RebuildAwaited(
        node_ids=(b"a", b"b"), min_clients=2, max_clients=9, feerates_sat_per_kw=(500, 700)
    )
    assert build_of(waiting) == Build(
        attempt=None,
        node_ids=(b"a", b"b"),
        reasons=(),
        capacity_sat=(),
        min_clients=2,
        max_clients=9,
        feerates_sat_per_kw=(500, 700),
    )


# Sweeps of several factories


def test_the_newest_joint_sweeps_are_known_and_which_were_parted() -> None:
    known: Any = {}
    txids = []
    for n in range(JOINTS_KEPT_MAX + 2):
        tx = spend_of(OutPoint(txid=txid_of(n), vout=0))
        txids.append(tx.txid)
        record = sw.JointSweepWasSigned(
            tx=tx.serialize(),
            factories=(2, 1, 2),
            attempt_ids=(),
            outputs=(),
            fee_sat=n,
            since_height=n,
        )
        known = with_joint_sweep(known, record)
    assert [*known] == txids[2:]
    assert known[txids[2]].factories == (2, 1)
    parted = with_joint_sweep(known, sw.JointSweepParted(txid=bytes(txids[2]), reason=""))
    assert [one.is_parted for one in parted.values()] == [True] + [False] * (JOINTS_KEPT_MAX - 1)
    assert with_joint_sweep(known, sw.JointSweepParted(txid=bytes(txids[0]), reason="")) == known
