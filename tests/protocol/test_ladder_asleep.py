"""A factory with a fee ladder that is not in memory: the candidate it shows, and what wakes it."""

from typing import Final

import pytest
from tests.protocol.forked_world import ForkedPump
from tests.protocol.ladders import DEPTH, candidates, forked
from tests.protocol.paying_clients import begin_payment, book, pay
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_forked_fundings import shown
from tests.protocol.test_ladder_reorgs import bury, died, live_in
from tests.protocol.test_leaving import mute

from cromford.answers.factories import LspFactorySummary
from cromford.daemon.parts import read_label
from cromford.daemon.views import lsp as lsp_views
from cromford.protocol.exiting.rest import wakes_at
from cromford.wire import messages as m

PAID_MSAT: Final = 30_000_000


def live(rung: int) -> ForkedPump:
    """Return a world whose channels, in this candidate, hold money."""
    pump = forked()
    bury(pump, candidates(pump)[rung])
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, PAID_MSAT).status == "paid"
    return pump


def line(pump: ForkedPump) -> LspFactorySummary:
    """Return what an operator reads of a factory that sleeps."""
    assert pump.lsp.driver is not None
    label = pump.lsp.driver.label("factory:0")
    return lsp_views.as_it_slept(lsp_state(pump).house, read_label("factory:0", label).shown)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rung", [0, 2])
def test_it_shows_the_depth_of_the_candidate_that_is_live(rung: int) -> None:
    pump = live(rung)
    txid = str(candidates(pump)[rung].txid)
    all_away(pump)
    for depth in (DEPTH, DEPTH + 1):
        assert sleeping(pump) == {0}
        told = line(pump)
        assert (told["funding_txid"], told["confirmations"]) == (txid, depth)
        assert (told["status"], told["period"]) == ("live", "active")
        depths = [one["confirmations"] for one in told["candidates"]]
        assert depths == [depth if place == rung else 0 for place in range(3)]
        pump.mine_only()


@pytest.mark.sampled(0)
def test_a_line_that_an_older_version_wrote_has_no_candidates() -> None:
    pump = live(0)
    all_away(pump)
    assert pump.lsp.driver is not None
    written = read_label("factory:0", pump.lsp.driver.label("factory:0")).shown
    del written["candidates"]
    told = lsp_views.as_it_slept(lsp_state(pump).house, written)
    assert (told["candidates"], told["confirmations"]) == ([], DEPTH)


def test_a_reorganisation_to_another_candidate_wakes_it_and_back_again() -> None:
    pump = live(1)
    _, second, last = candidates(pump)
    all_away(pump)
    pump.take_back(DEPTH - 1)
    assert sleeping(pump) == {0}, "its funding is in a block"
    pump.take_back(1)
    assert sleeping(pump) == set()
    pump.lsp.checkpoint()
    assert sleeping(pump) == set(), "and is published again"
    for depth in range(DEPTH):
        pump.mine_only(*([] if depth else [last]))
        assert not died(pump.lsp) or depth == DEPTH - 1
        pump.lsp.checkpoint()
    assert died(pump.lsp) == [2], "it said so, and sleeps only then"
    assert lsp_state(pump).asleep[0].status == "displaced"
    assert sleeping(pump) == {0}
    told = line(pump)
    assert (told["status"], told["confirmations"]) == ("displaced", 0)
    assert [one["confirmations"] for one in told["candidates"]] == [0, 0, DEPTH]
    pump.mine_only()
    assert [one["confirmations"] for one in line(pump)["candidates"]] == [0, 0, DEPTH + 1]
    pump.take_back(DEPTH + 1)
    assert sleeping(pump) == set()
    bury(pump, second)
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    assert live_in(pump, 1)
    alice, bob = pump.clients
    assert pay(pump, alice, bob, 1_000_000).status == "paid"


@pytest.mark.sampled(0)
def test_what_is_under_way_in_a_candidate_that_lost_its_place_keeps_it_awake() -> None:
    """Who paid for an HTLC elsewhere waits for the end of it."""
    pump = live(0)
    _, bob = pump.clients
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        begin_payment(pump, pump.lsp, bob, 1_000_000)
    all_away(pump)
    assert any(link.state.htlcs for link in book(pump.lsp).links.values())
    pump.take_back(DEPTH)
    bury(pump, candidates(pump)[1])
    assert shown(pump)[0] == "displaced"
    assert wakes_at(pump.factory) is None
    pump.lsp.checkpoint()
    assert sleeping(pump) == set()
