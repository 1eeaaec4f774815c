"""A payment that its payee announced waits for it for hours; any other for seconds."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.attacks import heard
from tests.protocol.paying_clients import book, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.channels.forwarding import hold_deadlines
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book_fold import apply_to_book, with_refused_forward
from cromford.protocol.journal.mail import ForwardRefused
from cromford.protocol.journal.records import decode_record
from cromford.protocol.lobby.announcing import ANNOUNCED_MAX, KNOWN_BLOCKS_MAX
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(8)

HOUR: Final = 3_600
FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 5_000_000
EXPIRY_SECONDS: Final = 3_600


def town(**changes: Any) -> tuple[Pump, PumpNode, PumpNode]:
    pump = live_factory(2, policy=replace(QUICK, **changes), watches_folds=True)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    return pump, alice, bob


def invoice_of(pump: Pump, payee: PumpNode, hold_seconds: int) -> ev.PayRequested:
    """Let a client ask for a payment that may wait for it, and hear what the LSP says."""
    request = make_invoice(pump, payee, PAID_MSAT, hold_seconds=hold_seconds)
    pump.run()
    return request


def agreed(payee: PumpNode, request: ev.PayRequested) -> int | None:
    return book(payee).invoices[request.payment_hash].agreed_seconds


def pay_while_away(pump: Pump, payer: PumpNode, payee: PumpNode, request: ev.PayRequested) -> None:
    pump.disconnect(payee)
    pump.handle(payer, request)
    pump.run()


def held_for(pump: Pump) -> list[int]:
    """Return how long what is held is held, as the LSP's clock was set."""
    return [
        pump.deadlines[node.name, deadline] for node, deadline in pump.deadlines_of(fx.HoldDeadline)
    ]


def blocks(pump: Pump, n_blocks: int) -> None:
    """Let blocks come while holds last."""
    for _ in range(n_blocks):
        pump.chain.mine()
        pump.sync()
        pump.run()


def most_blocks(seconds: int) -> int:
    """Return after how many blocks nothing is known any more that could be paid for so long."""
    expected = seconds // 600
    return expected + expected // 4 + 12 + 1


def status(payer: PumpNode, request: ev.PayRequested) -> str:
    return book(payer).payments[request.payment_hash].status


def test_an_invoice_of_a_hold_asks_for_its_blocks_and_gets_the_lsps_word() -> None:
    pump, _, bob = town()
    plain = invoice_of(pump, bob, 0)
    request = invoice_of(pump, bob, 2 * HOUR)
    assert (agreed(bob, plain), agreed(bob, request)) == (None, 2 * HOUR)
    assert request.min_final_cltv_expiry_delta == plain.min_final_cltv_expiry_delta + 12
    exit_blocks = newest_link(bob).exit_blocks
    assert request.min_final_cltv_expiry_delta == exit_blocks + 18 + 144 + 12 + 12


def test_a_payment_waits_for_hours_over_blocks_and_a_restart_until_its_payee_is_back() -> None:
    pump, alice, bob = town()
    request = invoice_of(pump, bob, 2 * HOUR)
    pay_while_away(pump, alice, bob, request)
    assert held_for(pump) == [2 * HOUR]
    blocks(pump, 12)
    assert status(alice, request) == "pending"
    again = [e for e in lsp_role.resume(pump.lsp.state) if isinstance(e, fx.SetDeadline)]
    assert [deadline.seconds for deadline in again] == [2 * HOUR]
    pump.restart(pump.lsp)  # Everybody connects again.
    pump.run()
    assert status(alice, request) == "paid"
    assert book(bob).invoices[request.payment_hash].paid_msat == PAID_MSAT


def test_what_was_not_announced_waits_no_longer_than_ever() -> None:
    pump, alice, bob = town()
    request = invoice_of(pump, bob, 0)
    pay_while_away(pump, alice, bob, request)
    assert held_for(pump) == [pump.policy.hold_seconds]
    pump.pass_holds()
    assert status(alice, request) == "failed"


def test_a_hold_that_ends_gives_the_payment_back() -> None:
    pump, alice, bob = town()
    request = invoice_of(pump, bob, HOUR)
    pay_while_away(pump, alice, bob, request)
    pump.pass_holds()
    assert status(alice, request) == "failed"
    pump.connect(bob)
    pump.run()
    assert status(alice, request) == "failed"
    assert book(bob).invoices[request.payment_hash].status == "open"


@pytest.mark.parametrize(("most", "asked", "said"), [(600, HOUR, 600), (0, HOUR, 0)])
def test_the_lsp_holds_no_longer_than_its_policy_says_and_says_so(
    most: int, asked: int, said: int
) -> None:
    pump, alice, bob = town(announced_hold_seconds=most)
    request = invoice_of(pump, bob, asked)
    assert agreed(bob, request) == said
    pay_while_away(pump, alice, bob, request)
    assert held_for(pump) == [max(said, pump.policy.hold_seconds)]


def test_an_announcement_that_was_lost_is_made_again_and_an_answered_one_is_not() -> None:
    pump, _, bob = town()
    answered = invoice_of(pump, bob, HOUR)
    lost = make_invoice(pump, bob, PAID_MSAT, hold_seconds=HOUR)
    pump.disconnect(bob)
    assert agreed(bob, lost) is None
    before = len(pump.sent(bob, m.AnnounceHash))
    pump.connect(bob)
    pump.run()
    assert agreed(bob, lost) == HOUR
    again = pump.sent(bob, m.AnnounceHash)[before:]
    assert [message.payment_hash for message in again] == [lost.payment_hash]
    assert agreed(bob, answered) == HOUR


def test_a_client_announces_a_few_at_a_time_and_those_that_are_over_make_room() -> None:
    pump, _, bob = town()
    requests = [invoice_of(pump, bob, HOUR) for _ in range(ANNOUNCED_MAX + 1)]
    assert [agreed(bob, one) for one in requests] == [HOUR] * ANNOUNCED_MAX + [0]
    known = pump.lsp.state.house.expected.of_clients
    assert {node_id: len(of_client) for node_id, of_client in known.items()} == {
        bob.node_id: ANNOUNCED_MAX
    }
    blocks(pump, most_blocks(EXPIRY_SECONDS + HOUR))
    assert not pump.lsp.state.house.expected.of_clients
    assert agreed(bob, invoice_of(pump, bob, HOUR)) == HOUR


@pytest.mark.sampled(1)
@pytest.mark.parametrize("payer", ["alice", "alice while bob is away", "the LSP"])
def test_what_was_paid_makes_room_at_once(payer: str) -> None:
    """Else who sells a few things an hour could ask for no more of its payments to be held."""
    pump, alice, bob = town()
    requests = [invoice_of(pump, bob, HOUR) for _ in range(ANNOUNCED_MAX)]
    paid, *others = requests
    if payer == "alice while bob is away":
        pay_while_away(pump, alice, bob, paid)
        pump.connect(bob)
    else:
        pump.handle(pump.lsp if payer == "the LSP" else alice, paid)
    pump.run()
    assert book(bob).invoices[paid.payment_hash].status == "paid"
    known = pump.lsp.state.house.expected.of(bob.node_id)
    assert set(known) == {one.payment_hash for one in others}
    assert agreed(bob, invoice_of(pump, bob, HOUR)) == HOUR
    pump.restart(pump.lsp)
    assert len(pump.lsp.state.house.expected.of(bob.node_id)) == ANNOUNCED_MAX


def test_a_stranger_announces_nothing_and_leaves_no_record() -> None:
    pump, _, _ = town()
    stranger = stranger_to(pump)
    decision = heard(
        pump,
        stranger,
        m.AnnounceHash(payment_hash=bytes(32), hold_seconds=HOUR, expiry_seconds=HOUR),
    )
    assert decision.records == ()
    (sent,) = decision.effects
    assert isinstance(sent, fx.Send)
    assert sent.message == m.HashAnnounced(payment_hash=bytes(32), hold_seconds=0)


def stranger_to(pump: Pump) -> PumpNode:
    """Return somebody whose name the LSP does not know."""
    other = Pump(3, policy=QUICK).clients[2]
    assert other.node_id not in pump.lsp.state.house.of_client
    return other


def test_nobody_announces_for_somebody_else() -> None:
    """Alice may know the hash of Bob's invoice; that it is held is Bob's to ask for."""
    pump, alice, bob = town()
    request = invoice_of(pump, bob, 0)
    announced = m.AnnounceHash(
        payment_hash=request.payment_hash, hold_seconds=HOUR, expiry_seconds=HOUR
    )
    pump.handle(pump.lsp, ev.MessageReceived(node_id=alice.node_id, message=announced))
    pay_while_away(pump, alice, bob, request)
    assert held_for(pump) == [pump.policy.hold_seconds]


@pytest.mark.parametrize("hold_seconds", [0, 2**64 - 1])
def test_the_lsps_word_about_what_was_not_asked_means_nothing(hold_seconds: int) -> None:
    pump, _, bob = town()
    plain = invoice_of(pump, bob, 0)
    asked = make_invoice(pump, bob, PAID_MSAT, hold_seconds=HOUR)
    for payment_hash in (bytes(32), plain.payment_hash, asked.payment_hash):
        said = m.HashAnnounced(payment_hash=payment_hash, hold_seconds=hold_seconds)
        pump.handle(bob, ev.MessageReceived(node_id=pump.lsp.node_id, message=said))
    assert agreed(bob, plain) is None
    assert agreed(bob, asked) == min(hold_seconds, HOUR)


def test_what_was_paid_in_time_is_taken_after_the_expiry_while_it_is_held() -> None:
    pump, alice, bob = town()
    request = invoice_of(pump, bob, HOUR)
    deadline = fx.InvoiceDeadline(payment_hash=request.payment_hash)
    assert pump.deadlines[bob.name, deadline] == EXPIRY_SECONDS + HOUR
    pay_while_away(pump, alice, bob, request)
    pump.restart(bob)
    assert pump.deadlines[bob.name, deadline] > EXPIRY_SECONDS
    pump.connect(bob)
    pump.run()
    assert status(alice, request) == "paid"


def test_a_payees_factory_that_refuses_it_does_not_shorten_a_hold() -> None:
    """A restart would else give back in seconds what its payer was told waits for hours."""
    pump, alice, bob = town()
    request = invoice_of(pump, bob, 2 * HOUR)
    pay_while_away(pump, alice, bob, request)
    (factory,) = pump.lsp.state.all_factories()
    ((key, _),) = factory.book.held.items()
    pump.connect(bob)
    pump.run()
    (forwarded,) = (
        one
        for one in (decode_record(entry.record) for entry in pump.lsp.store.entries)
        if isinstance(one, cr.HtlcForwarded) and (one.channel_id, one.htlc_id) == key
    )
    on_its_way = apply_to_book(factory.book, forwarded)
    refusal = ForwardRefused(channel_id=key[0], htlc_id=key[1], reason="no room")
    for at_a_restart in (on_its_way, with_refused_forward(on_its_way, refusal)):
        (deadline,) = hold_deadlines(at_a_restart, hold_seconds=30)
        assert deadline.seconds == 2 * HOUR


def test_a_hold_that_begins_again_and_again_brings_no_payer_on_chain() -> None:
    """The clock stands still, as it does for an LSP that starts before each hold is over."""
    pump, alice, bob = town()
    request = invoice_of(pump, bob, 2 * HOUR)
    pay_while_away(pump, alice, bob, request)
    link = newest_link(alice)
    (live,) = link.state.htlcs
    last = publish_height(link, live.htlc.cltv_expiry, chain=alice.state.chain)
    blocks(pump, last - alice.state.chain.height)
    assert status(alice, request) == "failed"
    assert newest_link(alice).failure is None
    assert not any(attempt.is_exiting for attempt in alice.state.attempts.values())


def test_the_lsp_promises_nothing_that_it_forgets_before_it_can_be_paid() -> None:
    pump, _, bob = town()
    for expiry_seconds, said in (
        (600 * KNOWN_BLOCKS_MAX - HOUR, HOUR),
        (600 * KNOWN_BLOCKS_MAX, 0),
        (2**63, 0),
    ):
        announced = m.AnnounceHash(
            payment_hash=expiry_seconds.to_bytes(32, "big"),
            hold_seconds=HOUR,
            expiry_seconds=expiry_seconds,
        )
        (sent,) = heard(pump, bob, announced).effects
        assert isinstance(sent, fx.Send)
        assert isinstance(sent.message, m.HashAnnounced)
        assert sent.message.hold_seconds == said


def test_an_announcement_that_found_no_room_is_made_again_with_the_next_connection() -> None:
    pump, _, bob = town()
    for _ in range(ANNOUNCED_MAX):
        invoice_of(pump, bob, 600)
    late = make_invoice(pump, bob, PAID_MSAT, hold_seconds=HOUR)
    pump.run()
    assert agreed(bob, late) == 0
    blocks(pump, most_blocks(EXPIRY_SECONDS + 600))
    pump.disconnect(bob)
    pump.connect(bob)
    pump.run()
    assert agreed(bob, late) == HOUR


def test_a_payment_is_held_as_was_said_though_blocks_came_quickly() -> None:
    """Of one hour in seven, nine blocks or more are found where six are expected."""
    pump, alice, bob = town()
    request = invoice_of(pump, bob, 600)
    blocks(pump, 18)
    pay_while_away(pump, alice, bob, request)
    assert held_for(pump) == [600]
