"""A payment of the LSP's operator whose letter a factory cannot take, because of a bug."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from tests.protocol.old_states import told
from tests.protocol.paying_clients import POLICY, balance, book, make_invoice
from tests.protocol.pump import Pump
from tests.protocol.test_payment_limits import refusal_of
from tests.protocol.test_untaken_forwards import PlainPump, folds_alike, found

from cromford.daemon.views.payments import show_ordered
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol import paying
from cromford.protocol.channels import lsp as channels
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.entries import HousePayment
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.mail import PayAsked
from cromford.protocol.turn import StreamBug, Turn

AMOUNT_MSAT: Final = 5_000_000


@contextmanager
def a_bug(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no factory take what it is asked to pay; the asking itself goes well."""

    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(channels, "on_pay_asked", fail)
        yield


def world(*, n_factories: int = 1) -> Pump:
    """Return a payee with a factory, or with several."""
    pump = PlainPump(1, policy=POLICY)
    for _ in range(n_factories):
        found(pump, *pump.clients)
    pump.may_stop = True
    return pump


def ordered(pump: Pump, request: ev.PayRequested) -> HousePayment:
    house: House = pump.lsp.state.house
    return house.payments[request.payment_hash]


def come_back(pump: Pump) -> None:
    """Let a block take the factories up again, and clients connect anew."""
    pump.mine()
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()


@pytest.mark.parametrize("n_factories", [1, 2])
def test_a_payment_that_a_stopped_factory_did_not_take_fails_at_once_and_by_name(
    n_factories: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump = world(n_factories=n_factories)
    (client,) = pump.clients
    request = make_invoice(pump, client, AMOUNT_MSAT)
    with a_bug(monkeypatch):
        pump.handle(pump.lsp, request)
        streams = [factory.stream for factory in pump.lsp.state.all_factories()]
        assert sorted(pump.lsp.state.stopped) == streams
        assert ordered(pump, request).status == "failed"
        shown = show_ordered(pump.lsp.state.house, ordered(pump, request))
        assert (shown["failure"], shown["retryable"]) == (
            "the payee's factory was stopped by a bug",
            True,
        )
        folds_alike(pump)
        pump.restart(pump.lsp)
        pump.run()
        assert ordered(pump, request).status == "failed"
        pump.mine(2)
        assert not pump.lsp.state.stopped, "the letter stops it no more"
    come_back(pump)
    assert told(pump.lsp, cr.PaymentStarted) == []
    assert balance(client).own_msat == 0
    assert not pump.lsp.state.house.post.outbox
    pump.handle(pump.lsp, request)
    pump.run()
    assert ordered(pump, request).status == "paid", "asked for again, it is paid"
    assert sum(link.state.accepter_msat for link in book(client).links.values()) == AMOUNT_MSAT
    folds_alike(pump)


def test_another_factory_of_the_payees_pays_what_a_stopped_one_did_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = world(n_factories=2)
    (client,) = pump.clients
    request, newest = make_invoice(pump, client, AMOUNT_MSAT), pump.factory.stream
    take = channels.on_pay_asked

    def fail_in_newest(turn: Turn[Factory], sender: str, asked: PayAsked) -> None:
        if turn.stream == newest:
            raise AssertionError("a bug")
        take(turn, sender, asked)

    with monkeypatch.context() as patched:
        patched.setattr(channels, "on_pay_asked", fail_in_newest)
        pump.handle(pump.lsp, request)
        pump.run()
        assert list(pump.lsp.state.stopped) == [newest]
        assert ordered(pump, request).status == "paid"
        assert ordered(pump, request).to != newest
        folds_alike(pump)
    come_back(pump)
    assert len(told(pump.lsp, cr.PaymentStarted)) == 1
    assert not pump.lsp.state.house.post.outbox


def test_while_its_only_factory_is_stopped_a_payee_is_not_called_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = world()
    (client,) = pump.clients
    with a_bug(monkeypatch):
        pump.handle(pump.lsp, make_invoice(pump, client, AMOUNT_MSAT))
    refused = refusal_of(pump, pump.lsp, make_invoice(pump, client, AMOUNT_MSAT))
    assert (refused.code, refused.retryable) == ("factory_stopped", True)
    come_back(pump)
    request = make_invoice(pump, client, AMOUNT_MSAT)
    pump.handle(pump.lsp, request)
    pump.run()
    assert ordered(pump, request).status == "paid"


@pytest.mark.parametrize("ends_by", ["a start", "a block"])
def test_one_that_waits_in_an_older_journal_fails_with_the_next_try(
    ends_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs of before left the letter to wait, for ever where each try met the bug again."""
    pump = world()
    (client,) = pump.clients
    request = make_invoice(pump, client, AMOUNT_MSAT)
    with a_bug(monkeypatch):
        with monkeypatch.context() as older:
            older.setattr(paying, "withdraw_untaken", lambda _round: None)
            pump.handle(pump.lsp, request)
        assert ordered(pump, request).status == "pending"
        if ends_by == "a start":
            pump.restart(pump.lsp)
            pump.run()
        else:
            pump.mine()
        assert ordered(pump, request).status == "failed"
        assert len(told(pump.lsp, lr.PaymentWithdrawn)) == 1
        folds_alike(pump)
    come_back(pump)
    assert told(pump.lsp, cr.PaymentStarted) == []
    assert ordered(pump, request).status == "failed"


def test_what_a_factory_took_is_not_withdrawn_though_it_stops_later() -> None:
    pump = world()
    (client,) = pump.clients
    pump.tamper = lambda sender, _to, message: () if sender is client else (message,)
    request = make_invoice(pump, client, AMOUNT_MSAT)
    pump.handle(pump.lsp, request)
    pump.run()
    fault = StreamBug(pump.factory.stream, AssertionError("a bug"))
    state = lsp_role.stop(pump.lsp.state, fault)
    assert state is not None
    decision = lsp_role.decide(state, ev.DaemonStarted(drawn=0))
    assert decision.state.house.payments[request.payment_hash].status == "pending"
    assert not [one for one in decision.records if isinstance(one, lr.PaymentWithdrawn)]
