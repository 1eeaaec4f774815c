"""Who asks by payments that cannot be paid learns nothing about anybody but itself."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal.failures import Failure
from cromford.wire import messages as m

MONEY_MSAT: Final = 60_000_000
PROBE_MSAT: Final = 1_000_000

PAYEES: Final = pytest.mark.parametrize(
    "payee", ["stranger", "away", "full", "poor", "open", "used up", "late", "failed"]
)


@pytest.fixture
def pump() -> Pump:
    """Alice, who probes and has money, and Bob, whom she asks about."""
    made = live_factory(3)
    assert pay(made, made.lsp, made.clients[0], MONEY_MSAT).status == "paid"
    return made


def probe_of(pump: Pump, payee: str) -> ev.PayRequested:
    """Return a payment to somebody of a kind. Nobody can take it: its hash is of no invoice."""
    _, bob, _ = pump.clients
    read = make_invoice(pump, bob, PROBE_MSAT)
    changes: dict[str, Any] = {"payment_hash": bytes(32)}
    match payee:
        case "stranger":
            changes["payee"] = b"\x02" * 33
        case "away":
            pump.disconnect(bob)
        case "full":
            for _ in range(12):
                pump.handle(pump.lsp, make_invoice(pump, bob, PROBE_MSAT))
        case "poor":
            room_msat = balance(bob).receivable_msat - PROBE_MSAT + 1
            assert pay(pump, pump.lsp, bob, room_msat).status == "paid"
        case "used up":
            paid = pay(pump, pump.lsp, bob, PROBE_MSAT)
            assert paid.status == "paid"
            changes["payment_hash"] = paid.payment_hash
        case "late":
            least = newest_link(bob).exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS
            changes["min_final_cltv_expiry_delta"] = least - 1
        case "failed":
            link = newest_link(bob)
            reason = m.ChannelFailure(channel_id=link.channel_id, reason="no more")
            pump.tell(pump.lsp, bob, reason)
    return replace(read, **changes)


def silence_of(pump: Pump, silent: PumpNode | None) -> Any:
    """Let what somebody says about HTLCs be lost, so that its channel stays full."""

    def mute(sender: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_lost = sender is silent and isinstance(message, m.RevokeAndAck | m.CommitmentSigned)
        return () if is_lost else (message,)

    return pump.tampering(mute)


def told(pump: Pump, alice: PumpNode) -> list[m.Message]:
    """Return all that Alice was told about HTLCs of hers."""
    channel_id = newest_link(alice).channel_id
    return [
        message
        for message in pump.sent(pump.lsp, m.UpdateFailHtlc)
        if message.channel_id == channel_id
    ]


@pytest.mark.sampled(2)
@PAYEES
def test_a_payer_hears_the_same_after_the_same_time_whoever_the_payee_is(
    pump: Pump, payee: str
) -> None:
    alice, bob, _ = pump.clients
    with silence_of(pump, bob if payee == "full" else None):
        probe = probe_of(pump, payee)
        pump.handle(alice, probe)
        pump.run()
        assert told(pump, alice) == [], "not before the hold is over"
        ((node, deadline),) = pump.deadlines_of(fx.HoldDeadline)
        assert pump.deadlines[node.name, deadline] == pump.policy.hold_seconds
        began = [effect.deadline == deadline for effect in pump.wishes(pump.lsp, fx.SetDeadline)]
        assert sum(began) == 1, "it began with the HTLC, and with nothing that came later"
        pump.pass_deadline(node, deadline)
        pump.run()
    (answer,) = told(pump, alice)
    assert answer == m.UpdateFailHtlc(
        channel_id=newest_link(alice).channel_id,
        htlc_id=0,
        reason=NOT_DELIVERED.reason,
    )
    payment = book(alice).payments[probe.payment_hash]
    assert (payment.status, payment.failure) == ("failed", NOT_DELIVERED.reason)
    assert balance(alice).own_msat == MONEY_MSAT
    assert not book(pump.lsp).released


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("payee", "exact"),
    [
        ("stranger", "the payee has no other channel here"),
        ("away", "the payee is away"),
        ("poor", "the payee's channel cannot carry it: amount_msat: expected at most"),
        ("late", "the payee's channel cannot carry it: cltv_expiry: expected"),
        ("failed", "the payee has no other channel here"),
    ],
)
def test_the_operator_reads_what_it_waits_for(pump: Pump, payee: str, exact: str) -> None:
    pump.handle(pump.clients[0], probe_of(pump, payee))
    pump.run()
    (held,) = book(pump.lsp).held.values()
    assert held.reason.startswith(exact)


def test_the_operator_reads_what_the_payee_said(pump: Pump) -> None:
    pump.handle(pump.clients[0], probe_of(pump, "open"))
    pump.run()
    (forward,) = book(pump.lsp).forwards.values()
    assert forward.failure == Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS.reason
    pump.pass_holds()
    (forward,) = book(pump.lsp).finished.values()
    assert forward.failure == Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS.reason


@pytest.mark.parametrize("payee", ["stranger", "open"])
def test_a_payer_that_reconnects_hears_no_sooner(pump: Pump, payee: str) -> None:
    alice = pump.clients[0]
    pump.handle(alice, probe_of(pump, payee))
    pump.run()
    began = len(pump.wishes(pump.lsp, fx.SetDeadline))
    for _ in range(2):
        pump.disconnect(alice)
        pump.connect(alice)
        pump.run()
        assert told(pump, alice) == []
    assert len(pump.wishes(pump.lsp, fx.SetDeadline)) == began, "nor later"
    pump.restart(pump.lsp)
    pump.run()
    assert told(pump, alice) == []
    pump.pass_holds()
    assert len(told(pump, alice)) == 1


def test_a_failure_that_comes_after_the_hold_is_told_at_once(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    pump.handle(alice, probe_of(pump, "open"))
    pump.run_to(m.UpdateFailHtlc)
    ((node, deadline),) = pump.deadlines_of(fx.HoldDeadline)
    pump.pass_deadline(node, deadline)
    assert list(book(pump.lsp).released) == list(book(pump.lsp).forwards)
    pump.run()
    assert len(told(pump, alice)) == 1
    assert not newest_link(bob).state.htlcs


def test_who_is_paid_in_time_is_not_kept_waiting_and_no_deadline_stays(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    request = make_invoice(pump, bob, PROBE_MSAT)
    pump.handle(alice, request)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert pump.deadlines_of(fx.HoldDeadline) == []


def test_what_is_the_payers_own_affair_is_told_at_once_and_as_it_is(pump: Pump) -> None:
    alice, bob, _ = pump.clients

    def cheap(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is alice and isinstance(message, m.UpdateAddHtlc):
            dear = replace(message.delivery, amount_msat=message.amount_msat)
            return (replace(message, delivery=dear),)
        return (message,)

    with pump.tampering(cheap):
        pump.handle(alice, make_invoice(pump, bob, PROBE_MSAT))
        pump.run()
    (payment,) = book(alice).payments.values()
    assert payment.failure == Failure.FEE_INSUFFICIENT.reason
    assert pump.deadlines_of(fx.HoldDeadline) == []
