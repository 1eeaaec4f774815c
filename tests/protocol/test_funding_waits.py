"""Funding waits for every signature and acknowledgement; channel_ready for an exit in time."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import PHASES, acknowledged, confirm, nothing, only_from, proposed
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

# Funding waits for everything


@pytest.mark.parametrize("phase", ["proposing", "signing below", "signing the root"])
def test_an_early_acknowledgement_counts_for_nothing(phase: str) -> None:
    pump = proposed()
    pump.run_to(PHASES[phase])
    attempt = pump.attempt
    early = m.Acknowledge(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    for client in pump.clients:
        pump.tell(pump.lsp, client, early)
    assert not acknowledged(pump.attempt)
    assert not pump.wishes(pump.lsp, fx.SignFunding)
    pump.run()
    assert pump.is_funded(), "and the real ones count later"


def test_one_client_cannot_acknowledge_for_another() -> None:
    pump = Pump(4)
    stranger = pump.clients[3]
    pump.join(*pump.clients[:3])
    pump.build()
    victim = pump.client_at(3)
    with pump.tampering(only_from(victim, nothing, m.Acknowledge)):
        pump.run()
    attempt = pump.attempt
    again = m.Acknowledge(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    for sender in (pump.client_at(1), pump.client_at(1), pump.client_at(2), stranger):
        pump.tell(pump.lsp, sender, again)
    assert acknowledged(pump.attempt) == {1, 2}
    assert not pump.wishes(pump.lsp, fx.SignFunding)
    assert not pump.is_funded()


def test_an_acknowledgement_after_the_abort_does_not_fund() -> None:
    pump = proposed()
    victim = pump.client_at(3)
    with pump.tampering(only_from(victim, nothing, m.Acknowledge)):
        pump.run()
    attempt = pump.attempt
    pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=attempt.attempt_id))
    late = m.Acknowledge(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    pump.tell(pump.lsp, victim, late)
    assert not any(
        effect.attempt_id == attempt.attempt_id for effect in pump.wishes(pump.lsp, fx.SignFunding)
    )


def test_the_lsp_signs_no_funding_of_which_it_lacks_a_coin() -> None:
    """A reorg took the coin away while the ceremony ran: the attempt ends, the daemon does not."""
    pump = proposed()
    pump.run_to(m.Acknowledge)
    for height in range(pump.lsp.state.chain.height, -1, -1):
        pump.handle(pump.lsp, ev.BlockRemoved(height=height))
    attempt_id = pump.attempt.attempt_id
    pump.run()
    assert not pump.wishes(pump.lsp, fx.SignFunding)
    pump.restart(pump.lsp)
    pump.run()
    assert not pump.wishes(pump.lsp, fx.SignFunding)
    pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=attempt_id))
    assert pump.lsp.state.attempts[attempt_id].aborted is not None


# channel_ready


def ready(pump: Pump, client: PumpNode) -> list[m.ChannelReady]:
    return pump.sent(client, m.ChannelReady)


@pytest.mark.parametrize("kind", [m.Propose, m.SignBelow, m.SignedBelow, m.SignRoot, m.SignedRoot])
def test_a_client_without_its_whole_branch_is_never_ready(kind: type) -> None:
    """The LSP funds behind its back, at any point; nothing in there is the client's yet."""
    pump = proposed()
    pump.run_to(kind)
    victim = pump.client_at(2)
    funding_tx = pump.attempt.funding_tx
    pump.wire.clear()
    confirm(pump, victim, funding_tx)
    assert ready(pump, victim) == []


def test_a_client_is_ready_at_the_agreed_depth_and_no_sooner() -> None:
    pump = proposed()
    pump.run()
    min_depth = pump.attempt.terms.min_depth
    pump.mine(min_depth - 1)
    assert not any(ready(pump, client) for client in pump.clients)
    pump.mine()
    assert all(len(ready(pump, client)) == 1 for client in pump.clients)


def test_another_transaction_of_the_same_outputs_makes_nobody_ready() -> None:
    """The LSP funds the factory's very script and amount, under another txid."""
    pump = proposed()
    pump.run()
    victim = pump.client_at(2)
    agreed = pump.held(victim).funding_tx
    other = replace(agreed, inputs=(replace(agreed.inputs[0], nsequence=0),))
    assert other.outputs == agreed.outputs
    confirm(pump, victim, other)
    assert ready(pump, victim) == []


BRIEF: Final = LspPolicy(min_clients=1, active_blocks=150, ready_min_blocks=140, dying_blocks=144)


@pytest.mark.parametrize(("late", "is_ready"), [(0, True), (1, False)])
def test_a_funding_that_confirms_too_late_makes_nobody_ready(late: int, *, is_ready: bool) -> None:
    pump = proposed(policy=BRIEF)
    pump.run()
    victim = pump.client_at(2)
    held = pump.held(victim)
    last = held.branch.ready_height_max
    assert last < held.terms.build_height + held.terms.patience_blocks
    while victim.state.chain.height < last - 1 + late:
        height = victim.state.chain.height + 1
        block_hash = pump.chain.blocks[0][0]
        pump.handle(victim, ev.BlockAdded(height=height, block_hash=block_hash, txs=()))
    confirm(pump, victim, held.funding_tx)
    assert bool(ready(pump, victim)) is is_ready
    assert pump.held(victim).given_up is not is_ready


def test_a_reorg_before_the_depth_starts_the_count_again() -> None:
    pump = proposed()
    pump.run()
    victim = pump.client_at(2)
    funding_tx = pump.held(victim).funding_tx
    confirm(pump, victim, funding_tx, depth=2)
    for _ in range(2):
        pump.handle(victim, ev.BlockRemoved(height=victim.state.chain.height))
    confirm(pump, victim, funding_tx, depth=2)
    assert ready(pump, victim) == []
    confirm(pump, victim, funding_tx, depth=1)
    assert len(ready(pump, victim)) <= 1


@pytest.mark.parametrize(("capacity_sat", "depth"), [(9_999_999, 3), (10_000_000, 6)])
def test_an_lsp_buries_a_large_factory_as_deep_as_its_clients_ask_for(
    capacity_sat: int, depth: int
) -> None:
    pump = Pump(1, policy=LspPolicy(min_clients=1))
    client = pump.clients[0]
    wish = ev.JoinRequested(capacity_sat=capacity_sat, capacity_least_sat=capacity_sat)
    pump.handle(client, wish)
    pump.run()
    pump.build()
    pump.run()
    assert pump.is_funded()
    pump.mine(depth - 1)
    assert not pump.sent(client, m.ChannelReady)
    pump.mine()
    assert pump.sent(client, m.ChannelReady)
