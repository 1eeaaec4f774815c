"""What a restored store must not go on with: invoices, payments, wishes, keys, attempts."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    book,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import (
    FIRST_MSAT,
    QUICK,
    STEP_MSAT,
    backup_of,
    begin_payment_to_absent,
    is_marked_at,
    link_of,
    restore,
)
from tests.protocol.test_marked_channels import SIDES, side_of, used_factory

from cromford.daemon.driver import Driver
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import Complete, RootSent
from cromford.protocol.journal.client_state import apply as client_fold
from cromford.protocol.journal.mark import Restored
from cromford.protocol.restored import ATTEMPTS_SKIPPED, SCRIPTS_WATCHED
from cromford.wallet.account import CHANGE, GAP_LIMIT, RECEIVE, WalletPath

RESTORED_AT: Final = 1_795_000_000


def test_an_invoice_of_a_restored_store_is_doubtful() -> None:
    """It may have been paid since, and who saw its preimage would keep what is paid for it now."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    request = make_invoice(pump, alice, STEP_MSAT)
    backup = backup_of(alice)
    pump.handle(pump.lsp, request)
    pump.run()
    assert book(alice).invoices[request.payment_hash].status == "paid"
    restore(pump, (alice, backup))
    assert book(alice).invoices[request.payment_hash].status == "expired"
    pump.handle(alice, ev.StoreProven())
    assert book(alice).invoices[request.payment_hash].status == "open"


def test_a_payment_of_a_restored_store_is_not_called_failed() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    begin_payment_to_absent(pump, alice, bob)
    (payment,) = book(alice).payments.values()
    restore(pump, (alice, backup_of(alice)))
    pump.mine(3)
    assert book(alice).payments[payment.payment_hash].status == "pending"


@SIDES
def test_a_restored_store_pays_no_invoice_that_it_may_have_paid_in_what_was_lost(side: str) -> None:
    """Who was told its preimage then, would take what is offered for it now, and pay nobody."""
    pump = live_factory(2, policy=QUICK)
    payer, _ = side_of(pump, side)
    bob = pump.clients[1]
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    paid = make_invoice(pump, bob, STEP_MSAT, created_at=RESTORED_AT)
    later = make_invoice(pump, bob, STEP_MSAT, created_at=RESTORED_AT + 1)
    backup = backup_of(payer)
    pump.handle(payer, paid)
    pump.run()
    assert book(payer).payments[paid.payment_hash].status == "paid"
    payer.unix_time = RESTORED_AT
    restore(pump, (payer, backup))
    join_the_next_factory(pump)
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    with pytest.raises(Rejected) as refused:
        driver_of(payer).foresee(paid)
    assert (refused.value.code, refused.value.retryable) == ("may_be_paid", False)
    pump.handle(payer, later)
    pump.run()
    assert book(payer).payments[later.payment_hash].status == "paid"
    pump.restart(payer)
    assert restored_of(payer).may_have_paid(paid.created_at), "a later start changes nothing"
    pump.handle(payer, ev.StoreProven())
    assert not restored_of(payer).may_have_paid(paid.created_at)


@pytest.mark.parametrize(
    ("is_unproven", "created_at", "may"),
    [
        (True, RESTORED_AT - 1, True),
        (True, RESTORED_AT, True),
        (True, RESTORED_AT + 1, False),
        (True, None, False),
        (False, RESTORED_AT, False),
        (False, None, False),
    ],
)
def test_what_a_restored_store_may_have_paid(
    is_unproven: bool,  # noqa: FBT001 - a parameter of the test
    created_at: int | None,
    may: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    restored = Restored(is_unproven=is_unproven, since=RESTORED_AT)
    assert restored.may_have_paid(created_at) is may
    assert not Restored(is_unproven=True).may_have_paid(1), "nobody wrote down since when"


def test_since_when_a_store_is_restored_is_told_by_the_first_start_after_it() -> None:
    """A rescan skips scripts, too, and is no restore."""
    state = live_factory(1).clients[0].state
    skipped = r.KeysSkipped(next_attempt=7)
    restored = client_fold(state, r.StoreRestored(backup_id=bytes(16), source="a test"), 1)
    assert restored.restored == Restored(is_unproven=True, forgot_keys=True)
    started = client_fold(restored, skipped, RESTORED_AT)
    assert started.restored == Restored(is_unproven=True, since=RESTORED_AT)
    assert client_fold(started, skipped, RESTORED_AT + 1).restored == started.restored
    lifted = client_fold(started, r.MarkLifted(), RESTORED_AT + 2)
    assert lifted.restored == Restored(since=RESTORED_AT)


def restored_of(node: PumpNode) -> Restored:
    found: Restored = getattr(node.state, "house", node.state).restored
    return found


def join_the_next_factory(pump: Pump) -> None:
    for client in pump.clients:
        if client.state.wish is None:
            pump.join(client)
    pump.build(min_clients=2)
    pump.run()
    pump.mine(QUICK.min_depth)


def driver_of(node: PumpNode) -> Driver[Any]:
    assert node.driver is not None
    return node.driver


def test_a_restored_client_wishes_nothing_that_may_have_been_met_since() -> None:
    pump = Pump(2, policy=QUICK)
    alice = pump.clients[0]
    pump.join(alice)
    backup = backup_of(alice)
    assert alice.state.wish is not None
    pump.build()
    pump.run()
    pump.mine(QUICK.min_depth)
    restore(pump, (alice, backup))
    assert alice.state.wish is None
    assert alice.state.joining is None
    pump.join(alice)
    assert alice.state.joining is not None, "whoever wishes again, joins again"


def test_a_factory_that_a_bug_had_stopped_hears_of_the_proof_the_next_time() -> None:
    pump, past = used_factory()
    restore(pump, (pump.lsp, past.lsp[-1]))
    pump.may_stop = True
    state = pump.lsp.state
    stopped = replace(state, stopped=state.stopped.set(pump.factory.stream, "ValueError"))
    decision = lsp_role.decide(stopped, ev.StoreProven())
    assert not decision.state.house.restored.is_unproven
    assert decision.state.factory(pump.factory.number).is_marked
    again = replace(decision.state, stopped=state.stopped)
    later = lsp_role.decide(again, ev.StoreProven())
    assert not later.state.factory(pump.factory.number).is_marked
    assert lsp_role.decide(later.state, ev.StoreProven()).is_nothing


@SIDES
def test_keys_of_attempts_that_are_forgotten_are_never_used_again(side: str) -> None:
    """In a channel of a forgotten attempt, secrets were told that would revoke another's."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    node, _ = side_of(pump, side)
    before = backup_of(node)
    pump.join_again()
    pump.build(min_clients=2)
    pump.run()
    pump.mine(QUICK.min_depth)
    lost = newest_key(pump, alice)
    used = {*numbers_of(node)}
    restore(pump, (node, before))
    join_the_next_factory(pump)
    fresh = newest_key(pump, alice)
    assert fresh != lost
    assert min({*numbers_of(node)} - used) >= ATTEMPTS_SKIPPED, "a factory was built since"
    skipped = [one for one in node.store.remembered if isinstance(one, r.KeysSkipped)]
    assert len(skipped) == 1
    pump.restart(node)
    assert len([one for one in node.store.remembered if isinstance(one, r.KeysSkipped)]) == 1


def newest_key(pump: Pump, alice: PumpNode) -> bytes:
    return pump.held(alice).join.factory_pool.pubkey


def numbers_of(node: PumpNode) -> list[int]:
    """Return the numbers of a node's attempts, by which its keys are made."""
    return [one.key_attempt for one in node.state.attempts.values()]


# Attempts that become channels only afterwards


@SIDES
def test_an_attempt_that_becomes_a_channel_after_the_restore_begins_marked(side: str) -> None:
    """In what was lost it may have become one before, and taken updates."""
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run()
    node, other = side_of(pump, side)
    assert pump.is_funded()
    restore(pump, (node, backup_of(node)))
    pump.mine(QUICK.min_depth)
    assert is_marked_at(pump, node)
    assert not is_marked_at(pump, other)
    assert link_of(pump, node).withholds_commitment
    pump.handle(node, ev.StoreProven())
    assert not is_marked_at(pump, node)


def test_a_client_that_had_signed_the_root_asks_for_it_and_its_channel_begins_marked() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    pump.run(until=lambda: pump.attempt.signed is not None)
    assert isinstance(pump.held(client).stage, RootSent)
    backup = backup_of(client)
    pump.run()
    pump.mine(QUICK.min_depth)
    assert pay(pump, pump.lsp, client, 1_000_000).status == "paid"
    restore(pump, (client, backup))
    pump.mine()
    link = newest_link(client)
    assert link.mark is not None
    assert isinstance(pump.held(client).stage, Complete)
    assert link.is_behind, "the LSP's numbers prove it"


def test_a_store_that_was_proved_marks_no_attempt_any_more() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run()
    alice = pump.clients[0]
    restore(pump, (alice, backup_of(alice)), (pump.lsp, backup_of(pump.lsp)))
    for node in (alice, pump.lsp):
        pump.handle(node, ev.StoreProven())
    pump.run()
    pump.connect(alice)
    pump.run()
    pump.mine(QUICK.min_depth)
    assert newest_link(alice).is_open
    assert pay(pump, pump.lsp, alice, 1_000_000).status == "paid"


@SIDES
def test_coins_at_addresses_that_a_restored_store_forgot_are_found(side: str) -> None:
    """An older program used one up for each join and each order: far beyond the gap limit."""
    pump, _ = used_factory()
    node, _ = side_of(pump, side)
    backup = backup_of(node)
    wallet = node.state.wallet
    before = wallet.confirmed_sat()
    for change, amount_sat in ((RECEIVE, 50_000), (CHANGE, 70_000)):
        script = wallet.account.script(WalletPath(change=change, index=10 * GAP_LIMIT))
        pump.chain.fund(script, amount_sat)
    pump.mine()

    restore(pump, (node, backup))
    pump.sync()
    assert node.state.wallet.confirmed_sat() == before + 50_000 + 70_000
    assert node.state.wallet.next_receive > 10 * GAP_LIMIT

    again = backup_of(node)  # Another restore forgets no less.
    restore(pump, (node, again))
    pump.sync()
    assert node.state.wallet.confirmed_sat() == before + 50_000 + 70_000


@SIDES
def test_before_blocks_are_read_again_coins_are_looked_for_far_beyond_what_is_known(
    side: str,
) -> None:
    pump, _ = used_factory()
    node, _ = side_of(pump, side)
    pump.handle(node, ev.RescanRequested())
    wallet = node.state.wallet
    for change in (RECEIVE, CHANGE):
        last = WalletPath(change=change, index=SCRIPTS_WATCHED - 1)
        assert wallet.account.script(last) in wallet.scripts
