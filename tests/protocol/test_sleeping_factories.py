"""A factory that is not in memory: who wakes it, and what is told of it meanwhile."""

from typing import Any

from tests.protocol.paying_clients import POLICY, book, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.daemon.views.lsp import payment_statuses
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.wire import messages as m

FIRST_MSAT = 30_000_000
AMOUNT_MSAT = 5_000_000


def build_for(pump: Pump, *clients: PumpNode) -> None:
    pump.join(*clients)
    pump.build()
    pump.run()
    pump.mine(pump.policy.min_depth)


def put_to_sleep(pump: Pump, *clients: PumpNode) -> None:
    """Let clients go, and the factories sleep in which nobody is left."""
    for client in clients:
        pump.disconnect(client)
    pump.lsp.checkpoint()


def test_only_its_own_clients_wake_a_factory_by_its_name() -> None:
    pump = Pump(2, policy=POLICY)
    owner, stranger = pump.clients
    build_for(pump, owner)
    attempt, number = pump.attempt, pump.factory.number
    put_to_sleep(pump, owner)
    state: Any = pump.lsp.state
    assert number in state.asleep
    ids = {"attempt_id": attempt.attempt_id, "terms_hash": attempt.terms.terms_hash}
    for message in (
        m.Resume(**ids),
        m.Acknowledge(**ids),
        m.Abort(attempt_id=attempt.attempt_id, reason="no"),
    ):
        event = ev.MessageReceived(node_id=stranger.node_id, message=message)
        decision = lsp_role.decide(state, event)
        assert number in decision.state.asleep
        answers = [one.message for one in decision.effects if isinstance(one, fx.Send)]
        assert [type(one) for one in answers] == [m.Abort] * isinstance(message, m.Resume)
    event = ev.MessageReceived(node_id=owner.node_id, message=m.Resume(**ids))
    assert number not in lsp_role.decide(state, event).state.asleep


def test_a_deadline_that_outlived_its_reason_wakes_nobody() -> None:
    pump = Pump(1, policy=POLICY)
    (client,) = pump.clients
    build_for(pump, client)
    factory = pump.factory
    put_to_sleep(pump, client)
    deadline = fx.AttemptDeadline(attempt_id=factory.attempt.attempt_id)
    event = ev.DeadlineReached(stream=factory.stream, deadline=deadline)
    decision = lsp_role.decide(pump.lsp.state, event)
    assert decision.is_nothing
    assert factory.number in decision.state.asleep


def test_the_payments_of_a_factory_that_sleeps_are_counted() -> None:
    pump = Pump(1, policy=POLICY)
    (client,) = pump.clients
    build_for(pump, client)
    assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    put_to_sleep(pump, client)
    state: Any = pump.lsp.state
    assert not state.factories
    assert payment_statuses(state.house) == {("out", "paid"): 1}


def test_our_key_is_known_of_a_factory_that_sleeps() -> None:
    pump = Pump(2, policy=POLICY)
    keys = []
    for client in pump.clients:
        build_for(pump, client)
        keys.append((pump.factory.number, pump.attempt.blueprint.lsp_factory_pubkey))
    put_to_sleep(pump, *pump.clients)
    state: Any = pump.lsp.state
    assert not state.factories
    assert sorted(state.house.own_keys()) == keys


def test_a_payment_that_failed_in_one_factory_and_was_paid_in_another_is_paid() -> None:
    pump = Pump(1, policy=POLICY)
    (client,) = pump.clients
    for _ in range(2):
        build_for(pump, client)
    newest = pump.attempt.attempt_id
    request = make_invoice(pump, client, AMOUNT_MSAT)
    wrong = ev.PayRequested(
        text=request.text,
        payment_hash=request.payment_hash,
        payment_secret=bytes(32),
        payee=request.payee,
        amount_msat=request.amount_msat,
        description=request.description,
        min_final_cltv_expiry_delta=request.min_final_cltv_expiry_delta,
    )
    pump.handle(pump.lsp, wrong)
    pump.run()
    assert book(pump.lsp).payments[request.payment_hash].status == "failed"
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=newest, client=1))
    pump.run()
    pump.handle(pump.lsp, request)
    pump.run()
    state: Any = pump.lsp.state
    assert state.house.payments[request.payment_hash].status == "paid"
    assert book(pump.lsp).payments[request.payment_hash].status == "paid"


def test_a_factory_that_holds_for_others_takes_no_part_in_what_happens_elsewhere() -> None:
    pump = Pump(4, policy=POLICY)
    payer, away, here, idle = pump.clients
    for clients in ((payer,), (away,), (here, idle)):
        build_for(pump, *clients)
    assert pay(pump, pump.lsp, payer, FIRST_MSAT).status == "paid"
    request = make_invoice(pump, away, AMOUNT_MSAT)
    pump.disconnect(away)
    pump.handle(payer, request)
    pump.run()
    before: Any = pump.lsp.state
    (holding,) = before.holding
    assert pay(pump, pump.lsp, here, AMOUNT_MSAT).status == "paid"
    after: Any = pump.lsp.state
    assert after.factories[holding] is before.factories[holding]
