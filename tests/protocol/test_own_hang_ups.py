"""An LSP hangs up on a client for a reason of its own: nobody is named for what ends with it."""

from typing import Final

import pytest
from tests.protocol.attacks import culprits_of, proposed
from tests.protocol.closes import closable_factory, close
from tests.protocol.old_states import told
from tests.protocol.paying_clients import live_factory
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_stopped_factories import stopped

from cromford import effects as fx
from cromford.bitcoin.tx import Txid
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal import close_records as cl
from cromford.wire import messages as m

STEPS: Final = (m.SignBelow, m.SignRoot)


def hang_up(pump: Pump, client: PumpNode, *, is_ours: bool) -> None:
    if is_ours:
        pump.let_go.add(client.name)
    pump.disconnect(client)


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_ceremony_that_ends_by_our_hanging_up_costs_nobody_anything(
    step: type[m.Message], *, is_ours: bool
) -> None:
    pump = proposed()
    pump.run_to(step)
    attempt, client = pump.attempt, pump.client_at(2)
    hang_up(pump, client, is_ours=is_ours)
    house, ended = pump.lsp.state.house, pump.lsp.state.attempts[attempt.attempt_id]
    assert culprits_of(ended) == (() if is_ours else (client.node_id,))
    assert (client.node_id in house.aborts) is not is_ours
    told_why = "the LSP hung up on client 2" if is_ours else "client 2 disconnected"
    assert ended.aborted == told_why
    pump.connect(client)
    pump.run()
    assert house.pause_of(client.node_id) is None


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_close_that_ends_by_our_hanging_up_names_nobody(*, is_ours: bool) -> None:
    pump = closable_factory(2)
    client = pump.client_at(1)

    def tamper(sender: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        return () if sender is client and isinstance(message, m.CloseAgree) else (message,)

    with pump.tampering(tamper):
        close(pump)
    hang_up(pump, client, is_ours=is_ours)
    pump.run()
    (ended,) = told(pump.lsp, cl.CloseEnded)
    assert ended.culprits == (() if is_ours else (client.node_id,))
    assert len(told(pump.client_at(2), cl.CloseEnded)) == 1, "the other hears of it"


def test_to_begin_again_after_a_bug_is_our_doing() -> None:
    pump = live_factory(2)
    height = pump.lsp.state.scan.height + 1
    event = ev.BlockAdded(height=height, block_hash=Txid(bytes(32)), txs=())
    decision = lsp_role.decide(stopped(pump), event)
    parted = [one for one in decision.effects if isinstance(one, fx.Disconnect)]
    assert {one.node_id for one in parted} == {client.node_id for client in pump.clients}
    assert all(one.is_ours for one in parted)
