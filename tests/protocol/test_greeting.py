"""The first words on a connection: whose they are, on which network, and how often they count."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, UsualPump

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev


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


STRANGE: Final[dict[str, dict[str, Any]]] = {
    "another network": {"network": bytes(32)},
    "0 funding candidates, expected 1..4": {"candidates": 0},
    "5 funding candidates, expected 1..4": {"candidates": 5},
    "pools of 200 nonces for 4 funding candidates": {"candidates": 4, "pool_size": 200},
    "pools of 257 nonces, expected 64..256": {"pool_size": 257},
}


@pytest.mark.parametrize("reason", STRANGE)
def test_a_lobby_that_cannot_be_ours_is_left_at_once_with_the_reason(reason: str) -> None:
    pump = UsualPump(1)
    client = pump.clients[0]
    lobby = replace(client.state.lobby, **STRANGE[reason])
    pump.disconnect(client)
    pump.handle(client, ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT))
    pump.handle(client, ev.ConnectionOpened(node_id=pump.lsp.node_id))
    pump.tell(client, pump.lsp, lobby)
    assert [effect.reason for effect in pump.wishes(client, fx.Disconnect)] == [reason]
    assert not pump.wishes(client, fx.PrepareJoin), "no key is made for it"
    assert client.state.wish is not None, "the wish waits for the right one"
