"""Three proven faults close the lobby for a day, and silence never does."""

import pytest
from tests.protocol.attacks import at_height, join_of, lone, refusal, with_house
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal.house import BAN_BLOCKS, FAULTS_TO_BAN
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.pause import PAUSE_BLOCKS
from cromford.protocol.journal.streams import HOUSE
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

# Bans


def spoil(pump: Pump, culprit: PumpNode) -> None:
    """Let a client spoil one ceremony provably, with a root before its time.

    The blocks before it make the last one too old for the others to do without this client.
    """
    block(pump, PAUSE_BLOCKS + 1)
    pump.join_again()
    pump.build()
    attempt = pump.attempt
    early = m.SignRoot(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        partial_sigs=(bytes(32),),
    )
    pump.tell(pump.lsp, culprit, early)
    pump.handle(pump.lsp, ev.DeadlineReached(stream=HOUSE, deadline=fx.RejoinDeadline()))
    pump.wire.clear()
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()


def block(pump: Pump, n_blocks: int) -> None:
    for _ in range(n_blocks):
        height = pump.lsp.state.chain.height + 1
        event = ev.BlockAdded(height=height, block_hash=pump.chain.blocks[0][0], txs=())
        pump.handle(pump.lsp, event)


@pytest.mark.parametrize(
    ("heights", "is_banned"),
    [
        ((), False),
        ((100, 100), False),
        ((100, 100, 100), True),
        ((100, 172, 244), True),
        ((100, 172, 245), False),
    ],
)
def test_three_faults_within_144_blocks_ban_for_144_blocks(
    heights: tuple[int, ...], *, is_banned: bool
) -> None:
    pump = lone()
    client = pump.clients[0]
    join = join_of(pump, client)
    state = with_house(pump.lsp.state, members={}, faults={client.node_id: heights})
    last = heights[-1] if heights else 100

    def answer(height: int) -> Decision[LspState]:
        event = ev.MessageReceived(node_id=client.node_id, message=join)
        return lsp_role.decide(at_height(state, height), event)

    until = last + BAN_BLOCKS
    for height in (last, until - 1):
        if is_banned:
            assert f"join again from height {until}" in refusal(answer(height))
        else:
            assert answer(height).records
    assert answer(until).records, "the ban is over"


def test_a_client_that_spoils_three_ceremonies_is_banned_and_the_others_are_not() -> None:
    pump = Pump(3)
    culprit = pump.clients[0]
    for n in range(FAULTS_TO_BAN):
        assert pump.lsp.state.house.banned_until(culprit.node_id) is None, n
        spoil(pump, culprit)
    assert len(pump.lsp.state.house.faults[culprit.node_id]) == FAULTS_TO_BAN
    assert pump.lsp.state.house.banned_until(culprit.node_id) is not None
    assert "too many faults" in (culprit.state.refusal or "")
    for other in pump.clients[1:]:
        assert pump.lsp.state.house.banned_until(other.node_id) is None
        assert other.node_id in pump.lsp.state.house.members


def test_a_ban_survives_a_restart_of_the_lsp() -> None:
    pump = Pump(3)
    culprit = pump.clients[0]
    for _ in range(FAULTS_TO_BAN):
        spoil(pump, culprit)
    until = pump.lsp.state.house.banned_until(culprit.node_id)
    pump.restart(pump.lsp)
    pump.run()
    assert until is not None
    assert pump.lsp.state.house.banned_until(culprit.node_id) == until


def test_silence_is_no_fault_and_bans_nobody_for_a_day() -> None:
    pump = Pump(3)
    silent = pump.clients[0]
    for _ in range(FAULTS_TO_BAN):
        pump.join_again()
        pump.build()
        pump.disconnect(silent)
        pump.connect(silent)
        pump.wire.clear()
        for client in pump.clients[1:]:
            pump.disconnect(client)
            pump.connect(client)
        pump.handle(pump.lsp, ev.DeadlineReached(stream=HOUSE, deadline=fx.RejoinDeadline()))
        pump.run()
    assert silent.node_id not in pump.lsp.state.house.faults
    assert pump.lsp.state.house.banned_until(silent.node_id) is None
