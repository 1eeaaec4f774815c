"""An exit that rests: nothing new is published, until waiting could lose something."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol import test_leaving as leaving
from tests.protocol.paying_clients import live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_neighbours_leave import ask_to_leave, pending_in
from tests.protocol.unanswered import mine_to, only_expiry

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import exit_records as xr

# An LSP that is told of an exit does not wait for ever: here it waits longer than the client.
PATIENT: Final = replace(leaving.QUICK, failed_channel_blocks=2_000)
EXPIRING: Final = replace(
    PATIENT, active_blocks=144, dying_blocks=144, ready_min_blocks=1, to_self_delay_client=5
)


def resting(pump: Pump, client: PumpNode) -> None:
    """Let a client begin to leave, and rest before anything is in a block."""
    ask_to_leave(pump, client)
    pump.handle(client, ev.ExitPauseRequested(attempt_id=newest_link(client).attempt_id))
    pump.run()
    pump.chain.mempool.clear()
    assert is_resting(client)


def is_resting(client: PumpNode) -> bool:
    (attempt,) = client.state.attempts.values()
    return bool(attempt.is_exiting and attempt.is_paused)


def reasons(client: PumpNode) -> list[str]:
    return [one.reason for one in client.store.remembered if isinstance(one, xr.ExitResumed)]


def n_published(pump: Pump, client: PumpNode) -> int:
    return len(pump.wishes(client, fx.Broadcast))


def test_nothing_is_published_while_it_rests_not_even_at_a_start() -> None:
    pump = live_factory(2, policy=PATIENT, watches_folds=True)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, 50_000_000).status == "paid"
    resting(pump, alice)
    before = n_published(pump, alice)
    pump.mine(20)
    pump.restart(alice)
    pump.run()
    assert n_published(pump, alice) == before
    with pytest.raises(KeyError):
        pay(pump, pump.lsp, alice, 1_000_000)  # Its channel is closed: nothing is ordered.
    ask_to_leave(pump, alice)
    assert reasons(alice) == ["the operator's wish"]
    assert n_published(pump, alice) > before


def test_it_ends_with_the_exit_deadline() -> None:
    pump = live_factory(2, policy=EXPIRING)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, 50_000_000).status == "paid"
    resting(pump, alice)
    deadline = newest_link(alice).exit_deadline_height
    mine_to(pump, deadline - 1)
    assert is_resting(alice)
    pump.mine()
    assert reasons(alice) == ["the exit deadline"]
    again = ev.ExitPauseRequested(attempt_id=newest_link(alice).attempt_id)
    with pytest.raises(Rejected, match="the exit cannot wait"):
        client_role.decide(alice.state, again, alice.facts)
    pump.mine(40)
    assert newest_link(alice).setting.funding.outpoint in alice.state.chain.spends


def test_it_ends_where_an_htlc_could_be_lost() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    link = pending_in(pump, alice)
    resting(pump, alice)
    mine_to(pump, only_expiry(link) - link.exit_blocks - 18 - 1)
    assert is_resting(alice)
    pump.mine()
    assert reasons(alice) == ["an HTLC expires"]


def test_whoever_does_not_leave_cannot_rest() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    for attempt_id, code in (
        (newest_link(alice).attempt_id, "not_exiting"),
        (bytes(32), "factory_not_found"),
    ):
        with pytest.raises(Rejected) as refused:
            client_role.decide(
                alice.state, ev.ExitPauseRequested(attempt_id=attempt_id), alice.facts
            )
        assert refused.value.code == code
    assert make_invoice(pump, alice, 1_000).amount_msat == 1_000


def test_a_state_whose_clock_runs_is_published_though_it_rests() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, 50_000_000).status == "paid"
    ask_to_leave(pump, alice)
    pump.mine()
    pump.handle(alice, ev.ExitPauseRequested(attempt_id=newest_link(alice).attempt_id))
    before = {wish.tx.txid for wish in pump.wishes(alice, fx.Broadcast)}
    pump.mine(40)
    (attempt,) = alice.state.attempts.values()
    state = attempt.signed_branch.txs[1]
    after = {wish.tx.txid for wish in pump.wishes(alice, fx.Broadcast)}
    assert after - before == {state.txid}
    assert is_resting(alice)
