"""A close as its LSP's operator and a client read it, step by step."""

import pytest
from tests.protocol.closes import ask_for_close, closable_factory, close
from tests.protocol.paying_clients import newest_link
from tests.protocol.restoring import restore
from tests.protocol.test_marked_channels import used_factory

from cromford.daemon.views import client as client_views
from cromford.daemon.views import closing as closing_views
from cromford.daemon.views import lsp as lsp_views
from cromford.protocol import events as ev
from cromford.protocol.closing.planning import plan_close
from cromford.protocol.facts import FRESH
from cromford.wire import messages as m


def test_a_close_is_shown_with_who_did_its_part_and_who_holds_out() -> None:
    pump = closable_factory(2)
    ask_for_close(pump, feerates_sat_per_kw=(750, 1_500))
    shown = lsp_views.summary(pump.factory)["closing"]
    assert shown is not None
    assert shown["phase"] == "agreeing"
    assert (shown["done"], shown["holdouts"]) == ([], [1, 2])
    assert shown["feerates_sat_per_vb"] == [3.0, 6.0]
    assert shown["outpoint"] == str(pump.attempt.funding_outpoint)
    pump.run_to(m.CloseSign)
    pump._deliver(pump._next_letter())
    shown = lsp_views.summary(pump.factory)["closing"]
    assert shown is not None
    assert (shown["name"], shown["phase"]) == ("kickoff_root", "signing")
    assert (shown["done"], shown["holdouts"]) == ([1], [2])
    client = pump.client_at(1)
    own = client_views.summary(client.state, pump.held(client), FRESH)["closing"]
    assert own is not None
    assert own["close_id"] == shown["close_id"]
    assert (own["phase"], own["balance_msat"]) == ("signing", 30_000_123)


def test_one_that_ended_says_why_and_one_that_is_finished_what_is_published() -> None:
    pump = closable_factory(2)
    ask_for_close(pump)
    pump.run_to(m.CloseAgree)
    pump.disconnect(pump.client_at(2))
    summary = lsp_views.summary(pump.factory)
    assert (summary["closing"], summary["close_ended"]) == (None, "client 2 disconnected")
    pump.run()
    pump.connect(pump.client_at(2))
    pump.run()
    close(pump)
    summary = lsp_views.summary(pump.factory)
    assert (summary["closing"], summary["close_ended"]) == (None, None)
    (closed,) = summary["closed"]
    assert closed["confirmations"] == 0
    pump.mine(2)
    (closed,) = lsp_views.summary(pump.factory)["closed"]
    assert closed["confirmations"] == 2
    client = pump.client_at(1)
    (own,) = client_views.summary(client.state, pump.held(client), FRESH)["closed"]
    assert own["txids"] == closed["txids"]


@pytest.mark.parametrize("side", ["client", "lsp"])
def test_what_is_planned_names_whose_stores_were_restored(side: str) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    node, backup = (alice, past.alice[-1]) if side == "client" else (pump.lsp, past.lsp[-1])
    restore(pump, (node, backup))
    asked = ev.CloseRequested(attempt_id=pump.attempt.attempt_id)
    plan = plan_close(pump.factory, pump.lsp.facts, asked)
    shown = closing_views.planned_close(pump.factory, plan)["clients"]
    seat = pump.lsp.state.book.links[newest_link(alice).channel_id].client
    (planned,) = [one for one in shown if one["client"] == seat]
    assert planned["restored"] == [side]
    assert planned["due_msat"] == past.alice_msat[-1]
    others = [one["restored"] for one in shown if one["client"] != seat]
    assert others == [[] if side == "client" else ["lsp"]]
