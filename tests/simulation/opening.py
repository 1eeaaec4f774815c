"""The opening ceremony in one simulated world: what must hold, whatever fails."""

import random

from cromford.factory.terms import FeePolicy
from tests.simulation.sim_node import durable
from tests.simulation.world import Weather, World, troubled


def run_opening(seed: int) -> str:
    """Run one world from its seed and check everything; return a line that describes it."""
    rng = random.Random(f"opening {seed}")
    n_clients = rng.randint(1, 5)
    weather = rng.choice(
        (
            Weather(),
            Weather(crash_rate=0.01),
            Weather(cut_rate=0.03),
            Weather(crash_rate=0.01, cut_rate=0.02),
            Weather(silent_clients=frozenset({rng.randrange(n_clients)})),
            Weather(crash_rate=0.05, cut_rate=0.05),
        )
    )
    weather = troubled(weather, seed)
    fee_policy = rng.choice((FeePolicy.ENDOGENOUS, FeePolicy.EPHEMERAL))
    world = World(seed, n_clients=n_clients, weather=weather, fee_policy=fee_policy)
    world.build()
    for _ in range(4):
        world.mine()
        world.run()
    world.calm()
    world.run()
    world.mine(6)
    check_rest(world)
    n_left = world.exit_everybody()
    if weather == Weather():
        assert len(world.funded) == 1, "in fair weather there is a factory"
        assert n_left == n_clients, "in fair weather everybody is in it"
    return f"{n_clients} clients, {weather}: {len(world.funded)} funded, {n_left} left"


def check_rest(world: World) -> None:
    """Check what holds once nothing moves any more."""
    lsp = durable(world.lsp.state)
    for attempt in lsp.attempts.values():
        assert attempt.aborted is not None or attempt.funded is not None, (
            "a ceremony is neither over nor funded"
        )
        if attempt.aborted is not None:
            assert attempt.attempt_id not in lsp.wallet.reserved.values(), "coins stay reserved"
    replayed = world.lsp.durable_state()
    assert replayed.attempts.keys() == lsp.attempts.keys()
    assert replayed.wallet == lsp.wallet, "the journal replays to the same wallet"
    for client in world.clients:
        assert client.durable_state().chain == client.state.chain
        for attempt in client.state.attempts.values():
            assert attempt.aborted is not None or attempt.ready_sent or attempt.given_up, (
                f"{client.name} still waits at {attempt.stage}"
            )
