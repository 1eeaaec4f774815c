"""While the chain is stale nobody takes new risk, what is owed goes on, and then all goes on.

A stale node says nothing of new blocks, or shows only their headers; the world goes on without it.
"""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import (
    balance,
    begin_payment,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode
from tests.protocol.stalling import WHY, lag, recover, stall, tell
from tests.protocol.test_leaving import QUICK, reasons_to_leave
from tests.protocol.test_theft import SHORT
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT, only_expiry, pending_for

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.opening_records import ProposalAccepted
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(10)

LOST_MSAT = 40_000_000
N_MISSED = 300


def paying_pump() -> Pump:
    """Return a factory in which Alice has something to pay with."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    assert pay(pump, pump.lsp, pump.clients[0], 2 * FIRST_MSAT).status == "paid"
    return pump


def shown(pump: Pump, node: PumpNode) -> int:
    """Return how many preimages a node has shown."""
    return len(pump.sent(node, m.UpdateFulfillHtlc))


# The payee


@pytest.mark.sampled(0)
def test_a_payee_whose_node_is_silent_for_300_blocks_shows_no_preimage_of_what_expired() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, bob)
    payment = pay(pump, alice, bob, LOST_MSAT)
    assert payment.status == "pending"
    assert list(book(bob).arrived) != []
    assert shown(pump, bob) == 0
    (live,) = newest_link(bob).state.htlcs
    pump.mine(N_MISSED)
    assert live.htlc.cltv_expiry < pump.chain.height
    pump.disconnect(bob)
    pump.connect(bob)
    pump.run()
    recover(pump, bob)
    pump.mine(40)
    assert shown(pump, bob) == 0
    assert remembered_paid(bob) == []
    assert book(alice).payments[payment.payment_hash].status == "failed"


def remembered_paid(node: PumpNode) -> list[cr.InvoicePaid]:
    records = node.store.remembered
    return [record for record in records if isinstance(record, cr.InvoicePaid)]


def test_an_htlc_that_waited_for_a_fresh_chain_is_taken_when_it_is() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, bob)
    payment = pay(pump, alice, bob, LOST_MSAT)
    pump.mine(5)
    assert shown(pump, bob) == 0
    recover(pump, bob)
    assert book(alice).payments[payment.payment_hash].status == "paid"
    assert balance(bob).own_msat == LOST_MSAT


def test_an_htlc_whose_time_runs_out_by_headers_alone_is_given_back() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    lag(pump, bob)
    payment = pay(pump, alice, bob, LOST_MSAT)
    pump.mine(12)
    tell(pump, bob)
    assert book(alice).payments[payment.payment_hash].status == "pending"
    pump.mine()
    tell(pump, bob)
    assert book(alice).payments[payment.payment_hash].failure == NOT_DELIVERED.reason
    assert (shown(pump, bob), reasons_to_leave(bob)) == (0, [])


def test_an_htlc_that_seems_to_last_too_long_by_an_old_height_is_not_given_back() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, bob)
    pump.mine(N_MISSED)
    payment = pay(pump, alice, bob, LOST_MSAT)
    assert payment.status == "pending"
    recover(pump, bob)
    assert book(alice).payments[payment.payment_hash].status == "paid"


def test_what_pays_no_invoice_goes_back_while_the_chain_is_stale() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, bob)
    payment = pay(pump, alice, bob, LOST_MSAT, payment_secret=bytes(32))
    assert payment.status == "failed"


def test_an_htlc_that_waits_for_a_fresh_chain_goes_back_when_its_invoice_expires() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, bob)
    payment = pay(pump, alice, bob, LOST_MSAT)
    deadline = fx.InvoiceDeadline(payment_hash=payment.payment_hash)
    pump.pass_deadline(bob, deadline)
    pump.run()
    assert book(alice).payments[payment.payment_hash].status == "failed"
    assert shown(pump, bob) == 0


def test_a_preimage_that_could_not_leave_before_the_chain_went_stale_waits_for_it() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, bob)
    payment = pay(pump, alice, bob, LOST_MSAT)
    # Bob gives something back, and waits for the LSP's revocation: until then he signs nothing.
    pump.handle(pump.lsp, make_invoice(pump, bob, WORTH_MSAT, payment_secret=bytes(32)))
    pump.run(
        until=lambda: (
            newest_link(bob).state.awaits_revocation
            and isinstance(pump.wire[0].message, m.RevokeAndAck)
            and pump.wire[0].receiver is bob
        )
    )
    assert pump.wire
    bob.facts_at, kept = lambda _own_height: FRESH, bob.facts_at
    pump.handle(bob, ev.FactsChanged())
    assert len(remembered_paid(bob)) == 1
    bob.facts_at = kept
    pump.run()
    assert shown(pump, bob) == 0
    recover(pump, bob)
    assert shown(pump, bob) == 1
    assert book(alice).payments[payment.payment_hash].status == "paid"


# The payer


@pytest.mark.parametrize("payer", ["client", "lsp"])
def test_nobody_pays_while_its_chain_is_stale(payer: str) -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    node = alice if payer == "client" else pump.lsp
    request = make_invoice(pump, bob, WORTH_MSAT)
    stall(pump, node)
    before = len(node.store.entries)
    assert_refused(node, request)
    assert len(node.store.entries) == before
    recover(pump, node)
    pump.handle(node, request)
    pump.run()
    assert book(node).payments[request.payment_hash].status == "paid"


def assert_refused(node: PumpNode, event: ev.Event) -> None:
    assert node.driver is not None
    node.driver.facts = node.facts
    with pytest.raises(Rejected, match=WHY) as refused:
        node.driver.handle(event)
    assert (refused.value.code, refused.value.retryable) == ("chain_stale", True)


def test_a_payer_reckons_from_headers_it_has_no_blocks_of_yet() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    request = make_invoice(pump, bob, WORTH_MSAT)
    pump.handle(alice, request)
    before = newest_link(alice).state.htlcs[0].htlc.cltv_expiry
    pump.run()
    height = alice.state.chain.height
    alice.facts_at = lambda _own_height: replace(FRESH, header_height=height + 2)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    assert newest_link(alice).state.htlcs[0].htlc.cltv_expiry == before + 2


# The LSP between


def test_an_lsp_forwards_nothing_while_its_chain_is_stale_and_then_does() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, pump.lsp)
    payment = begin_payment(pump, alice, bob, LOST_MSAT)
    assert payment.status == "pending"
    assert list(book(pump.lsp).forwards) == []
    assert lsp_link(pump, newest_link(bob)).state.htlcs == ()
    recover(pump, pump.lsp)
    assert book(alice).payments[payment.payment_hash].status == "paid"
    assert pump.deadlines_of(fx.HoldDeadline) == []


def test_an_lsp_whose_chain_stays_stale_gives_back_what_it_holds() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    stall(pump, pump.lsp)
    payment = begin_payment(pump, alice, bob, LOST_MSAT)
    ((node, deadline),) = pump.deadlines_of(fx.HoldDeadline)
    pump.pass_deadline(node, deadline)
    pump.run()
    failed = book(alice).payments[payment.payment_hash]
    assert failed.failure == Failure.TEMPORARY_CHANNEL_FAILURE.reason


def test_a_preimage_that_is_owed_upstream_goes_on_while_the_chain_is_stale() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    request = make_invoice(pump, bob, LOST_MSAT)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    stall(pump, pump.lsp)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert list(book(pump.lsp).forwards) == []


def test_a_failure_that_is_owed_upstream_goes_on_while_the_chain_is_stale() -> None:
    pump = paying_pump()
    alice, bob = pump.clients
    request = make_invoice(pump, bob, LOST_MSAT, payment_secret=bytes(32))
    pump.handle(alice, request)
    pump.run_to(m.UpdateFailHtlc)
    stall(pump, pump.lsp)
    pump.run()
    pump.pass_holds()
    assert book(alice).payments[request.payment_hash].status == "failed"


# Leaving in time


def test_who_has_headers_and_no_blocks_leaves_before_the_exit_deadline_has_passed_by_headers() -> (
    None
):
    pump = live_factory(2, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    link = newest_link(alice)
    lag(pump, alice)
    while pump.chain.height < link.exit_deadline_height - 1:
        pump.chain.mine()
    tell(pump, alice)
    assert reasons_to_leave(alice) == []
    pump.chain.mine()
    tell(pump, alice)
    assert reasons_to_leave(alice) == ["the exit deadline"]
    root = alice.state.attempts[link.attempt_id].branch.root_node.tx.txid
    assert root in pump.chain.mempool


@pytest.mark.parametrize("side", ["lsp", "payee", "payer"])
def test_who_has_headers_and_no_blocks_saves_an_htlc_in_time(side: str) -> None:
    pump = live_factory(3, policy=QUICK)
    node, link = pending_for(pump, side, WORTH_MSAT)
    lag(pump, node)
    publish = only_expiry(link) - link.exit_blocks - 18
    while pump.chain.height < publish - 1:
        pump.chain.mine()
    tell(pump, node)
    assert reasons_to_leave(node) == []
    pump.chain.mine()
    tell(pump, node)
    assert reasons_to_leave(node) == ["an HTLC expires"]


def test_blocks_that_are_only_to_be_read_are_read_before_anybody_leaves() -> None:
    """By headers an HTLC is at stake; the fourth block to read says that its channel is closed."""
    pump = live_factory(3, policy=QUICK)
    node, link = pending_for(pump, "payer", WORTH_MSAT)
    stall(pump, node)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.mine(only_expiry(link) - pump.chain.height)
    assert pump.chain.coin(link.setting.funding.outpoint) is None
    recover(pump, node)
    assert reasons_to_leave(node) == []


# Ceremonies


def test_a_client_whose_chain_is_stale_joins_no_ceremony_and_keeps_its_wish() -> None:
    pump = Pump(2, policy=QUICK)
    alice, bob = pump.clients
    pump.join()
    stall(pump, alice)
    pump.build(min_clients=2)
    pump.run()
    (attempt,) = alice.state.attempts.values()
    assert attempt.aborted == "this client's chain is stale"
    assert accepted(alice) == []
    assert alice.state.wish is not None
    recover(pump, alice)
    assert len(pump.lsp.state.house.members) == 2
    pump.build(min_clients=2)
    pump.run()
    pump.mine()
    assert all(newest_link(client).is_open for client in (alice, bob))


def accepted(node: PumpNode) -> list[ProposalAccepted]:
    records = node.store.remembered
    return [record for record in records if isinstance(record, ProposalAccepted)]


def test_a_client_whose_chain_went_stale_while_it_looked_coins_up_signs_nothing() -> None:
    pump = Pump(1, policy=QUICK)
    (alice,) = pump.clients
    pump.join()
    pump.build()
    pump.answers_coins = False
    pump.run()
    (asked,) = pump.wishes(alice, fx.LookUpCoins)
    stall(pump, alice)
    coins = tuple((outpoint, pump.chain.coin(outpoint)) for outpoint in asked.outpoints)
    pump.handle(alice, ev.CoinsLookedUp(asked=asked, coins=coins))
    assert accepted(alice) == []
    assert pump.sent(alice, m.SignBelow) == []


def test_a_wish_waits_for_a_fresh_chain() -> None:
    pump = Pump(1, policy=QUICK)
    (alice,) = pump.clients
    wish = ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)
    stall(pump, alice)
    assert_refused(alice, wish)
    assert alice.state.wish is None
    recover(pump, alice)
    pump.disconnect(alice)
    pump.handle(alice, wish)
    stall(pump, alice)
    pump.connect(alice)
    pump.run()
    assert (alice.state.wish is not None, alice.state.joining) == (True, None)
    recover(pump, alice)
    assert alice.state.joining.is_accepted


def test_an_lsp_builds_nothing_while_its_chain_is_stale_and_then_what_is_due() -> None:
    pump = Pump(2, policy=replace(QUICK, build_at_clients=2))
    stall(pump, pump.lsp)
    pump.join()
    assert len(pump.lsp.state.house.members) == 2
    assert_refused(pump.lsp, ev.BuildRequested(min_clients=1, max_clients=100))
    assert pump.lsp.state.attempts == {}
    recover(pump, pump.lsp)
    assert pump.is_funded()


def test_an_lsp_funds_nothing_while_its_chain_is_stale_and_then_what_is_acknowledged() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run_to(m.Acknowledge)
    stall(pump, pump.lsp)
    pump.run()
    assert not pump.is_funded()
    pump.restart(pump.lsp)
    pump.run()
    assert not pump.is_funded()
    recover(pump, pump.lsp)
    assert pump.is_funded()


def test_an_lsp_whose_chain_stays_stale_ends_an_acknowledged_attempt_by_its_deadline() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run_to(m.Acknowledge)
    stall(pump, pump.lsp)
    pump.run()
    ((node, deadline),) = [
        (node, deadline)
        for node, deadline in pump.deadlines_of(fx.AttemptDeadline)
        if node is pump.lsp
    ]
    pump.pass_deadline(node, deadline)
    assert pump.attempt.aborted == "deadline in acknowledging: our chain is stale"
    assert pump.lsp.state.wallet.reserved == {}


def test_a_rebuild_that_a_stale_chain_prevents_leaves_everybody_in_the_lobby() -> None:
    pump = Pump(2, policy=QUICK)
    alice, _ = pump.clients
    pump.join()
    pump.build()
    pump.run_to(m.SignBelow)
    stall(pump, pump.lsp)
    pump.disconnect(alice)
    pump.run()
    assert pump.attempt.aborted is not None
    assert pump.lsp.state.house.build is None
    assert pump.lsp.state.house.build_dropped == "the chain is stale"
    recover(pump, pump.lsp)
    pump.connect(alice)
    pump.run()
    pump.build(min_clients=2)
    pump.run()
    assert pump.is_funded()


# What is allowed all the same


def test_on_a_stale_chain_an_operator_may_make_invoices_leave_and_pay_from_the_wallet() -> None:
    pump = paying_pump()
    alice, _ = pump.clients
    stall(pump, alice)
    stall(pump, pump.lsp)
    make_invoice(pump, alice, WORTH_MSAT)
    assert len(book(alice).invoices) == 2
    script = alice.state.wallet.next_script(0)
    paid = ev.SpendingRequested(script_pubkey=script, amount_sat=50_000, feerate_sat_per_kw=500)
    pump.handle(pump.lsp, paid)
    assert len(pump.lsp.state.wallet.payments) == 1
    pump.handle(alice, ev.ExitRequested(attempt_id=newest_link(alice).attempt_id))
    assert reasons_to_leave(alice) == ["the operator's wish"]
