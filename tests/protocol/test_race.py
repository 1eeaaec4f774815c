"""Once a kickoff is in a block both roles publish its newest state, leaving or not."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol import test_leaving as leaving
from tests.protocol.paying_clients import live_factory
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_neighbours_leave import root_of
from tests.protocol.unanswered import remove_blocks
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.tx import Tx

QUICK: Final = replace(leaving.QUICK, step_blocks=6)


def state_of(client: PumpNode) -> tuple[Tx, int]:
    """Return the root's state as a client holds it, and its delay."""
    (attempt,) = client.state.attempts.values()
    node = tuple(attempt.branch.nodes)[1]
    tx: Tx = attempt.signed_branch.txs[1]
    return tx, node.delay_blocks


def asked(pump: Pump, node: PumpNode, tx: Tx) -> int:
    return sum(wish.tx.txid == tx.txid for wish in pump.wishes(node, fx.Broadcast))


def raced() -> tuple[Pump, Tx, int]:
    """Return a factory whose root's kickoff a stranger confirmed, its state and the delay."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    state, delay_blocks = state_of(pump.clients[0])
    assert delay_blocks > 2
    pump.chain.broadcast(root_of(pump.clients[0]))
    pump.mine()
    return pump, state, delay_blocks


def test_nobody_is_too_early_and_nobody_is_late() -> None:
    pump, state, delay_blocks = raced()
    everybody = (pump.lsp, *pump.clients)
    pump.mine(delay_blocks - 2)
    assert [asked(pump, node, state) for node in everybody] == [0, 0, 0], "BIP 68 forbids it"
    pump.mine()
    assert [asked(pump, node, state) for node in everybody] == [1, 1, 1]
    pump.mine()
    assert state.txid in pump.chain.confirmed, "in the first block that can hold it"
    pump.mine()
    assert [asked(pump, node, state) for node in everybody] == [1, 1, 1], "it is done"


@pytest.mark.parametrize("who", ["lsp", "client"])
def test_whoever_slept_publishes_it_when_it_wakes_and_at_every_block(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump, state, delay_blocks = raced()
    node = pump.lsp if who == "lsp" else pump.clients[1]
    monkeypatch.setattr(pump.chain, "broadcast", _refuse)
    pump.mine(delay_blocks - 1)
    n_before = asked(pump, node, state)
    pump.restart(node)
    pump.run()
    assert asked(pump, node, state) == n_before + 1, "at each start"
    pump.mine(2)
    assert asked(pump, node, state) == n_before + 3, "and at every block, until one has it"


def test_a_reorganisation_stops_the_clock_and_it_starts_anew_with_the_kickoff() -> None:
    pump, state, delay_blocks = raced()
    everybody = (pump.lsp, *pump.clients)
    pump.mine(delay_blocks - 2)
    remove_blocks(pump, delay_blocks - 1)
    pump.mine(delay_blocks + 2)
    assert [asked(pump, node, state) for node in everybody] == [0, 0, 0], "no kickoff, no clock"
    pump.chain.broadcast(root_of(pump.clients[0]))
    pump.mine(delay_blocks)
    assert [asked(pump, node, state) for node in everybody] == [1, 1, 1]


def test_nobody_pays_for_a_race_in_which_no_older_state_runs() -> None:
    pump, state, delay_blocks = raced()
    pump.mine(delay_blocks - 1)
    for node in (pump.lsp, *pump.clients):
        (wish,) = [one for one in pump.wishes(node, fx.Broadcast) if one.tx.txid == state.txid]
        assert wish.bumping is None


def _refuse(_tx: Tx) -> None:
    raise SimRefused("mempool full")
