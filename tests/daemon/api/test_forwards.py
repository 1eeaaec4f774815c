"""What was passed on, asked of an operator that was put back from a backup.

Its next attempt has a number far beyond all that its store knew, millions of them.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.exits import POLICY, ExitPump
from tests.protocol.paying_clients import pay
from tests.protocol.sleepers import all_away, lsp_state, sleeping

from cromford.daemon.api.lsp_payments import LspPayments
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.restored import ATTEMPTS_SKIPPED

AMOUNT_MSAT: Final = 2_000_000
SECONDS: Final = 5
SKIPPED: Final = ATTEMPTS_SKIPPED + (1 << 25)  # As on the average.


class Events:
    """Of one journal."""

    journal_number = 1


class Operator:
    """A daemon of an LSP."""

    def __init__(self, pump: ExitPump) -> None:
        self._pump = pump
        self.driver: Any = pump.lsp.driver
        self.events = Events()
        self.height = 0

    @property
    def state(self) -> LspState:
        return lsp_state(self._pump)

    @property
    def book(self) -> Book:
        return self.state.book

    def call(self, method: str, **params: object) -> Any:
        handler = LspPayments(self).methods()[method]  # type: ignore[arg-type]  # as far as asked
        return asyncio.run(asyncio.wait_for(handler(params), SECONDS))


@pytest.fixture(params=[False, True], ids=["awake", "asleep"])
def operator(request: pytest.FixtureRequest) -> Operator:
    pump = ExitPump(0, n_clients=2, policy=POLICY)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 20 * AMOUNT_MSAT)
    pay(pump, alice, bob, AMOUNT_MSAT)
    if request.param:
        all_away(pump)
    assert bool(sleeping(pump)) == request.param
    driver = pump.lsp.driver
    assert driver is not None
    state = lsp_state(pump)
    driver.state = replace(state, house=replace(state.house, next_attempt=SKIPPED))
    return Operator(pump)


def test_all_that_was_passed_on_is_one_page(operator: Operator) -> None:
    answer = operator.call("forwards", limit=10)
    assert [one["amount_msat"] for one in answer["forwards"]] == [AMOUNT_MSAT]
    assert answer["next"] is None


def test_one_is_found_by_its_hash_at_once(operator: Operator) -> None:
    (listed,) = operator.call("forwards", limit=10)["forwards"]
    found = operator.call("forward_show", payment_hash=listed["payment_hash"])
    assert found["forwards"] == [listed]


def test_payments_are_listed_with_what_was_passed_on(operator: Operator) -> None:
    began = time.monotonic()
    answer = operator.call("payments", limit=10, label="none has it")
    assert [one["amount_msat"] for one in answer["forwards"]] == [AMOUNT_MSAT]
    assert time.monotonic() - began < SECONDS
