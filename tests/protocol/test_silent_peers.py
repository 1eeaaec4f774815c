"""A peer that is connected and answers nothing: after half a minute it is not connected."""

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
from tests.protocol.test_leaving import QUICK, mute

from cromford import effects as fx
from cromford.wire import messages as m

FIRST_MSAT = 30_000_000
SIDES = pytest.mark.parametrize("side", ["client", "lsp"])


def unanswered(pump: Pump, side: str) -> tuple[PumpNode, PumpNode, fx.Deadline]:
    """Let a payer's signature get no answer; return the payer, the payee and the deadline set."""
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    payer, payee, silent = (alice, bob, pump.lsp) if side == "client" else (pump.lsp, alice, alice)
    request = make_invoice(pump, payee, 5_000_000)
    with pump.tampering(mute(silent, payer, m.RevokeAndAck, m.CommitmentSigned)):
        pump.handle(payer, request)
        pump.run()
    deadline = fx.RevocationDeadline(channel_id=newest_link(alice).channel_id)
    assert pump.deadlines[payer.name, deadline] == 30
    return payer, payee, deadline


@SIDES
def test_a_peer_that_does_not_revoke_is_disconnected_and_answers_in_the_next_connection(
    side: str,
) -> None:
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    payer, payee, deadline = unanswered(pump, side)
    pump.pass_deadline(payer, deadline)
    pump.run()
    (hung_up,) = pump.wishes(payer, fx.Disconnect)
    assert hung_up.reason == "no revoke_and_ack for 30 seconds"
    alice = pump.clients[0]
    assert not newest_link(alice).is_open
    assert newest_link(alice).failure is None
    pump.connect(alice)
    pump.run()
    assert [one.status for one in book(payer).payments.values()][-1] == "paid"
    assert pump.deadlines_of(fx.RevocationDeadline) == []
    assert balance(payee).own_msat >= 5_000_000


@SIDES
def test_a_deadline_of_an_earlier_connection_hangs_up_on_nobody(side: str) -> None:
    pump = live_factory(2, policy=QUICK)
    payer, _, deadline = unanswered(pump, side)
    alice = pump.clients[0]
    pump.disconnect(alice)
    pump.pass_deadline(payer, deadline)
    assert pump.wishes(payer, fx.Disconnect) == []


def test_whoever_answers_in_time_leaves_no_deadline_behind() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pay(pump, alice, bob, 5_000_000)
    assert pump.wishes(alice, fx.SetDeadline)
    assert pump.deadlines_of(fx.RevocationDeadline) == []
