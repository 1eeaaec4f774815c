"""Payments inside a factory: what arrives, what is refused, and what nobody can lose."""

import itertools

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)

from cromford.changed import changed
from cromford.channel.terms import Party
from cromford.protocol import client as client_role
from cromford.protocol.channels.forwarding import hold_deadline
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.mark import Restored


def test_the_lsp_pays_a_client_and_clients_pay_one_another() -> None:
    pump = live_factory(3, watches_folds=True)
    alice, bob, _ = pump.clients
    first = pay(pump, pump.lsp, alice, 30_000_000)
    assert first.status == "paid"
    assert balance(alice).own_msat == 30_000_000
    second = pay(pump, alice, bob, 7_000_000)
    assert second.status == "paid"
    fee_msat = 1000 + 7000
    assert second.fee_msat == fee_msat
    assert balance(alice).own_msat == 30_000_000 - 7_000_000 - fee_msat
    assert balance(bob).own_msat == 7_000_000
    assert book(pump.lsp).earned_msat == fee_msat
    for client in pump.clients:
        link = newest_link(client)
        other = lsp_link(pump, link)
        assert link.state.is_quiet
        assert other.state.is_quiet
        for party in Party:
            assert (link.state.opener_msat, link.state.accepter_msat) == (
                other.state.opener_msat,
                other.state.accepter_msat,
            ), party


def test_nobody_pays_its_own_invoice() -> None:
    pump = live_factory(2)
    alice, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, alice, 3_000_000)
    with pytest.raises(Rejected) as caught:
        client_role.decide(alice.state, request)
    assert caught.value.code == "own_invoice"
    assert str(caught.value).startswith(
        f"payee: expected another node, received this client's own {alice.node_id.hex()}"
    )
    pump.handle(alice, request)
    assert not book(alice).payments, "nothing is changed"


def test_a_store_that_was_put_back_pays_no_invoice_of_before() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 3_000_000, created_at=7)
    later = changed(alice.state, restored=Restored(is_unproven=True, since=6))
    assert client_role.decide(later, request).records
    restored = changed(alice.state, restored=Restored(is_unproven=True, since=7))
    with pytest.raises(Rejected, match=r"put back from a backup, at 7 \(unix time\), received"):
        client_role.decide(restored, request)


def test_an_invoice_is_paid_once_whatever_is_asked() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 3_000_000)
    for _ in range(2):
        pump.handle(alice, request)
    pump.run()
    pump.handle(alice, request)
    pump.run()
    assert balance(bob).own_msat == 3_000_000
    assert book(pump.lsp).n_finished == 1


def test_a_payment_waits_for_a_payee_that_comes_back_in_time() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 3_000_000)
    pump.disconnect(bob)
    pump.handle(alice, request)
    pump.run()
    (key,) = book(pump.lsp).held
    assert pump.deadlines[pump.lsp.name, hold_deadline(key)] == pump.policy.hold_seconds
    pump.connect(bob)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"


def test_a_payee_that_stays_away_costs_the_payer_a_bounded_wait() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 3_000_000)
    pump.disconnect(bob)
    pump.handle(alice, request)
    pump.run()
    (key,) = book(pump.lsp).held
    pump.pass_deadline(pump.lsp, hold_deadline(key))
    pump.run()
    failed = book(alice).payments[request.payment_hash]
    assert failed.failure == Failure.TEMPORARY_CHANNEL_FAILURE.reason
    assert balance(alice).own_msat == 30_000_000
    # One that failed may be tried again.
    pump.connect(bob)
    pump.handle(alice, request)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("killed", ["lsp", "payer", "payee"])
def test_a_process_killed_at_any_step_of_a_payment_delays_it_only(killed: str) -> None:
    """Between any two durable steps of every party, both legs end alike, and nothing is lost."""
    for fuse in itertools.count(1):
        pump = live_factory(2)
        alice, bob = pump.clients
        pay(pump, pump.lsp, alice, 30_000_000)
        node = {"lsp": pump.lsp, "payer": alice, "payee": bob}[killed]
        request = make_invoice(pump, bob, 3_000_000)
        node.fuse = fuse
        pump.handle(alice, request)
        pump.run()
        # A payer that died before it remembered anything asks again, as its operator would.
        pump.handle(alice, request)
        pump.run()
        assert book(alice).payments[request.payment_hash].status == "paid", fuse
        assert balance(bob).own_msat == 3_000_000, fuse
        assert book(pump.lsp).earned_msat == 4000, fuse
        if node.n_deaths == 0:
            assert fuse > 5
            return
