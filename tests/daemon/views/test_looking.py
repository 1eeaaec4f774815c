"""A client is told how often its node must see the chain: more often while it is leaving."""

from tests.protocol.paying_clients import live_factory

from cromford.daemon.views.client import summary
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.policy import LspPolicy

PATIENT = LspPolicy(min_clients=1, step_blocks=24, states_per_layer=2, lstock_csv_blocks=24)


def test_a_path_in_sight_is_looked_at_every_six_blocks() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    (attempt_id,) = alice.state.attempts

    def look_blocks() -> object:
        return summary(alice.state, alice.state.attempts[attempt_id], FRESH)["look_blocks"]

    assert look_blocks() == 12
    pump.handle(alice, ev.ExitRequested(attempt_id=attempt_id))
    pump.run()
    pump.mine(1)
    assert look_blocks() == 6
