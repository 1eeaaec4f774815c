"""The first words on a connection: whose they are, on which network, and how often they count."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import live_factory, pay
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode, UsualPump

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.lobby.client import objection


def test_a_client_talks_to_its_own_lsp_and_to_nobody_else() -> None:
    pump = Pump(2)
    client, other = pump.clients
    decision = client_role.decide(client.state, ev.ConnectionOpened(node_id=other.node_id))
    reason = "not the LSP this client was started for"
    assert decision.records == ()
    assert decision.effects == (fx.Disconnect(node_id=other.node_id, reason=reason),)


def test_a_greeting_counts_once_in_a_connection() -> None:
    """A second one could change what the operator's wish was measured against."""
    pump = UsualPump(1)
    client = pump.clients[0]
    greeted = client.state.lobby
    pump.tell(client, pump.lsp, replace(greeted, capacity_min_sat=1))
    assert client.state.lobby == greeted


def greeted_anew(**changes: Any) -> tuple[UsualPump, PumpNode]:
    """Return a client with a wish that its LSP greets otherwise than before."""
    pump = UsualPump(1)
    client = pump.clients[0]
    lobby = replace(client.state.lobby, **changes)
    pump.disconnect(client)
    pump.handle(client, ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT))
    pump.handle(client, ev.ConnectionOpened(node_id=pump.lsp.node_id))
    pump.tell(client, pump.lsp, lobby)
    assert not pump.wishes(client, fx.PrepareJoin), "no key is made for it"
    assert client.state.wish is not None, "the wish waits for the right one"
    return pump, client


def test_an_lsp_of_another_network_is_left_at_once() -> None:
    pump, client = greeted_anew(network=bytes(32))
    assert [one.reason for one in pump.wishes(client, fx.Disconnect)] == ["another network"]


STRANGE: Final[dict[str, dict[str, Any]]] = {
    "0 funding candidates, expected 1..4": {"candidates": 0},
    "5 funding candidates, expected 1..4": {"candidates": 5},
    "pools of 200 nonces for 4 funding candidates": {"candidates": 4, "pool_size": 200},
    "pools of 257 nonces, expected 64..256": {"pool_size": 257},
}


@pytest.mark.parametrize("reason", STRANGE)
def test_a_lobby_that_cannot_be_ours_is_not_joined_and_its_lsp_not_left(reason: str) -> None:
    """It may say so of the next factory, while we have a channel in this one."""
    pump, client = greeted_anew(**STRANGE[reason])
    assert objection(client.state) == reason
    assert pump.wishes(client, fx.Disconnect) == []
    pump.mine()
    assert not pump.wishes(client, fx.PrepareJoin)


def test_an_lsp_that_asks_for_more_than_a_client_gives_goes_on_with_its_channels() -> None:
    """Its next start has larger pools: whoever would hang up could neither pay nor be paid."""
    pump = live_factory(2)
    alice, bob = pump.clients
    policy = replace(pump.policy, pool_size=alice.client_policy.pool_size[1] + 1)
    pump.lsp.lsp_policy = policy
    pump.restart(pump.lsp)
    pump.run()
    assert objection(alice.state) is not None
    assert pay(pump, pump.lsp, alice, 20_000_000).status == "paid"
    assert pay(pump, alice, bob, 1_000_000).status == "paid"
