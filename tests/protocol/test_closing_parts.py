"""Which part of a factory on chain an LSP's policy asks for next, where some refuse."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.closes import ended, finished
from tests.protocol.moving_clients import POLICY, factory_with_money, mine_to, old_of
from tests.protocol.pump import Pump, PumpNode, Tamper
from tests.protocol.test_moving_out import StayingPump

from cromford.protocol import events as ev
from cromford.protocol.dying_steps import CLOSE_RETRY_BLOCKS
from cromford.protocol.policy import DyingStep
from cromford.wire import messages as m

N_CLIENTS: Final = 8
N_PARTS: Final = 3  # Of two clients each; the fourth is being left.


def split_pump() -> Pump:
    """Return a world that dies soon, whose root somebody has brought on chain: it has parts."""
    policy = replace(POLICY, step_blocks=4, dying_policy=(DyingStep.CLOSE, DyingStep.SWEEP))
    pump = factory_with_money(
        N_CLIENTS, kind=StayingPump, amounts_msat=(5_000_000,) * N_CLIENTS, policy=policy
    )
    leaver = pump.client_at(N_CLIENTS)
    pump.handle(leaver, ev.ExitRequested(attempt_id=old_of(leaver).attempt_id))
    mine_to(pump, old_of(leaver).lifetime.dying_height - 1)
    return pump


def refusing_to_sign(refusers: Sequence[PumpNode]) -> Tamper:
    def tamper(sender: PumpNode, _receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender in refusers and isinstance(message, m.CloseSign):
            return (m.CloseEnd(close_id=message.close_id, reason="no"),)
        return (message,)

    return tamper


def closed_clients(pump: Pump) -> set[int]:
    """Return the clients of the parts that were closed."""
    links = pump.factory.book.links
    return {links[channel].client for record in finished(pump.lsp) for channel in record.channels}


@pytest.mark.sampled(0)
def test_all_parts_are_closed_one_after_the_other() -> None:
    """At last the channel that came on chain beside the one that is being left."""
    pump = split_pump()
    pump.mine(N_PARTS + 1)
    assert closed_clients(pump) == {1, 2, 3, 4, 5, 6, 7}
    assert not ended(pump.lsp)


@pytest.mark.sampled(0)
def test_who_refuses_again_and_again_keeps_only_its_own_part_open() -> None:
    """One part after the other is asked, however often the first ones come to nothing."""
    pump = split_pump()
    refusers = [pump.client_at(seat) for seat in (1, 3)]
    with pump.tampering(refusing_to_sign(refusers)):
        pump.mine(N_PARTS * CLOSE_RETRY_BLOCKS)
    assert closed_clients(pump) == {5, 6}
    assert len(ended(pump.lsp)) >= N_PARTS - 1
