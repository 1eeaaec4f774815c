"""Every deadline, and what becomes of it when the process that set it dies.

What matters ends at a height, which a restart cannot forget. What hangs on a connection ends with
it, and the timer begins again with the next.
"""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import book, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_exit_guards import show_blocks
from tests.protocol.test_leaving import mute
from tests.protocol.unanswered import FIRST_MSAT

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.channels.client import invoice_deadlines
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.client_attempt import RootSent
from cromford.protocol.journal.lsp_attempt import Acknowledging
from cromford.protocol.lsp import resume
from cromford.wire import messages as m


def left_without_root(pump: Pump) -> PumpNode:
    """Let a client sign the root, hear nothing more, and start again without its LSP."""
    pump.join()
    client = pump.clients[0]
    with pump.tampering(mute(pump.lsp, client, m.SignedRoot)):
        pump.build()
        pump.run()
    pump.parting.add(client.name)
    pump.restart(client)
    assert isinstance(pump.held(client).stage, RootSent)
    assert pump.held(client).is_open
    assert pump.deadlines_of(fx.AttemptDeadline)[0][0] is pump.lsp, "the client's is forgotten"
    return client


@pytest.mark.parametrize("funding", ["never comes", "confirms all the same"])
def test_an_attempt_whose_root_never_came_ends_at_a_height(funding: str) -> None:
    pump = Pump(2)
    client = left_without_root(pump)
    terms = pump.held(client).terms
    txs: tuple[Tx, ...] = ()
    if funding == "confirms all the same":
        txs = (pump.held(client).funding_tx,)
    last = terms.build_height + 143
    show_blocks(pump, client, until=client.state.chain.height + 1, txs=txs)
    show_blocks(pump, client, until=last)
    assert pump.held(client).is_open
    show_blocks(pump, client, until=last + 1)
    assert pump.held(client).given_up
    assert client.state.open_attempt is None
    pump.handle(client, ev.LeaveRequested())
    pump.handle(client, ev.JoinRequested(capacity_sat=60_000, capacity_least_sat=60_000))
    assert client.state.wish is not None
    # Nothing was forgotten: the exit below the root is still held.
    assert isinstance(pump.held(client).stage, RootSent)


def test_an_attempt_that_waits_for_acknowledgements_ends_at_a_height() -> None:
    pump = Pump(2)
    pump.join()
    silent = pump.clients[0]
    with pump.tampering(mute(silent, pump.lsp, m.Acknowledge)):
        pump.build()
        pump.run()
        for _ in range(3):
            pump.restart(pump.lsp)
            pump.run()
        assert isinstance(pump.attempt.stage, Acknowledging)
        pump.deadlines.clear()
        last = pump.attempt.terms.build_height + 143
        pump.mine(last - pump.chain.height)
        assert pump.attempt.is_open
        assert pump.lsp.state.wallet.reserved
        pump.mine()
    number = pump.attempt.client_of(silent.node_id)
    assert pump.attempt.aborted == f"deadline in acknowledging: no answer from clients [{number}]"
    assert not pump.lsp.state.wallet.reserved, "its coins are free again"
    assert not pump.is_funded()


def test_an_lsp_that_restarted_sets_the_deadline_of_its_last_step_again() -> None:
    pump = Pump(2)
    pump.join()
    with pump.tampering(mute(pump.clients[0], pump.lsp, m.Acknowledge)):
        pump.build()
        pump.run()
    deadline = fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)
    pump.restart(pump.lsp)
    assert pump.deadlines[pump.lsp.name, deadline] == 3 * pump.policy.deadline_seconds
    assert fx.SetDeadline(deadline=deadline, seconds=60) in resume(pump.lsp.state)


@pytest.mark.parametrize("message", [m.SignBelow, m.SignRoot])
def test_an_earlier_step_of_a_ceremony_ends_with_the_process(message: type[m.Message]) -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run_to(message)
    pump.restart(pump.lsp)
    assert pump.attempt.aborted == "the LSP restarted"
    assert pump.lsp.state.house.build is None, "a build that waits for its clients is over, too"
    pump.run()
    assert all(client.state.open_attempt is None for client in pump.clients)


def test_an_invoice_expires_at_its_time_whenever_its_payee_starts() -> None:
    pump = live_factory(2)
    bob = pump.clients[1]
    request = make_invoice(pump, bob, 1_000_000)
    for is_fresh in (True, False):
        (due,) = invoice_deadlines(bob.state, 3_000, is_fresh=is_fresh)
        assert due.seconds == 600
    (late,) = invoice_deadlines(bob.state, 3_600, is_fresh=True)
    assert late.seconds == 0
    pump.restart(bob)
    deadline = fx.InvoiceDeadline(payment_hash=request.payment_hash)
    assert (bob.name, deadline) in pump.deadlines


def test_a_clock_that_is_far_ahead_at_a_start_ends_no_invoice_for_good() -> None:
    """By such a clock the newest block is old: the chain is stale, until the clock is right."""
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, 1_000_000)
    expires_at = book(bob).invoices[request.payment_hash].expires_at
    key = (bob.name, fx.InvoiceDeadline(payment_hash=request.payment_hash))
    bob.facts_at = lambda _own_height: replace(FRESH, stale="the clock of this computer is off")
    bob.unix_time = expires_at + 1_000_000
    pump.parting.add(bob.name)
    pump.restart(bob)
    assert key not in pump.deadlines
    pump.parting.discard(bob.name)
    bob.facts_at = lambda _own_height: FRESH
    bob.unix_time = expires_at - 60
    pump.handle(bob, ev.FactsChanged())
    assert pump.deadlines[key] == 60, "set again by the clock that is right"
    pump.connect(bob)
    pump.handle(alice, request)
    pump.run()
    assert book(bob).invoices[request.payment_hash].status == "paid"


def test_an_invoice_whose_time_was_over_at_a_start_expires_once_the_chain_is_fresh() -> None:
    pump = live_factory(1)
    (alice,) = pump.clients
    request = make_invoice(pump, alice, 1_000_000)
    key = (alice.name, fx.InvoiceDeadline(payment_hash=request.payment_hash))
    alice.unix_time = book(alice).invoices[request.payment_hash].expires_at
    pump.deadlines.clear()
    pump.handle(alice, ev.FactsChanged())
    assert pump.deadlines[key] == 0
    pump.pass_deadline(alice, key[1])
    assert book(alice).invoices[request.payment_hash].status == "expired"


def test_a_signature_without_an_answer_is_waited_for_again_in_the_next_connection() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    deadline = fx.RevocationDeadline(channel_id=newest_link(alice).channel_id)
    with pump.tampering(mute(pump.lsp, alice, m.RevokeAndAck, m.CommitmentSigned)):
        pump.handle(alice, make_invoice(pump, bob, 1_000_000))
        pump.run()
        assert newest_link(alice).state.awaits_revocation
        pump.parting.add(alice.name)
        pump.restart(alice)
        assert (alice.name, deadline) not in pump.deadlines
        pump.parting.discard(alice.name)
        pump.connect(alice)
        pump.run()
    assert newest_link(alice).state.awaits_revocation
    assert pump.deadlines[alice.name, deadline] == 30
