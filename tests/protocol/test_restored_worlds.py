"""Whole worlds with restored stores: nobody is punished, and nobody loses but what it forgot.

One seed decides what everybody paid, whose stores are put back and how far, what messages are lost
meanwhile, and who leaves. Every commitment that anybody publishes is judged by the chain.
"""

import random

import pytest
from tests.protocol.paying_clients import live_factory, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import (
    QUICK,
    STEP_MSAT,
    Past,
    coins_sat,
    link_of,
    live_through,
    restore,
    signed_for_channels,
)
from tests.protocol.test_exit_guards import ask_to_leave, own_commitments
from tests.protocol.test_marked_exits import mute_about_the_restore, punished
from tests.simulation.seeds import seeds

from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.journal.mark import StoreMark
from cromford.wire import messages as m

SWEEP_SAT = 400
EXIT_BLOCKS = 40
BLOCKS_MAX = 500


def played(seed: int) -> tuple[Pump, Past, dict[str, int], random.Random]:
    """Let Alice be paid and pay, then put back one store of her channel, or both."""
    dice = random.Random(f"restored {seed}")
    pump = live_factory(2, policy=QUICK)
    amounts = [dice.choice([1, -1, -2]) * STEP_MSAT for _ in range(dice.randint(3, 5))]
    past = live_through(pump, amounts)
    whose = dice.choice([("alice",), ("lsp",), ("alice", "lsp")])
    lost = {name: dice.randint(0, 3) for name in whose}
    stores = {"alice": (pump.clients[0], past.alice), "lsp": (pump.lsp, past.lsp)}
    backups = [(stores[name][0], stores[name][1][-1 - n]) for name, n in lost.items()]

    def lossy(_by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if dice.random() < 0.2 and isinstance(message, m.ChannelMessage | m.MarkMessage):
            return ()
        return (message,)

    with pump.tampering(dice.choice([lossy, mute_about_the_restore, pump.tamper])):
        restore(pump, *backups)
    return pump, past, lost, dice


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(8))
def test_nobody_loses_by_a_restore_but_what_only_its_own_store_knew(seed: int) -> None:
    pump, past, lost, dice = played(seed)
    alice = pump.clients[0]
    nodes = {"alice": alice, "lsp": pump.lsp}
    n_signed = {name: signed_for_channels(pump, nodes[name]) for name in lost}
    for leaver in dice.choice([("alice",), ("lsp",), ("alice", "lsp"), ()]):
        ask_to_leave(pump, nodes[leaver], alice)
    outpoint = newest_link(alice).setting.funding.outpoint
    for _ in range(BLOCKS_MAX):
        if dice.random() < 0.02:
            pump.restart(nodes[dice.choice(sorted(nodes))])
            pump.run()
        pump.mine()
        if outpoint in alice.state.chain.spends:
            break
    pump.mine(EXIT_BLOCKS)
    for name in lost:
        assert signed_for_channels(pump, nodes[name]) == n_signed[name], name
        assert own_commitments(pump, nodes[name]) == [], name
    assert punished(pump, alice) == punished(pump, pump.lsp) == []
    if len(lost) == 1:
        assert pump.chain.coin(outpoint) is None, "the other one's commitment pays both"
        due_sat = past.alice_msat[-1] // MSAT_PER_SAT
        assert due_sat - SWEEP_SAT <= coins_sat(alice) <= due_sat
        return
    assert pump.chain.coin(outpoint) is not None, "it can still be closed, and nothing else"
    check_floors(pump, past, lost)


def check_floors(pump: Pump, past: Past, lost: dict[str, int]) -> None:
    """Where both sides compared, they agree on the later store; else each stands by its own."""
    own, lsps = newest_link(pump.clients[0]), link_of(pump, pump.lsp)
    later_msat = past.alice_msat[-1 - min(lost.values())]
    capacity_msat = own.state.opener_msat + own.state.accepter_msat
    assert isinstance(own.mark, StoreMark)
    assert isinstance(lsps.mark, StoreMark)
    mine_msat = later_msat if own.mark.agreed_msat else past.alice_msat[-1 - lost["alice"]]
    theirs_msat = later_msat if lsps.mark.agreed_msat else past.alice_msat[-1 - lost["lsp"]]
    assert least_close_msat(own) == mine_msat
    assert least_close_msat(lsps) == capacity_msat - theirs_msat
    assert min(past.alice_msat) <= mine_msat <= max(past.alice_msat)
