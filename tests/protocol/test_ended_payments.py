"""Payments of a client that end with its channel: paid, failed, or nothing will tell."""

from typing import Final

import pytest
from tests.protocol.exits import ExitPump
from tests.protocol.old_states import told
from tests.protocol.paying_clients import book, make_invoice, newest_link, pay
from tests.protocol.test_exit_guards import show_blocks
from tests.protocol.test_swept_factories import own_attempt, see, sweep_of
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, WORTH_MSAT
from tests.simulation.sim_node import durable

from cromford.daemon.views.payments import show_payment
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.journal import channel_records as cr

ELSEWHERE: Final = "its channel ended without a commitment that our store has"
SWEPT: Final = "the factory was swept above its channel"


def pending(amount_msat: int) -> tuple[ExitPump, ev.PayRequested, int]:
    """Return a payment that waits for its payee, its payer alone, and its HTLC's expiry."""
    pump = ExitPump(0, n_clients=2)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    request = make_invoice(pump, bob, amount_msat)
    pump.disconnect(bob)
    pump.handle(alice, request)
    pump.run()
    pump.disconnect(alice)
    (live,) = newest_link(alice).state.htlcs
    return pump, request, live.htlc.cltv_expiry


@pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
@pytest.mark.parametrize("place", ["above", "itself"])
def test_what_ended_where_nothing_tells_is_unknown_and_never_paid_again(
    place: str, amount_msat: int
) -> None:
    pump, request, expiry = pending(amount_msat)
    alice = pump.clients[0]
    attempt = own_attempt(alice)
    outpoint = attempt.funding_outpoint
    if place == "itself":
        for node in attempt.branch.nodes:
            see(pump, alice, node.tx)
        outpoint = newest_link(alice).present.outpoint
    see(pump, alice, sweep_of(outpoint))
    show_blocks(pump, alice, until=give_up_height(expiry) - 1)
    assert book(alice).payments[request.payment_hash].status == "pending"
    assert durable(alice.durable_state()) == durable(alice.state)
    show_blocks(pump, alice, until=give_up_height(expiry))
    (ended,) = told(alice, cr.OutgoingEnded)
    assert ended.reason == (SWEPT if place == "above" else ELSEWHERE)
    assert not book(alice).owners
    answer = show_payment(book(alice), book(alice).payments[request.payment_hash], height=0)
    assert (answer["status"], answer["obstacle"]) == ("unknown", ended.reason)
    assert (answer["failure"], answer["expiry_height"]) == (None, None)
    assert answer["may_lose_msat"] == answer["total_msat"]
    n_records = len(alice.store.remembered)
    pump.handle(alice, request)
    assert len(alice.store.remembered) == n_records, "it may have been paid"
    show_blocks(pump, alice, until=alice.state.chain.height + 2 * RESOLVED_DEPTH)
    assert len(told(alice, cr.OutgoingEnded)) == 1, "once"
    assert durable(alice.durable_state()) == durable(alice.state)


@pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
def test_what_the_chain_decides_is_never_unknown(amount_msat: int) -> None:
    """Without an output nothing of it can be paid; with one it comes back."""
    pump, request, expiry = pending(amount_msat)
    alice = pump.clients[0]
    pump.handle(alice, ev.ExitRequested(attempt_id=newest_link(alice).attempt_id))
    pump.mine(give_up_height(expiry) + RESOLVED_DEPTH - pump.chain.height)
    assert book(alice).payments[request.payment_hash].status == "failed"
    assert told(alice, cr.OutgoingEnded) == []
    assert not book(alice).owners
