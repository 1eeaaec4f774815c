"""An HTLC whose letter to its payee's factory is not taken, because a bug has stopped that one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from tests.protocol.late_mail import LatePump
from tests.protocol.old_states import told
from tests.protocol.paying_clients import (
    POLICY,
    balance,
    begin_payment,
    book,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import durable

from cromford import effects as fx
from cromford.daemon.lspd import LSP_ROLE
from cromford.protocol import events as ev
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.mail import ForwardAsked

FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 5_000_000


class PlainNode(PumpNode):
    """An LSP as it runs: that a factory is stopped is no record, so no fold says it."""

    lsp_role = LSP_ROLE


class PlainPump(Pump):
    """A pump with such an LSP."""

    lsp_kind = PlainNode


def found(pump: Pump, *clients: PumpNode) -> None:
    pump.join(*clients)
    pump.build()
    pump.run()
    pump.mine(pump.policy.min_depth)


def two_factories(pump: Pump) -> None:
    """Let a payer with money and a payee have a factory each."""
    for client in pump.clients:
        found(pump, client)
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    pump.may_stop = True


@contextmanager
def a_bug(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no factory take what it is asked to forward; the asking itself goes well."""

    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(channels, "on_forward_asked", fail)
        yield


def asked(pump: Pump) -> list[ForwardAsked]:
    """Return what waits in the payer's factory for its payee's."""
    outbox = pump.lsp.state.factory(0).post.outbox
    return [one for mails in outbox.values() for one in mails if isinstance(one, ForwardAsked)]


def folds_alike(pump: Pump) -> None:
    assert durable(pump.lsp.durable_state()) == durable(pump.lsp.state)


@pytest.mark.parametrize("restarts_at", [None, "before", "after", "both"])
def test_what_a_stopped_factory_did_not_take_is_given_back_when_its_hold_ends(
    restarts_at: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump = PlainPump(2, policy=POLICY)
    two_factories(pump)
    alice, bob = pump.clients
    with a_bug(monkeypatch):
        begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
        assert begun.status == "pending"
        assert len(asked(pump)) == 1
        if restarts_at in {"before", "both"}:
            pump.restart(pump.lsp)
            pump.run()
            assert book(alice).payments[begun.payment_hash].status == "pending"
        pump.pass_holds()
        assert book(alice).payments[begun.payment_hash].status == "failed"
        assert asked(pump) == []
        folds_alike(pump)
        if restarts_at in {"after", "both"}:
            pump.restart(pump.lsp)
            pump.run()
            pump.pass_holds()
    pump.mine()
    assert not pump.lsp.state.stopped
    assert told(pump.lsp, cr.ForwardOffered) == []
    assert len(told(pump.lsp, cr.ForwardWithdrawn)) == 1
    assert balance(bob).own_msat == FIRST_MSAT
    assert balance(alice).own_msat == FIRST_MSAT
    assert not book(pump.lsp).forwards
    assert [one.status for one in book(pump.lsp).finished.values()] == ["failed"]
    assert not pump.lsp.state.factory(0).post.outbox
    folds_alike(pump)
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()
    assert pay(pump, alice, bob, AMOUNT_MSAT).status == "paid", "what follows is taken in order"
    folds_alike(pump)


@pytest.mark.parametrize("n_steps", range(1, 9))
def test_it_comes_back_once_wherever_the_lsp_dies(
    n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of its appends and effects, as the hold ends and as the factory revives."""
    pump = PlainPump(2, policy=POLICY)
    two_factories(pump)
    alice, bob = pump.clients
    with a_bug(monkeypatch):
        begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
        pump.lsp.fuse = n_steps
        pump.pass_holds()
        pump.mine()
    pump.lsp.fuse = n_steps
    pump.mine(2)
    pump.lsp.fuse = None
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()
    pump.mine()
    assert pump.lsp.n_deaths > 0
    assert book(alice).payments[begun.payment_hash].status == "failed"
    assert told(pump.lsp, cr.ForwardOffered) == []
    assert len(told(pump.lsp, cr.ForwardWithdrawn)) == 1
    assert (balance(alice).own_msat, balance(bob).own_msat) == (FIRST_MSAT, FIRST_MSAT)
    assert not book(pump.lsp).forwards
    folds_alike(pump)
    assert pay(pump, alice, bob, AMOUNT_MSAT).status == "paid"


def test_it_is_given_back_before_its_payer_would_leave_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the payer is away when its hold ends, and the clock of the LSP stands."""
    pump = PlainPump(2, policy=POLICY)
    two_factories(pump)
    alice, bob = pump.clients
    with a_bug(monkeypatch):
        begin_payment(pump, alice, bob, AMOUNT_MSAT)
        pump.disconnect(alice)
        link = newest_link(alice)
        (live,) = link.state.htlcs
        leaves_at = publish_height(link, live.htlc.cltv_expiry, chain=alice.state.chain)
        pump.deadlines.clear()
        while pump.chain.height < leaves_at - RESOLVED_DEPTH:
            pump.chain.mine()
            pump.sync()
            pump.run()
        assert asked(pump) == []
        pump.connect(alice)
        pump.run()
        assert told(alice, xr.ExitStarted) == []
        assert not newest_link(alice).state.htlcs
        assert balance(alice).own_msat == FIRST_MSAT
    pump.mine()
    assert balance(bob).own_msat == FIRST_MSAT


def test_a_factory_is_not_stopped_for_ever_by_what_it_asked_of_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Payer and payee are in one factory: the letter that it cannot take is its own."""
    pump = PlainPump(2, policy=POLICY)
    alice, bob = pump.clients
    found(pump, alice, bob)
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    pump.may_stop = True
    with a_bug(monkeypatch):
        begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
        assert len(asked(pump)) == 1
        assert pump.lsp.state.stopped
        pump.mine(2)
        assert not pump.lsp.state.stopped
        folds_alike(pump)
        for client in pump.clients:
            pump.disconnect(client)
            pump.connect(client)
        pump.run()
        assert book(alice).payments[begun.payment_hash].status == "failed"
    assert pay(pump, alice, bob, AMOUNT_MSAT).status == "paid"
    folds_alike(pump)


def test_what_was_taken_is_never_withdrawn() -> None:
    """The payee holds its HTLC, and says nothing: whatever it still says counts."""
    pump = PlainPump(2, policy=POLICY)
    two_factories(pump)
    alice, bob = pump.clients
    pump.tamper = lambda sender, _to, message: () if sender is bob else (message,)
    begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
    pump.pass_holds()
    pump.restart(pump.lsp)
    pump.run()
    pump.pass_holds()
    assert told(pump.lsp, cr.ForwardWithdrawn) == []
    assert book(alice).payments[begun.payment_hash].status == "pending"


@pytest.mark.parametrize("seed", range(4))
def test_a_letter_that_is_late_pays_nothing_once_it_was_withdrawn(seed: int) -> None:
    """No bug, but mail that is on its way when the hold ends."""
    pump = LatePump(2, policy=POLICY, seed=seed)
    two_factories(pump)
    alice, bob = pump.clients
    request = make_invoice(pump, bob, AMOUNT_MSAT)
    pump.handle(alice, request)
    while not asked(pump):
        others = [one for one in pump.letters() if not isinstance(one.mail, ForwardAsked)]
        if others:
            pump.deliver(others[0])
        else:
            pump._deliver(pump._next_letter())
    assert len(asked(pump)) == 1
    (late,) = (one for one in pump.letters() if isinstance(one.mail, ForwardAsked))
    for node, deadline in pump.deadlines_of(fx.HoldDeadline):
        pump.pass_deadline(node, deadline)
    assert asked(pump) == []
    pump.handle(pump.lsp, ev.MailArrived(delivery=late))
    pump.run()
    assert late not in pump.taken
    assert book(alice).payments[request.payment_hash].status == "failed"
    assert told(pump.lsp, cr.ForwardOffered) == []
    assert balance(bob).own_msat == FIRST_MSAT
    folds_alike(pump)
