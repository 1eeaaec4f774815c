"""What an LSP's factories come to is what it would be if each scrape counted all of them."""

import gc
import itertools
from collections.abc import Callable
from dataclasses import replace
from weakref import ref

from immutables import Map
from tests.protocol.paying_clients import pay
from tests.protocol.pump import PumpNode
from tests.protocol.sleepers import SleepyNode, Village, live_through, lsp_state, settled

from cromford.daemon.factory_numbers import AllNumbers
from cromford.daemon.metrics import Sample
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.lsp_state import LspState

STALE = Facts(stale="the node does not answer")
UNMARKABLE = Facts(unmarkable="it is full")
PAID_MSAT = 1_000_000


def told(numbers: AllNumbers, state: LspState, facts: Facts = FRESH) -> list[Sample]:
    return list(numbers.samples(state, facts))


class Watched(Village):
    """A village whose LSP is scraped whenever something happened."""

    kept = AllNumbers()
    n_scrapes = 0

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Let everything arrive, and scrape; now and then while no risk may be taken."""
        super().run(until)
        state, self.n_scrapes = lsp_state(self), self.n_scrapes + 1
        for facts in (STALE, UNMARKABLE) if self.n_scrapes % 10 == 0 else ():
            assert told(self.kept, state, facts) == told(AllNumbers(), state, facts)
        assert told(self.kept, state) == told(AllNumbers(), state)


def test_a_scrape_says_what_counting_everything_anew_says() -> None:
    """Whoever comes and goes, pays, leaves, sleeps or starts again, and whatever a block undoes."""
    village = Watched(3, SleepyNode, n_clients=4)
    clients = iter(village.clients)
    for size in (2, 2):
        village.found(*itertools.islice(clients, size))
    live_through(village, 3)
    assert village.n_scrapes > 100


def test_what_was_counted_once_is_kept_in_memory_by_nobody() -> None:
    """Whoever asks once may never ask again, and factories fall asleep to leave memory."""
    state = lsp_state(settled(1, PumpNode, 1))
    numbers = AllNumbers()
    ((number, factory),) = state.factories.items()
    only = replace(state, factories=Map({number: replace(factory)}))
    (counted,) = (ref(one) for one in only.factories.values())
    (before,) = numbers.of(only, FRESH)
    assert numbers.of(only, FRESH)[0] is before
    del only
    gc.collect()
    assert counted() is None


def test_between_blocks_only_a_factory_that_changed_is_counted_anew() -> None:
    village = settled(1, PumpNode, 1, 1, 1)
    numbers = AllNumbers()
    before = numbers.of(lsp_state(village), FRESH)
    assert [one.status for one in before] == ["live"] * 3
    assert all(a is b for a, b in zip(before, numbers.of(lsp_state(village), FRESH), strict=True))
    assert pay(village, village.lsp, village.clients[1], PAID_MSAT).status == "paid"
    after = numbers.of(lsp_state(village), FRESH)
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True]
    moved_msat = before[1].amounts["own_msat"] - after[1].amounts["own_msat"]
    assert moved_msat == PAID_MSAT
    village.mine()
    assert not any(
        a is b for a, b in zip(after, numbers.of(lsp_state(village), FRESH), strict=True)
    )
