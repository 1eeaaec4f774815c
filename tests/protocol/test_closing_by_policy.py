"""What an LSP closes by itself of a factory that dies: the largest part first, one at a time."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import nothing, only_from
from tests.protocol.moving_clients import (
    MovingPump,
    factory_with_money,
    mine_to,
    told,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_moving_out import StayingPump

from cromford import effects as fx
from cromford.factory.kinds import VertexKind
from cromford.factory.lifetime import Lifetime
from cromford.protocol import events as ev
from cromford.protocol.dying_steps import Closers, closers_at
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.policy import DyingStep, LspPolicy
from cromford.wire import messages as m

MOVE, SWEEP = DyingStep.MOVE, DyingStep.SWEEP
# From half of it until 144 blocks before its end: 57 blocks, in which it is asked for twice.
DYING_BLOCKS: Final = 400
POLICY: Final = LspPolicy(
    min_clients=2,
    min_depth=1,
    step_blocks=4,
    states_per_layer=2,
    lstock_csv_blocks=4,
    to_self_delay_lsp=4,
    to_self_delay_client=4,
    inner_kind=VertexKind.STATIC,
    active_blocks=150,
    ready_min_blocks=100,
    dying_blocks=DYING_BLOCKS,
)
# Here the next factory outlives the one that dies.
MOVING_POLICY: Final = replace(POLICY, active_blocks=620)
AMOUNTS_MSAT: Final = (30_000_123, 20_000_000, 15_000_000, 25_000_000)


def world_of(kind: type[Pump] = StayingPump, *, policy: LspPolicy = POLICY) -> Pump:
    """Return a factory of two leaves of two, a block before it dies."""
    pump = factory_with_money(4, amounts_msat=AMOUNTS_MSAT, kind=kind, policy=policy)
    mine_to(pump, pump.factory.lifetime.dying_height - 1)
    return pump


class JammedPump(StayingPump):
    """A world in which nothing is taken into a mempool for a while."""

    is_jammed = False

    def _publish(self, node: PumpNode, asked: fx.Broadcast) -> Iterable[ev.Event]:
        return () if self.is_jammed else super()._publish(node, asked)


def half_of(factory: Factory) -> int:
    return factory.lifetime.share_height(50)


def begun(pump: Pump) -> list[tuple[str, tuple[int, ...]]]:
    """Return the closes that the LSP began, in order."""
    return [(one.name, one.clients) for one in told(pump.lsp, cl.CloseBegun)]


def confirmed_heights(pump: Pump) -> list[int]:
    return [one.height for one in told(pump.lsp, cl.CloseConfirmed)]


@pytest.mark.sampled(0)
def test_where_nobody_is_here_nobody_is_asked() -> None:
    pump = world_of()
    for client in pump.clients:
        pump.disconnect(client)
    mine_to(pump, pump.factory.lifetime.exit_deadline_height - 1)
    assert len(told(pump.lsp, dr.CloseWanted)) == 2
    assert not begun(pump)


@pytest.mark.sampled(0)
def test_where_everybody_is_here_all_of_it_is_closed_at_once() -> None:
    pump = world_of()
    half = half_of(pump.factory)
    mine_to(pump, half - 1)
    assert not begun(pump)
    mine_to(pump, half + 10)
    assert begun(pump) == [("static_root", (1, 2, 3, 4))]
    assert confirmed_heights(pump) == [half + 1]


def test_whoever_comes_back_is_asked_with_the_next_block() -> None:
    pump = world_of()
    half = half_of(pump.factory)
    late = pump.clients[2]
    pump.disconnect(late)
    mine_to(pump, half + 5)
    assert not begun(pump)
    pump.connect(late)
    pump.run()
    assert not begun(pump)
    mine_to(pump, half + 7)
    assert confirmed_heights(pump) == [half + 7]
    assert [one.height for one in told(pump.lsp, dr.CloseWanted)] == [half]


@pytest.mark.sampled(0)
def test_part_by_part_the_largest_first_and_each_with_the_block_after_the_last() -> None:
    pump = world_of()
    half = half_of(pump.factory)
    leaver = pump.client_at(1)
    pump.handle(leaver, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    mine_to(pump, half + 10)
    assert begun(pump) == [("kickoff_1", (3, 4)), ("channel 2", (2,))]
    assert confirmed_heights(pump) == [half + 1, half + 2]
    assert not told(pump.lsp, cl.CloseEnded)


@pytest.mark.sampled(0)
def test_the_next_part_does_not_wait_for_the_block_of_the_one_before() -> None:
    pump = world_of(JammedPump)
    assert isinstance(pump, JammedPump)
    half = half_of(pump.factory)
    pump.handle(pump.client_at(1), ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    mine_to(pump, half - 1)
    pump.is_jammed = True
    mine_to(pump, half + 5)
    assert begun(pump) == [("kickoff_1", (3, 4)), ("channel 2", (2,))], "each once"
    assert not confirmed_heights(pump)
    pump.is_jammed = False
    mine_to(pump, half + 7)
    assert confirmed_heights(pump) == [half + 7] * 2


def test_after_a_close_that_came_to_nothing_nobody_is_asked_for_36_blocks() -> None:
    pump = world_of()
    half = half_of(pump.factory)
    mine_to(pump, half - 1)
    silent = pump.client_at(3)
    with pump.tampering(only_from(silent, nothing, m.CloseAgree)):
        pump.mine()
    pump.disconnect(silent)
    pump.connect(silent)
    pump.run()
    assert [one.reason for one in told(pump.lsp, cl.CloseEnded)]
    mine_to(pump, half + 35)
    assert len(begun(pump)) == 1
    pump.mine()
    assert begun(pump) == [("static_root", (1, 2, 3, 4))] * 2
    pump.mine()
    assert confirmed_heights(pump) == [half + 37]


def one_stays_behind(policy: LspPolicy) -> tuple[Pump, Factory]:
    """Return a world that three move out of, a factory later; the fourth leaves at its deadline."""
    pump = world_of(MovingPump, policy=policy)
    old = pump.factory
    pump.disconnect(pump.client_at(4))
    mine_to(pump, old.lifetime.exit_deadline_height - 1)
    assert pump.lsp.state.factory(old.number).held_keys == {1, 2, 3}
    assert not begun(pump)
    return pump, old


@pytest.mark.sampled(0)
def test_what_all_moved_out_of_is_closed_after_the_window_too() -> None:
    """The tree comes on chain no sooner, and nobody has to be asked."""
    pump, old = one_stays_behind(MOVING_POLICY)
    mine_to(pump, old.lifetime.expiry_height - 1)
    assert begun(pump) == [("kickoff_0", (1, 2)), ("channel 3", (3,))]
    assert len(confirmed_heights(pump)) == 2
    assert not told(pump.lsp, xr.ExitStarted)


@pytest.mark.sampled(0)
def test_without_close_the_tree_is_swept_and_a_channel_of_one_who_moved_out_is_left() -> None:
    pump, old = one_stays_behind(replace(MOVING_POLICY, dying_policy=(MOVE, SWEEP)))
    expiry = old.lifetime.expiry_height
    mine_to(pump, expiry - 1)
    assert not told(pump.lsp, xr.ExitStarted)
    mine_to(pump, expiry + 10)
    assert not begun(pump)
    assert ("static_root:0",) in [one.outputs for one in told(pump.lsp, xr.OutputsSwept)]
    (left,) = told(pump.lsp, xr.ExitStarted)
    assert (left.client, left.reason) == (3, "the client moved out")
    channel = old.attempt.setting(3).funding.outpoint
    assert channel in pump.lsp.state.factory(old.number).chain.spends


@pytest.mark.parametrize(
    ("height", "is_asked", "has_failed", "closers"),
    [
        (1_215, False, False, Closers.NOBODY),
        (1_216, True, False, Closers.EVERYBODY),
        (1_217, False, False, Closers.EVERYBODY),
        (1_217, False, True, Closers.NOBODY),
        (1_252, True, True, Closers.EVERYBODY),
        (1_288, False, False, Closers.EVERYBODY),
        (1_288, True, True, Closers.EVERYBODY),
        (1_289, False, False, Closers.LSP),
        (1_289, False, True, Closers.NOBODY),
        (1_323, False, True, Closers.NOBODY),
        (1_324, False, True, Closers.LSP),
        (3_000, False, False, Closers.LSP),
    ],
)
def test_who_is_needed_by_height(
    height: int, *, is_asked: bool, has_failed: bool, closers: Closers
) -> None:
    life = Lifetime(dying_height=1_000, exit_deadline_height=1_432, expiry_height=2_020)
    for policy, expected in (
        (LspPolicy(), closers),
        (LspPolicy(dying_policy=(MOVE, SWEEP)), Closers.NOBODY),
    ):
        told_by = closers_at(policy, life, is_asked=is_asked, has_failed=has_failed, height=height)
        assert told_by is expected
