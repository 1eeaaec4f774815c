"""A client that is started for another LSP: the new one has no say in what it has with the old."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Final

import pytest
from tests.protocol.paying_clients import book, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK

from cromford import effects as fx
from cromford.crypto.keys import pubkey_of
from cromford.daemon.api.client_payments import ClientPayments
from cromford.daemon.clientd import tell_other_lsps
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.client_attempt import RootSent
from cromford.protocol.opening.client import channel_ready
from cromford.wire import messages as m

PAID_MSAT: Final = 9_000_000
OTHER_LSP: Final = pubkey_of(b"\x09" * 32)


def start_for(pump: Pump, client: PumpNode, lsp_node_id: bytes) -> None:
    """Start a client again, for this LSP, and let it connect."""
    pump.disconnect(client)
    client.die()
    client.lsp_node_id = lsp_node_id
    client.start()
    if lsp_node_id == pump.lsp.node_id:
        pump.connect(client)
        pump.run()
    else:
        pump.handle(client, ev.ConnectionOpened(node_id=lsp_node_id))


def other_lsp_says(pump: Pump, client: PumpNode, *messages: m.Message) -> None:
    for message in messages:
        pump.handle(client, ev.MessageReceived(node_id=OTHER_LSP, message=message))


def test_another_lsp_hears_nothing_of_a_channel_and_cannot_end_it() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 3 * PAID_MSAT)
    link = newest_link(alice)
    (told,) = pump.sent(pump.lsp, m.ChannelReestablish)[:1]
    start_for(pump, alice, OTHER_LSP)
    other_lsp_says(
        pump,
        alice,
        channel_ready(alice.state.attempts[link.attempt_id]),
        replace(told, channel_id=link.channel_id, next_commitment_number=7),
        m.ChannelFailure(channel_id=link.channel_id, reason="it is over"),
    )
    assert newest_link(alice).failure is None
    assert not [wish for wish in pump.wishes(alice, fx.Send) if wish.node_id == OTHER_LSP]
    payments = ClientPayments(SimpleNamespace(state=alice.state, facts=FRESH), sign_node=bytes)
    listed = {kind.get("kind", name): amount for name, kind, amount in payments.samples()}
    assert listed["own"] == 3 * PAID_MSAT, "it is still its own"
    assert (listed["spendable"], listed["channels_open"]) == (0, 0)
    start_for(pump, alice, pump.lsp.node_id)
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"


def test_channels_with_another_lsp_than_the_one_that_is_named_are_told_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The node id may be mistyped, or the configuration an older one."""
    pump = live_factory(2, policy=QUICK)
    alice, _ = pump.clients
    tell_other_lsps(alice.state)
    assert not caplog.records
    start_for(pump, alice, OTHER_LSP)
    tell_other_lsps(alice.state)
    (told,) = caplog.records
    named = f"lsp={pump.lsp.node_id.hex()} configured={OTHER_LSP.hex()}"
    assert told.getMessage() == f"channels_of_another_lsp {named} channels=1"


def test_no_invoice_names_a_new_lsp_for_a_channel_with_the_old_one() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    start_for(pump, alice, OTHER_LSP)
    make_invoice(pump, alice, PAID_MSAT)
    assert not book(alice).invoices, "nobody could pay it: the new LSP has no way to us"
    start_for(pump, alice, pump.lsp.node_id)
    pay(pump, pump.lsp, bob, 3 * PAID_MSAT)
    assert pay(pump, bob, alice, PAID_MSAT).status == "paid"


def test_a_wish_that_one_lsp_let_wait_is_over_once_another_refuses_it() -> None:
    """Else it would ask the new one for ever, which never let it wait."""
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.run()
    alice = pump.clients[0]
    (greeting,) = pump.sent(pump.lsp, m.Lobby)[:1]
    assert alice.state.wish.was_accepted
    start_for(pump, alice, OTHER_LSP)
    assert alice.state.wish is not None
    other_lsp_says(pump, alice, greeting)
    joining = alice.state.joining
    refused = m.Refused(factory_pubkey=joining.join.factory_pool.pubkey, reason="not here")
    other_lsp_says(pump, alice, refused)
    assert alice.state.wish is None
    assert alice.state.refusal == "not here"


def test_another_lsp_cannot_end_an_attempt_whose_root_was_signed() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run_to(m.SignedRoot)
    alice = pump.clients[0]
    attempt_id = pump.held(alice).attempt_id
    assert isinstance(pump.held(alice).stage, RootSent)
    start_for(pump, alice, OTHER_LSP)
    other_lsp_says(pump, alice, m.Abort(attempt_id=attempt_id, reason="it is over"))
    assert pump.held(alice).aborted is None
    start_for(pump, alice, pump.lsp.node_id)
    pump.run()
    pump.mine(QUICK.min_depth)
    assert newest_link(alice).is_open
    assert book(alice).links_with(pump.lsp.node_id)
