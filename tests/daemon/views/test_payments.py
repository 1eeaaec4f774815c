"""What a payer is told of a payment that is pending."""

from tests.protocol.paying_clients import book, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import begin_payment_to_absent
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, mine_to, only_expiry, pending_for

from cromford import effects as fx
from cromford.daemon.views.payments import (
    PAYER_ENDS,
    Outlook,
    in_flight,
    outlook_of,
    show_payment,
)
from cromford.protocol.journal.book import Payment
from cromford.wire import messages as m


def last_payment(node: PumpNode) -> Payment:
    return list(book(node).payments.values())[-1]


def seen_by(node: PumpNode) -> Outlook:
    return outlook_of(book(node), last_payment(node), height=node.state.chain.height)


def test_the_payer_is_told_when_its_peer_stops_answering() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, alice, m.RevokeAndAck, m.CommitmentSigned)):
        pump.handle(alice, make_invoice(pump, bob, SMALL_MSAT))
        pump.run()
    (live,) = newest_link(alice).state.htlcs
    on_its_way = Outlook(expiry_height=live.htlc.cltv_expiry)
    assert seen_by(alice) == on_its_way
    deadline = fx.RevocationDeadline(channel_id=newest_link(alice).channel_id)
    pump.pass_deadline(alice, deadline)
    pump.run()
    assert seen_by(alice).obstacle == "the peer does not answer: it is not connected"
    assert seen_by(alice).may_lose_msat is None, "its time is not over"
    pump.connect(alice)
    pump.run()
    assert seen_by(alice) == Outlook()
    shown = show_payment(book(alice), last_payment(alice), height=pump.chain.height)
    assert (shown["status"], shown["obstacle"], shown["expiry_height"]) == ("paid", None, None)


def unpaid_after_its_time(pump: Pump) -> PumpNode:
    alice, link = pending_for(pump, "payer", SMALL_MSAT)
    mine_to(pump, only_expiry(link) - 1)
    assert seen_by(alice).may_lose_msat is None
    pump.mine()
    return alice


def test_a_payment_whose_time_is_over_may_be_lost_as_a_whole() -> None:
    pump = live_factory(3, policy=QUICK)
    alice = unpaid_after_its_time(pump)
    (live,) = newest_link(alice).state.htlcs
    assert last_payment(alice).status == "pending"
    assert seen_by(alice).may_lose_msat == live.htlc.amount_msat > SMALL_MSAT
    pump.connect(alice)
    pump.run()
    assert last_payment(alice).status == "failed", "it was given back"
    assert seen_by(alice) == Outlook()


def test_what_is_held_for_a_payee_waits_for_it_no_more_once_the_payers_channel_failed() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    begin_payment_to_absent(pump, alice, bob)
    (held,) = in_flight(book(pump.lsp), limit=9)
    assert (held["status"], held["waits_for"]) == ("held", "the payee is away")
    over = m.ChannelFailure(channel_id=newest_link(alice).channel_id, reason="no more")
    pump.tell(pump.lsp, alice, over)
    pump.connect(bob)
    pump.run()
    (held,) = in_flight(book(pump.lsp), limit=9)
    assert (held["status"], held["waits_for"]) == ("held", PAYER_ENDS)
