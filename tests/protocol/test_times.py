"""When it was: records carry the time they were remembered at, and entries of a book keep it."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import begin_payment, book, live_factory, make_invoice, pay
from tests.protocol.pump import Pump
from tests.simulation.sim_node import without_taken_mail

from cromford.changed import changed
from cromford.effects import InvoiceDeadline
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import records as r
from cromford.protocol.journal.completing import (
    completed_client,
    completed_factory,
    completed_house,
)
from cromford.protocol.journal.numbers import Numbers
from cromford.protocol.journal.records import (
    TIME_MAX,
    Dated,
    UnknownRecord,
    decode_dated,
    decode_record,
    encode_record,
)

NOW: Final = 1_764_432_000
STARTED: Final = r.Started()
DATED_HEX: Final = (
    "07"  # the version
    "0abb7e7e"  # the checksum of all the rest: CRC-32
    "00692b1880"  # the time, in seconds
    "91a773746172746564"  # an array of one: its name
)


def test_the_bytes_of_a_dated_record_stay_what_they_are() -> None:
    assert encode_record(STARTED, NOW).hex() == DATED_HEX
    assert decode_dated(bytes.fromhex(DATED_HEX)) == Dated(STARTED, NOW)
    assert decode_record(bytes.fromhex(DATED_HEX)) == STARTED


def test_what_an_older_version_wrote_has_no_known_time_and_the_same_bytes() -> None:
    undated = encode_record(STARTED)
    assert undated == encode_record(STARTED, r.UNKNOWN_TIME)
    assert undated[0] == r.RECORD_VERSION
    assert decode_dated(undated) == Dated(STARTED, r.UNKNOWN_TIME)
    assert decode_dated(encode_record(STARTED, TIME_MAX)).at == TIME_MAX


def test_a_flipped_bit_never_makes_another_record_or_another_time() -> None:
    whole = encode_record(STARTED, NOW)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnknownRecord):
            decode_dated(bytes(damaged))
    for size in range(len(whole)):
        with pytest.raises(UnknownRecord):
            decode_dated(whole[:size])


def at(pump: Pump, unix_time: int) -> None:
    """Set everybody's clock."""
    for node in (pump.lsp, *pump.clients):
        node.unix_time = unix_time


def test_everybody_knows_when_a_payment_began_and_when_it_was_settled() -> None:
    """By their own clocks, also over restarts: the live state is compared with each fold."""
    pump = live_factory(2, watches_folds=True)
    alice, bob = pump.clients
    at(pump, NOW)
    first = pay(pump, pump.lsp, alice, 30_000_000)
    assert (first.created_at, first.settled_at) == (NOW, NOW)
    (ordered,) = pump.lsp.state.house.payments.values()
    assert (ordered.created_at, ordered.settled_at) == (NOW, NOW)

    request = make_invoice(pump, bob, 5_000_000)
    pump.disconnect(bob)
    at(pump, NOW + 60)
    pump.handle(alice, request)
    pump.run()
    (held,) = book(pump.lsp).held.values()
    assert held.created_at == NOW + 60
    at(pump, NOW - 3600)  # The clocks were wrong, and are put back.
    pump.connect(bob)
    pump.run()
    paid = book(alice).payments[request.payment_hash]
    assert (paid.status, paid.created_at, paid.settled_at) == ("paid", NOW + 60, NOW - 3600)
    invoice = book(bob).invoices[request.payment_hash]
    assert (invoice.created_at, invoice.settled_at) == (NOW, NOW - 3600)
    (forward,) = book(pump.lsp).finished.values()
    assert (forward.created_at, forward.settled_at) == (NOW + 60, NOW - 3600)
    for node in (pump.lsp, alice, bob):
        restarted = without_taken_mail(node.restarted_state())
        assert restarted == without_taken_mail(node.durable_state())


def test_an_invoice_that_expires_says_when() -> None:
    pump = live_factory(1, watches_folds=True)
    (alice,) = pump.clients
    at(pump, NOW)
    request = make_invoice(pump, alice, 5_000_000)
    at(pump, NOW + 7)
    pump.reach_deadline(alice, InvoiceDeadline(payment_hash=request.payment_hash))
    invoice = book(alice).invoices[request.payment_hash]
    assert (invoice.status, invoice.created_at, invoice.settled_at) == ("expired", NOW, NOW + 7)


def test_a_payment_that_is_begun_anew_has_the_time_of_its_newest_try() -> None:
    pump = live_factory(2, watches_folds=True)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    at(pump, NOW)
    request = make_invoice(pump, bob, 5_000_000)
    wrong = replace(request, payment_secret=bytes(32))
    pump.handle(alice, wrong)
    pump.run()
    pump.pass_holds()
    failed = book(alice).payments[request.payment_hash]
    assert (failed.status, failed.created_at, failed.settled_at) == ("failed", NOW, NOW)
    at(pump, NOW + 5)
    pump.handle(alice, request)
    pump.run()
    paid = book(alice).payments[request.payment_hash]
    assert (paid.status, paid.created_at, paid.settled_at) == ("paid", NOW + 5, NOW + 5)
    numbers = book(alice).numbers
    assert numbers.hashes[failed.number] == numbers.hashes[paid.number] == request.payment_hash
    assert dict(numbers.again) == {failed.number: paid.number}


def test_without_a_clock_nothing_has_a_time() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    paid = pay(pump, alice, bob, 5_000_000)
    assert (paid.created_at, paid.settled_at) == (0, 0)


def test_an_external_id_is_of_one_invoice() -> None:
    pump = live_factory(1, watches_folds=True)
    (alice,) = pump.clients
    request = ev.InvoiceRequested(
        preimage=bytes(31) + b"1",
        payment_secret=bytes(32),
        amount_msat=1_000_000,
        description="two coffees",
        expires_at=NOW,
        expiry_seconds=60,
        text="invoice",
        label="table 7",
        external_id="order-12",
    )
    pump.handle(alice, request)
    (invoice,) = book(alice).invoices.values()
    assert (invoice.label, invoice.external_id) == ("table 7", "order-12")
    assert dict(book(alice).external_ids) == {"order-12": invoice.payment_hash}
    again = replace(request, preimage=bytes(31) + b"2")
    with pytest.raises(Rejected, match="external_id: expected one of no other invoice") as caught:
        client_role.decide(alice.state, again)
    assert caught.value.code == "external_id_taken"
    pump.handle(alice, replace(again, external_id=""))
    assert len(book(alice).invoices) == 2


def test_a_label_is_in_no_message() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    seen: list[object] = []
    tamper = pump.tamper

    def listen(sender: object, receiver: object, message: object) -> object:
        seen.append(message)
        return tamper(sender, receiver, message)  # type: ignore[arg-type]  # as it was given

    request = replace(make_invoice(pump, bob, 5_000_000), label="for nobody else")
    with pump.tampering(listen):  # type: ignore[arg-type]  # it takes any message
        pump.handle(alice, request)
        pump.run()
    assert book(alice).payments[request.payment_hash].label == "for nobody else"
    assert seen
    assert "for nobody else" not in repr(seen)


def test_what_an_older_version_wrote_is_found_by_number() -> None:
    pump = live_factory(2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    begin_payment(pump, alice, bob, 5_000_000)
    without = changed(alice.state, book=changed(book(alice), numbers=Numbers()))
    assert completed_client(without).book.numbers == book(alice).numbers
    factory = pump.factory
    bare = changed(factory, book=changed(factory.book, numbers=Numbers()))
    assert completed_factory(bare).book.numbers == factory.book.numbers
    house = pump.lsp.state.house
    assert completed_house(changed(house, numbers=Numbers())).numbers == house.numbers
