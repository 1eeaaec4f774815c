"""How often a payment is written to a disk: as often as something waits for it, and no more."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest
from tests.protocol.paying_clients import book, make_invoice, open_factory, pay
from tests.protocol.pump import LingeringNode, Pump

FIRST_MSAT: Final = 50_000_000
AMOUNT_MSAT: Final = 1_000_000
N_TOGETHER: Final = 10


class LingeringPump(Pump):
    """A world whose daemons write as they do in production."""

    lsp_kind = client_kind = LingeringNode


@pytest.fixture
def pump() -> LingeringPump:
    built = LingeringPump(2)
    open_factory(built)
    for client in built.clients:
        assert pay(built, built.lsp, client, FIRST_MSAT).status == "paid"
    return built


def appends(pump: Pump, act: Callable[[], object]) -> Counter[str]:
    """Return how often each wrote while something was done, and nothing had to wait any more."""

    def written() -> Counter[str]:
        found: Counter[str] = Counter()
        for node in (pump.lsp, *pump.clients):
            assert node.disk is not None
            assert not node.disk.is_behind
            found[node.name] = node.disk.n_appends
        return found

    before = written()
    act()
    return written() - before


def pay_together(pump: Pump) -> None:
    """Let one client ask for ten payments to the other before anything is said of them."""
    payer, payee = pump.clients
    requests = [make_invoice(pump, payee, AMOUNT_MSAT) for _ in range(N_TOGETHER)]
    payee.settle()
    for request in requests:
        pump.handle(payer, request)
    pump.run()
    statuses = {book(payer).payments[one.payment_hash].status for one in requests}
    assert statuses == {"paid"}


def test_a_payment_is_fourteen_appends_of_which_the_lsp_makes_seven(pump: LingeringPump) -> None:
    payer, payee = pump.clients
    found = appends(pump, lambda: pay(pump, payer, payee, AMOUNT_MSAT))
    assert found == {"lsp": 7, payer.name: 4, payee.name: 3}


def test_ten_at_once_are_three_appends_each(pump: LingeringPump) -> None:
    payer, payee = pump.clients
    found = appends(pump, lambda: pay_together(pump))
    assert found == {"lsp": 14, payer.name: 9, payee.name: 7}
