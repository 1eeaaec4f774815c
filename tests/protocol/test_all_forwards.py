"""What was passed on in all factories, seen together: the newest, however many there are."""

from dataclasses import replace
from typing import Final

import pytest
from immutables import Map
from tests.protocol.exits import POLICY, ExitPump
from tests.protocol.paying_clients import make_invoice, pay
from tests.protocol.sleepers import lsp_state

from cromford.protocol.journal import lsp_state as module
from cromford.protocol.journal.book import Forward
from cromford.protocol.journal.lsp_state import LspState

KEPT_MAX: Final = 8


def busy(*kept: int, before: int = 0) -> LspState:
    """Return an LSP in whose factories so much is listed, and more than that was passed on."""
    pump = ExitPump(0, n_clients=2, policy=POLICY)
    assert pay(pump, pump.lsp, pump.clients[0], 50_000_000).status == "paid"
    pump.handle(pump.clients[0], make_invoice(pump, pump.clients[1], 2_000_000))
    pump.run()
    state = lsp_state(pump)
    factory = state.factory(0)
    (forward,) = factory.book.finished.values()
    for number, n_kept in enumerate(kept):
        finished = Map({before + n: marked(forward, number, n) for n in range(n_kept)})
        book = replace(factory.book, finished=finished, n_finished=before + n_kept)
        state = state.with_factory(replace(factory, number=number, book=book))
    return state


def marked(forward: Forward, number: int, n: int) -> Forward:
    """Return the nth forward of a factory."""
    return replace(forward, fee_msat=1000 * number + n)


def fees(state: LspState) -> list[int]:
    """Return what is listed, newest first, and check that it is numbered so."""
    book = state.book
    numbers = sorted(book.finished, reverse=True)
    newest = book.n_finished - 1
    assert numbers == [*range(newest, newest - len(numbers), -1)]
    return [book.finished[number].fee_msat for number in numbers]


@pytest.mark.parametrize("before", [0, 100])
def test_all_factories_together_list_no_more_than_one_may(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(module, "FORWARDS_KEPT_MAX", KEPT_MAX)
    state = busy(5, 0, 6, before=before)
    assert fees(state) == [2005, 2004, 2003, 2002, 2001, 2000, 4, 3]
    assert state.book.n_finished == 11 + 3 * before


def test_few_are_all_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORWARDS_KEPT_MAX", KEPT_MAX)
    assert fees(busy(2, 1)) == [1000, 1, 0]
    assert fees(busy(0)) == []
