"""Pictures of factories that were built, sold in, left and closed: by the views of both daemons."""

from typing import Any, Final

import pytest
from tests.picture.drawn import box_of, check, texts
from tests.picture.test_page import page_of
from tests.protocol.closes import closable_factory, close
from tests.protocol.markets import Market
from tests.protocol.paying_clients import live_factory, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import publish_branch

from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.picture.factory import factory_picture
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH

DAEMONS: Final[dict[str, Any]] = {
    "refused": [],
    "bump": None,
    "not_worth_sweeping": [],
    "seconds_left": None,
}


def lsp_root(pump: Pump) -> Any:
    document = {**lsp_views.show(pump.factory), **DAEMONS}
    assert page_of(document).tables["Transactions"]
    return check(factory_picture(document))


def client_root(node: PumpNode) -> Any:
    attempt = list(node.state.attempts.values())[-1]
    document = {**client_views.show(node.state, attempt, FRESH), "refused": []}
    assert page_of(document).tables["Transactions"]
    return check(factory_picture(document))


def test_a_live_factory() -> None:
    pump = live_factory(3)
    assert box_of(lsp_root(pump), "kickoff_root").letter == ""
    assert "your channel" in texts(client_root(pump.client_at(1)))
    assert [text for text in texts(lsp_root(pump)) if text.startswith("exit within")]


def test_a_factory_in_which_liquidity_was_sold() -> None:
    market = Market().with_money()
    market.advance(20_000)
    for root in (lsp_root(market.pump), client_root(market.buyer)):
        assert box_of(root, "state_root v1").letter == ""
        assert box_of(root, "state_root v1 superseded 1 older state").letter == "S"


@pytest.mark.sampled(0)
def test_a_factory_that_a_client_leaves() -> None:
    pump = live_factory(3)
    alice = pump.client_at(1)
    link = newest_link(alice)
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    pump.run()
    publish_branch(pump, link)
    for root in (lsp_root(pump), client_root(alice)):
        for name in ("kickoff_root", "state_root", "kickoff_0", "state_0"):
            assert box_of(root, name).letter == "C", name
        assert box_of(root, "channel of client 1").letter == "L"


@pytest.mark.sampled(0)
def test_a_factory_that_was_closed() -> None:
    pump = closable_factory(2)
    close(pump)
    pump.mine(1)
    for root in (lsp_root(pump), client_root(pump.client_at(1))):
        assert box_of(root, "kickoff_root").letter == "E"
