"""Payments to somebody whose channel is full wait for room in it, and not for ever."""

from typing import Any

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
from cromford.channel.messages import UpdateAdd
from cromford.protocol import events as ev
from cromford.protocol.channels import finish, forwarding
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.channels.payments import prepare_offer
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn

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


def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the amounts are noted that a payee's channel is asked to carry, in msat."""
    asked: list[int] = []

    def noted(turn: AnyTurn, link: Link, *, amount_msat: int, **about: Any) -> UpdateAdd:
        asked.append(amount_msat)
        return prepare_offer(turn, link, amount_msat=amount_msat, **about)

    monkeypatch.setattr(forwarding, "prepare_offer", noted)
    return asked


def hear_next_of(pump: Pump, client: PumpNode) -> None:
    """Deliver the next that a client says, and all that it was told before."""
    while True:
        letter = pump.wire.popleft()
        pump.tell(letter.receiver, letter.sender, letter.message)
        if letter.sender is client:
            return


def test_what_cannot_fit_is_not_asked_for_at_each_word_of_its_payee(
    pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each word would cost what all that waits does: a few clients could keep an LSP busy so."""
    alice, bob, carol = pump.clients
    requests = held_by_a_full_channel(pump, *([alice, carol] * 5))
    asked = asked_for(monkeypatch)
    for _ in range(2):  # A revocation, and a signature: nothing has left the channel yet.
        hear_next_of(pump, bob)
        assert not asked
    pump.run()
    assert all(book(bob).invoices[request.payment_hash].paid_by for request in requests)
    # Now there are places, and little room for amounts.
    room_msat = balance(bob).receivable_msat
    assert pay(pump, pump.lsp, bob, room_msat - 1_500_000).status == "paid"
    small, large = (make_invoice(pump, bob, amount) for amount in (1_000_000, 2_000_000))
    for payer, request in ((alice, large), (carol, large), (alice, small)):
        pump.handle(payer, request)
    pump.disconnect(bob)
    pump.run()
    pump.connect(bob)
    asked.clear()
    pump.run()
    assert set(asked) == {1_000_000}
    assert book(alice).payments[small.payment_hash].status == "paid"


def test_what_is_refused_again_and_again_is_not_asked_for_without_end(
    pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its amount it could fit: nobody knows why the channel refuses it before it is asked."""
    alice, bob, carol = pump.clients
    for _ in range(8):  # Of what has no output a channel carries 5,000 sat.
        pump.handle(pump.lsp, make_invoice(pump, bob, 600_000))
    for payer in [alice, carol] * 3:
        pump.handle(payer, make_invoice(pump, bob, 600_000))
        run_without(pump, bob)
    held = [*book(pump.lsp).held.values()]
    assert len(held) == 6
    assert all("max_dust_htlc_exposure_msat" in one.reason for one in held)
    monkeypatch.setattr(finish, "VAIN_MAX", 1)
    asked = asked_for(monkeypatch)
    hear_next_of(pump, bob)
    assert 0 < len(asked) < len(held), "in each decision one"
    pump.run()
    assert not book(pump.lsp).held
    assert balance(bob).own_msat == 14 * 600_000
