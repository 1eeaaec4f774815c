"""Payments to somebody whose channel is full wait for room in it, and not for ever."""

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import NOT_DELIVERED

FIRST_MSAT = 30_000_000


@pytest.fixture
def pump() -> Pump:
    """Alice has money, and so has Carol; Bob is paid."""
    pump = live_factory(3)
    alice, _, carol = pump.clients
    for payer in (alice, carol):
        assert pay(pump, pump.lsp, payer, FIRST_MSAT).status == "paid"
    return pump


def run_without(pump: Pump, silent: PumpNode) -> None:
    """Deliver what everybody says but one client, and nothing of what it is told."""
    theirs = {silent.name, pump.lsp.name}
    while True:
        for letter in pump.wire:
            if {letter.sender.name, letter.receiver.name} != theirs:
                break
        else:
            return
        pump.wire.remove(letter)
        pump.tell(letter.receiver, letter.sender, letter.message)


def held_by_a_full_channel(pump: Pump, *payers: PumpNode) -> list[ev.PayRequested]:
    """Let some pay Bob, whose channel is full: his messages do not arrive."""
    bob = pump.clients[1]
    for _ in range(12):
        pump.handle(pump.lsp, make_invoice(pump, bob, 1_000_000))
    requests = [make_invoice(pump, bob, 1_000_000) for _ in payers]
    for payer, request in zip(payers, requests, strict=True):
        pump.handle(payer, request)
        run_without(pump, bob)
    assert len(book(pump.lsp).held) == len(payers)
    for held in book(pump.lsp).held.values():
        assert held.reason.startswith("the payee's channel cannot carry it: max_accepted_htlcs")
    return requests


def test_what_the_payees_channel_cannot_carry_is_given_back(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    (request,) = held_by_a_full_channel(pump, alice)
    pump.pass_holds()
    payment = book(alice).payments[request.payment_hash]
    assert (payment.status, payment.failure) == ("failed", NOT_DELIVERED.reason)
    assert book(bob).invoices[request.payment_hash].status == "open"


def test_what_waits_for_room_in_the_payees_channel_goes_on_as_soon_as_there_is(pump: Pump) -> None:
    """Who fills it for a moment stops nobody else's payments for a whole hold."""
    alice, bob, _ = pump.clients
    (request,) = held_by_a_full_channel(pump, alice)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert balance(bob).own_msat == 13_000_000
    assert not pump.deadlines_of(fx.HoldDeadline)
    assert not book(pump.lsp).held_for


def test_who_waited_longest_for_room_goes_on_first(pump: Pump) -> None:
    alice, bob, carol = pump.clients
    requests = held_by_a_full_channel(pump, alice, carol, alice)
    pump.run()
    paid_by = [book(bob).invoices[request.payment_hash].paid_by for request in requests]
    channel_id = newest_link(bob).channel_id
    assert paid_by == [(channel_id, 12), (channel_id, 13), (channel_id, 14)]


def test_what_waits_for_the_payee_to_have_less_goes_on_when_it_has_paid(pump: Pump) -> None:
    """Room is not only a matter of number: the LSP's side of the channel is used up."""
    alice, bob, carol = pump.clients
    room_msat = balance(bob).receivable_msat
    assert pay(pump, pump.lsp, bob, room_msat).status == "paid"
    request = make_invoice(pump, bob, 1_000_000)
    pump.handle(alice, request)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "pending"
    assert pay(pump, bob, carol, 2_000_000).status == "paid"
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert balance(bob).own_msat == room_msat - 2_000_000 - 3_000 + 1_000_000
