"""A factory in which a bug was met: what its clients hear meanwhile, and what is left of it."""

from typing import Any

import pytest
from tests.protocol.attacks import proposed
from tests.protocol.paying_clients import live_factory, newest_link
from tests.protocol.pump import Pump
from tests.protocol.test_neighbours_leave import root_of

from cromford import effects as fx
from cromford.bitcoin.tx import Txid
from cromford.daemon.parts import LspParts
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting import lsp as exiting
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import StreamBug, Turn
from cromford.wire import messages as m


def stopped(pump: Pump) -> LspState:
    """Return the LSP's state after a bug was met in its newest factory."""
    fault = StreamBug(pump.factory.stream, AssertionError("a bug"))
    state = lsp_role.stop(pump.lsp.state, fault)
    assert state is not None
    return state


def test_a_client_that_comes_back_does_not_hear_that_a_stopped_ceremony_is_over() -> None:
    pump = proposed(1)
    pump.run_to(m.SignedRoot)
    (client,) = pump.clients
    attempt = pump.attempt
    message = m.Resume(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    event = ev.MessageReceived(node_id=client.node_id, message=message)
    (answer,) = lsp_role.decide(pump.lsp.state, event).effects
    assert isinstance(answer, fx.Send)
    assert isinstance(answer.message, m.SignedRoot)
    assert lsp_role.decide(stopped(pump), event).is_nothing


def test_a_factory_that_is_taken_up_again_keeps_no_nonces_of_the_sessions_before() -> None:
    pump = live_factory(2)
    links = [pump.lsp.state.book.links[newest_link(client).channel_id] for client in pump.clients]
    held = {link.pool_id for link in links}
    assert None not in held
    state: Any = pump.lsp.state
    height, block_hash = state.scan.height + 1, Txid(bytes(32))
    event = ev.BlockAdded(height=height, block_hash=block_hash, txs=())
    decision = lsp_role.decide(stopped(pump), event)
    assert not decision.state.stopped
    assert all(not link.has_session for link in decision.state.book.links.values())
    dropped = [one.pool_ids for one in decision.effects if isinstance(one, fx.DropPools)]
    assert {pool_id for pool_ids in dropped for pool_id in pool_ids} == held


def test_a_factory_that_takes_old_news_late_begins_with_the_new_block_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = live_factory(1)
    (client,) = pump.clients
    begin, heights = exiting.on_block, []

    def on_block(turn: Turn[Factory]) -> None:
        heights.append(turn.height)
        if len(heights) == 1:
            raise AssertionError("a bug, once")
        begin(turn)

    monkeypatch.setattr(exiting, "on_block", on_block)
    state: Any = pump.lsp.state
    height = state.scan.height
    news = ev.BlockAdded(height=height + 1, block_hash=Txid(b"1" * 32), txs=(root_of(client),))
    state = lsp_role.decide(state, news).state
    assert list(state.stopped) == [pump.factory.stream]
    empty = ev.BlockAdded(height=height + 2, block_hash=Txid(b"2" * 32), txs=())
    state = lsp_role.decide(state, empty).state
    assert not state.stopped
    assert heights == [height + 1, height + 1, height + 2]


def test_a_stopped_factory_is_not_written_down_to_sleep() -> None:
    pump = live_factory(1)
    pump.disconnect(pump.clients[0])
    assert list(LspParts().quiet(pump.lsp.state)) == [pump.factory.stream]
    assert list(LspParts().quiet(stopped(pump))) == []
