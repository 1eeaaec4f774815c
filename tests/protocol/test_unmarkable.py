"""While no mark can be written, no channel is updated; what is owed waits, and then goes on."""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import begin_payment, book, make_invoice, newest_link
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode
from tests.protocol.stalling import tell
from tests.protocol.test_stale import LOST_MSAT, paying_pump

from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.wire import messages as m

WHY = "the mark's place is away"


def take_mark_away(node: PumpNode) -> None:
    node.facts_at = lambda _own_height: replace(FRESH, unmarkable=WHY)


def bring_mark_back(pump: Pump, node: PumpNode) -> None:
    """As a daemon does it: connections begin anew, and the role hears of it."""
    node.facts_at = lambda _own_height: FRESH
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    tell(pump, node)


def finished(node: PumpNode) -> int:
    """Return how many commitments of its own a node has finished."""
    return sum(isinstance(one, cr.CommitmentFinished) for one in node.store.remembered)


def said(pump: Pump, node: PumpNode) -> int:
    """Return how often a node has changed a commitment by what it said."""
    return len(pump.sent(node, m.CommitmentSigned)) + len(pump.sent(node, m.RevokeAndAck))


@pytest.mark.parametrize("who", ["lsp", "payer", "payee"])
def test_no_channel_of_a_node_that_cannot_mark_is_updated_and_then_all_is(who: str) -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    node = {"lsp": pump.lsp, "payer": alice, "payee": bob}[who]
    request = make_invoice(pump, bob, LOST_MSAT)
    if who == "payer":
        pump.handle(alice, request)  # It has signed, and the answer is on its way.
    before = (finished(node), said(pump, node))
    take_mark_away(node)
    if who != "payer":
        pump.handle(alice, request)
    pump.run()
    assert (finished(node), said(pump, node)) == before
    assert book(alice).payments[request.payment_hash].status == "pending"

    for client in pump.clients:  # A connection alone brings nothing.
        pump.disconnect(client)
        pump.connect(client)
    pump.run()
    assert (finished(node), said(pump, node)) == before

    bring_mark_back(pump, node)
    assert book(alice).payments[request.payment_hash].status == "paid"


def test_a_preimage_that_came_back_stays_owed_to_the_payer_until_a_mark_can_be_written() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    request = make_invoice(pump, bob, LOST_MSAT)
    pump.handle(alice, request)
    pump.run(
        until=lambda: (
            bool(pump.wire)
            and pump.wire[0].receiver is pump.lsp
            and isinstance(pump.wire[0].message, m.UpdateFulfillHtlc)
        )
    )
    before = len(pump.sent(pump.lsp, m.UpdateFulfillHtlc))
    take_mark_away(pump.lsp)
    pump.run()
    assert len(pump.sent(pump.lsp, m.UpdateFulfillHtlc)) == before
    assert book(alice).payments[request.payment_hash].status == "pending"

    bring_mark_back(pump, pump.lsp)
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert newest_link(bob).state.htlcs == ()


def test_requests_that_would_update_a_channel_are_refused_by_name() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    for node in (alice, pump.lsp):
        take_mark_away(node)
    pay = make_invoice(pump, bob, LOST_MSAT)
    join = ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)
    build = ev.BuildRequested(min_clients=1, max_clients=1)
    for node, asked in ((alice, pay), (pump.lsp, pay), (alice, join), (pump.lsp, build)):
        assert_refused(node, asked)


def assert_refused(node: PumpNode, asked: ev.Event) -> None:
    assert node.driver is not None
    node.driver.facts = node.facts
    with pytest.raises(Rejected, match=WHY) as refused:
        node.driver.handle(asked)
    assert (refused.value.code, refused.value.retryable) == ("mark_unreachable", True)


def test_nothing_changes_where_no_place_for_a_mark_is_configured() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    assert alice.facts.may_risk
    payment = begin_payment(pump, alice, bob, LOST_MSAT)
    assert payment.status == "paid"
