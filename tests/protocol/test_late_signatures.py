"""A signature that only takes off what was paid waits a moment, and goes with what comes next."""

import pytest
from tests.protocol.paying_clients import book, live_factory, lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol.channels.signing import LATE_SECONDS
from cromford.protocol.facts import Facts
from cromford.wire import messages as m

FIRST_MSAT = 50_000_000
AMOUNT_MSAT = 5_000_000
N_PAYMENTS = 5


@pytest.fixture
def pump() -> Pump:
    built = live_factory(2, watches_folds=True)
    for client in built.clients:
        pay(built, built.lsp, client, FIRST_MSAT)
    for node in (built.lsp, *built.clients):
        node.facts_at = lambda _own_height: Facts(may_sign_late=True)
    return built


def n_signed(pump: Pump) -> int:
    return sum(len(pump.sent(node, m.CommitmentSigned)) for node in (pump.lsp, *pump.clients))


def waiting(pump: Pump) -> list[PumpNode]:
    return [node for node, _ in pump.deadlines_of(fx.RevocationDeadline)]


def pass_moment(pump: Pump) -> None:
    for node, deadline in pump.deadlines_of(fx.RevocationDeadline):
        assert pump.deadlines[node.name, deadline] == LATE_SECONDS
        pump.pass_deadline(node, deadline)
    pump.run()


def is_quiet(pump: Pump) -> bool:
    links = [newest_link(client) for client in pump.clients]
    return all(link.state.is_quiet and lsp_link(pump, link).state.is_quiet for link in links)


def test_a_payment_is_told_before_the_last_signatures_of_both_hops(pump: Pump) -> None:
    payer, payee = pump.clients
    before = n_signed(pump)
    assert pay(pump, payer, payee, AMOUNT_MSAT).status == "paid"
    assert n_signed(pump) - before == 6
    assert waiting(pump) == [payer, pump.lsp]
    assert not is_quiet(pump)
    pass_moment(pump)
    assert n_signed(pump) - before == 8
    assert waiting(pump) == []
    assert is_quiet(pump)


def test_what_follows_at_once_is_signed_with_it(pump: Pump) -> None:
    payer, payee = pump.clients
    before = n_signed(pump)
    for _ in range(N_PAYMENTS):
        assert pay(pump, payer, payee, AMOUNT_MSAT).status == "paid"
    pass_moment(pump)
    assert n_signed(pump) - before == 6 * N_PAYMENTS + 2
    assert is_quiet(pump)


def test_what_was_given_back_is_signed_at_once(pump: Pump) -> None:
    payer, payee = pump.clients
    pump.disconnect(payee)
    assert pay(pump, payer, payee, AMOUNT_MSAT).status == "failed"
    assert waiting(pump) == []
    assert newest_link(payer).state.is_quiet


def test_a_connection_that_ends_meanwhile_takes_nothing_along(pump: Pump) -> None:
    payer, payee = pump.clients
    assert pay(pump, payer, payee, AMOUNT_MSAT).status == "paid"
    for client in pump.clients:
        pump.disconnect(client)
    pass_moment(pump)
    assert not is_quiet(pump)
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    pass_moment(pump)
    assert is_quiet(pump)


def test_a_crash_meanwhile_takes_nothing_along(pump: Pump) -> None:
    payer, payee = pump.clients
    assert pay(pump, payer, payee, AMOUNT_MSAT).status == "paid"
    for node in (payer, pump.lsp):
        pump.restart(node)
        pump.run()
    pass_moment(pump)
    assert is_quiet(pump)
    assert [one.status for one in book(payer).payments.values()] == ["paid"]


def test_what_was_paid_can_be_spent_before(pump: Pump) -> None:
    payer, payee = pump.clients
    assert pay(pump, payer, payee, AMOUNT_MSAT).status == "paid"
    assert waiting(pump) == [payer, pump.lsp]
    assert pay(pump, payee, payer, FIRST_MSAT + AMOUNT_MSAT // 5).status == "paid"
