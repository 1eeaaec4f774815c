"""An HTLC that could not leave at once: when it leaves, its expiry is still far enough away."""

from dataclasses import replace
from typing import Final

from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode, Tamper
from tests.protocol.test_leaving import QUICK

from cromford import effects as fx
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal.book import AWAY
from cromford.wire import messages as m

FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 9_000_000


def silent_from(mute: PumpNode, heard_last: type[m.Message]) -> Tamper:
    """Return a tamper: from such a message to it on, a client says nothing about channels."""
    heard: list[bool] = []

    def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if to is mute and isinstance(message, heard_last):
            heard.append(True)
        return () if by is mute and heard and isinstance(message, m.ChannelMessage) else (message,)

    return tamper


def waiting_for_bob(pump: Pump) -> bytes:
    """Let Alice pay Bob while he owes the LSP a revocation; return the hash."""
    alice, bob, carol = pump.clients
    for client in (alice, bob):
        pay(pump, pump.lsp, client, FIRST_MSAT)
    refused = make_invoice(pump, carol, PAID_MSAT, payment_secret=bytes(32))
    request = make_invoice(pump, bob, PAID_MSAT)
    with pump.tampering(silent_from(bob, m.UpdateFailHtlc)):
        pump.handle(bob, refused)
        pump.run()
        pump.pass_holds()
        pump.handle(alice, request)
        pump.run()
    (live,) = lsp_link(pump, newest_link(bob)).unsent
    assert live.htlc.payment_hash == request.payment_hash
    return request.payment_hash


def test_an_htlc_that_could_not_leave_in_time_never_does_and_its_payer_has_it_back() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    payment_hash = waiting_for_bob(pump)
    pump.lsp.die()  # No connection ended, of which it could have heard.
    for client in pump.clients:
        pump.disconnect(client)
    pump.lsp.start()
    pump.connect(alice)
    pump.run()
    (live,) = lsp_link(pump, newest_link(bob)).unsent
    exit_blocks = newest_link(bob).exit_blocks
    last_height = live.htlc.cltv_expiry - exit_blocks - CLAIM_BLOCKS - SAFETY_BLOCKS
    pump.mine(last_height - pump.chain.height)
    assert book(alice).payments[payment_hash].status == "pending", "it may still leave"
    pump.mine()
    assert not lsp_link(pump, newest_link(bob)).unsent
    assert book(alice).payments[payment_hash].status == "failed"
    assert balance(alice).own_msat == FIRST_MSAT
    pump.connect(bob)
    pump.run()
    hashes = [sent.payment_hash for sent in pump.sent(pump.lsp, m.UpdateAddHtlc)]
    assert payment_hash not in hashes
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid", "the channel goes on"
    assert balance(bob).own_msat == FIRST_MSAT + PAID_MSAT


def hung_up_on(pump: Pump, bob: PumpNode) -> None:
    """Let the LSP hang up on Bob, who owes it a revocation, and let him stay away."""
    pass_revocation(pump, pump.lsp, bob)
    pump.disconnect(bob)
    pump.run()


def pass_revocation(pump: Pump, node: PumpNode, client: PumpNode) -> None:
    """Let the time pass that a node gives its peer to answer in a client's channel."""
    pump.pass_deadline(node, fx.RevocationDeadline(channel_id=newest_link(client).channel_id))
    pump.run()


def test_an_htlc_that_its_payee_went_away_from_is_held_as_any_and_no_longer() -> None:
    """It never left: it waits as if it had come when its payee was away already."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    payment_hash = waiting_for_bob(pump)
    hung_up_on(pump, bob)
    assert lsp_link(pump, newest_link(bob)).unsent, "he may be back in a moment"
    pass_revocation(pump, pump.lsp, bob)
    assert not lsp_link(pump, newest_link(bob)).unsent
    assert [held.reason for held in book(pump.lsp).held.values()] == [AWAY]
    assert book(alice).payments[payment_hash].status == "pending"
    pump.pass_holds()
    assert book(alice).payments[payment_hash].status == "failed"
    assert balance(alice).own_msat == FIRST_MSAT
    waits = fx.RevocationDeadline(channel_id=newest_link(bob).channel_id)
    assert (pump.lsp, waits) not in pump.deadlines_of(fx.RevocationDeadline)
    pump.connect(bob)
    pump.run()
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid", "the channel goes on"
    assert balance(bob).own_msat == FIRST_MSAT + PAID_MSAT


def test_an_htlc_that_is_held_again_leaves_once_its_payee_is_back() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    payment_hash = waiting_for_bob(pump)
    hung_up_on(pump, bob)
    pass_revocation(pump, pump.lsp, bob)
    pump.connect(bob)
    pump.run()
    assert book(alice).payments[payment_hash].status == "paid"
    assert balance(bob).own_msat == FIRST_MSAT + PAID_MSAT


def test_an_htlc_whose_hold_is_over_as_its_payee_stays_away_is_given_back_at_once() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    payment_hash = waiting_for_bob(pump)
    hung_up_on(pump, bob)
    pump.pass_holds()
    assert book(alice).payments[payment_hash].status == "pending", "it may still leave"
    pass_revocation(pump, pump.lsp, bob)
    assert book(alice).payments[payment_hash].status == "failed"
    assert balance(alice).own_msat == FIRST_MSAT
    assert not book(pump.lsp).held


def test_what_an_lsp_pays_itself_fails_where_it_never_left_and_may_be_paid_again() -> None:
    pump = live_factory(3, policy=QUICK)
    _, bob, _ = pump.clients
    waiting_for_bob(pump)
    request = make_invoice(pump, bob, PAID_MSAT)
    pump.handle(pump.lsp, request)
    assert book(pump.lsp).payments[request.payment_hash].status == "pending"
    hung_up_on(pump, bob)
    pass_revocation(pump, pump.lsp, bob)
    assert pump.lsp.state.house.payments[request.payment_hash].status == "failed"
    pump.connect(bob)
    pump.run()
    pump.handle(pump.lsp, request)
    pump.run()
    assert book(pump.lsp).payments[request.payment_hash].status == "paid"


def test_a_payment_that_never_left_to_an_lsp_that_stays_away_has_failed() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 2 * FIRST_MSAT)
    requests = [make_invoice(pump, bob, PAID_MSAT) for _ in range(2)]
    for request in requests:
        pump.handle(alice, request)
    pump.wire.clear()
    pump.disconnect(alice)
    pass_revocation(pump, alice, alice)
    statuses = [book(alice).payments[request.payment_hash].status for request in requests]
    assert statuses == ["pending", "failed"], "the first was signed: it may have arrived"


def test_an_htlc_that_could_not_leave_at_once_leaves_in_time() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    payment_hash = waiting_for_bob(pump)
    pump.disconnect(bob)
    pump.run()
    pump.connect(bob)
    pump.run()
    assert book(alice).payments[payment_hash].status == "paid"
    assert balance(bob).own_msat == FIRST_MSAT + PAID_MSAT


def test_a_payment_that_never_left_has_failed_and_may_be_made_again() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 2 * FIRST_MSAT)
    requests = [make_invoice(pump, bob, PAID_MSAT) for _ in range(2)]
    for request in requests:
        pump.handle(alice, request)  # The second waits for the LSP's answer to the first.
    pump.wire.clear()
    pump.disconnect(alice)
    (live,) = newest_link(alice).unsent
    assert live.htlc.payment_hash == requests[1].payment_hash
    least_blocks = newest_link(alice).exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS
    pump.mine(live.htlc.cltv_expiry - least_blocks - pump.chain.height + 1)
    statuses = [book(alice).payments[request.payment_hash].status for request in requests]
    assert statuses == ["pending", "failed"]
    pump.connect(alice)
    pump.run()
    delta = min_final_cltv_expiry_delta(newest_link(bob), bob.state.chain)
    again = replace(requests[1], min_final_cltv_expiry_delta=delta)
    pump.handle(alice, again)
    pump.run()
    assert book(alice).payments[again.payment_hash].status == "paid"
    assert balance(bob).own_msat == PAID_MSAT * sum(
        payment.status == "paid" for payment in book(alice).payments.values()
    )
