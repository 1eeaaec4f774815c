"""A factory that dies is asked at the heights of its life and its close, and when somebody comes.

Nothing that it has to do waits for another block than before: neither where heights are jumped
over or taken back, nor over restarts, whatever the policy is then.
"""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.movers import DYING_SOON, World, dying_world
from tests.protocol.moving_clients import mine_to, told
from tests.protocol.pump import Pump
from tests.protocol.sleepers import lsp_state, sleeping
from tests.protocol.test_closing_by_policy import begun, half_of, world_of
from tests.simulation import sim_node

from cromford.bitcoin.tx import Txid
from cromford.crypto.keys import sha256
from cromford.factory.lifetime import Lifetime
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.dying_steps import CLOSE_RETRY_BLOCKS, close_end_height
from cromford.protocol.exiting.rest import NEVER, at_rest_until
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.policy import DyingStep
from cromford.protocol.turn import Decision, Turn
from cromford.watch.feerates import OwnFees

MOVE, CLOSE, SWEEP = DyingStep.MOVE, DyingStep.CLOSE, DyingStep.SWEEP
ROOT: Final = [("static_root", (1, 2, 3, 4))]


@pytest.fixture(autouse=True)
def _every_block_is_decided_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare each with what it would be if nobody were at rest."""
    monkeypatch.setattr(sim_node, "COMPARED_EVERY", 1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the heights at which a block asked the oldest factory; here each is decided once."""
    monkeypatch.setattr(sim_node, "COMPARED_EVERY", 10**9)
    heights: list[int] = []
    ask = lsp_role._begin_with_block

    def noted(turn: Turn[Factory], *, has_news: bool = False) -> None:
        if turn.state.number == 0:
            heights.append(turn.height)
        ask(turn, has_news=has_news)

    monkeypatch.setattr(lsp_role, "_begin_with_block", noted)
    return heights


def waiting_world(**policy: Any) -> Pump:
    """Return a factory a block before it dies, one of whose clients is away; who is here stays."""
    pump = world_of()
    pump.lsp.lsp_policy = replace(pump.policy, **policy)
    for client in pump.clients:
        pump.blind.add(client.name)  # Or they would leave in the end.
    pump.disconnect(pump.clients[2])
    return pump


def life_of(pump: Pump) -> Lifetime:
    return lsp_state(pump).factory(0).lifetime


def test_it_is_asked_at_the_heights_of_its_life_and_its_close_and_at_no_other(
    asked: list[int],
) -> None:
    pump = waiting_world()
    life, half = life_of(pump), half_of(pump.factory)
    pump.mine()
    asked.clear()
    mine_to(pump, life.expiry_height)
    retry = half + CLOSE_RETRY_BLOCKS
    assert asked == [half, retry, life.exit_deadline_height, life.expiry_height]
    assert [one.height for one in told(pump.lsp, dr.CloseWanted)] == [half, retry]
    assert [one.period for one in told(pump.lsp, dr.PeriodBegan)] == ["dying", "late", "expired"]
    assert not begun(pump)


def test_whoever_comes_is_asked_by_the_next_block_and_who_goes_by_none(asked: list[int]) -> None:
    pump = waiting_world()
    half = half_of(pump.factory)
    mine_to(pump, half + 5)
    asked.clear()
    pump.disconnect(pump.clients[0])
    mine_to(pump, half + 9)
    assert asked == [half + 6]
    for client in (pump.clients[0], pump.clients[2]):
        pump.connect(client)
        pump.run()
        pump.mine()
    assert asked == [half + 6, half + 10, half + 11]
    assert begun(pump) == ROOT


def test_a_dying_factory_that_sleeps_wakes_as_its_life_changes_and_for_no_close() -> None:
    pump = waiting_world()
    life, half = life_of(pump), half_of(pump.factory)
    for client in pump.clients:
        pump.disconnect(client)
    pump.mine()
    pump.lsp.checkpoint()
    assert lsp_state(pump).asleep[0].wake_height == life.exit_deadline_height
    mine_to(pump, half + 3)
    assert sleeping(pump) == {0}
    assert not told(pump.lsp, dr.CloseWanted)
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    pump.mine()
    assert begun(pump) == ROOT, "all of them came, and nobody waits for a later height"


# Heights that are jumped over, and taken back


def block_at(height: int) -> ev.BlockAdded:
    return ev.BlockAdded(height=height, block_hash=Txid(sha256(b"%d" % height)), txs=())


def close_wanted(decision: Decision[LspState]) -> bool:
    return any(isinstance(entry.record, dr.CloseWanted) for entry in decision.entries)


@cache
def at_rest() -> tuple[LspState, int]:
    """Return an LSP whose factory dies and is at rest, and the height until which it is."""
    pump = waiting_world()
    pump.mine(2)
    state = lsp_state(pump)
    assert 0 not in state.restless.asked
    return state, half_of(pump.factory)


@pytest.mark.parametrize("late", [0, 1, 30])
def test_a_height_that_is_jumped_over_is_made_up_for_by_the_next_block(late: int) -> None:
    state, half = at_rest()
    assert not close_wanted(lsp_role.decide(state, block_at(half - 1)))
    assert close_wanted(lsp_role.decide(state, block_at(half + late)))


def test_all_heights_of_its_life_may_be_jumped_over_at_once() -> None:
    state, _ = at_rest()
    expiry = state.factory(0).lifetime.expiry_height
    decision = lsp_role.decide(state, block_at(expiry + 3))
    (period,) = (one.record for one in decision.entries if isinstance(one.record, dr.PeriodBegan))
    assert period.period == "expired"
    assert 0 in decision.state.restless.asked, "what is left of it is swept"


@pytest.mark.parametrize("n_blocks", [1, 4, 30])
def test_a_height_that_is_taken_back_comes_again(n_blocks: int) -> None:
    pump = waiting_world()
    half = half_of(pump.factory)
    mine_to(pump, half)
    assert [one.height for one in told(pump.lsp, dr.CloseWanted)] == [half]
    for height in range(half, half - n_blocks, -1):
        pump.handle(pump.lsp, ev.BlockRemoved(height=height))
    pump.connect(pump.clients[2])
    pump.run()
    assert lsp_state(pump).scan.height == half - n_blocks
    for height in range(half - n_blocks + 1, half):
        pump.handle(pump.lsp, block_at(height))
        assert not begun(pump)
    pump.handle(pump.lsp, block_at(half))
    assert begun(pump) == ROOT, "not once it is asked for again"


# What is in the way of those who are here


@pytest.mark.parametrize(
    "hindered",
    [
        Facts(stale="the node does not answer"),
        replace(FRESH, fees=OwnFees(fallback_sat_per_kw=60_000_000)),
    ],
    ids=["stale", "dear"],
)
def test_where_everybody_is_here_each_block_tries_again(hindered: Facts) -> None:
    pump = world_of()
    half = half_of(pump.factory)
    mine_to(pump, half - 1)
    state = lsp_state(pump)
    for height in range(half, half + 3):
        decision = lsp_role.decide(state, block_at(height), hindered)
        assert not [one for one in decision.entries if isinstance(one.record, cl.CloseBegun)]
        state = decision.state
        assert 0 in state.restless.asked
    decision = lsp_role.decide(state, block_at(half + 3))
    assert [one for one in decision.entries if isinstance(one.record, cl.CloseBegun)]


def test_what_is_over_is_asked_by_no_block_though_everybody_is_here() -> None:
    pump = world_of()
    half = half_of(pump.factory)
    pump.handle(pump.client_at(1), ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    mine_to(pump, half + 10)
    state = lsp_state(pump)
    assert len(begun(pump)) == 2, "part by part"
    assert at_rest_until(state.factory(0)) == NEVER
    assert 0 not in state.restless.asked


# Restarts


def test_after_a_restart_the_next_block_asks_it(asked: list[int]) -> None:
    pump = waiting_world()
    half = half_of(pump.factory)
    mine_to(pump, half + 5)
    asked.clear()
    pump.restart(pump.lsp)
    pump.run()
    pump.mine()
    assert asked == [half + 6]
    assert begun(pump) == ROOT, "all of them are connected again"


@pytest.mark.parametrize("sleeps", [False, True])
def test_after_a_long_time_without_its_daemon_nothing_is_forgotten(*, sleeps: bool) -> None:
    pump = waiting_world()
    life = life_of(pump)
    pump.mine(2)
    if sleeps:
        for client in pump.clients:
            pump.disconnect(client)
        pump.mine()
        pump.lsp.checkpoint()
    assert sleeping(pump) == ({0} if sleeps else set())
    pump.lsp.die()
    mine_to(pump, life.expiry_height + 5)
    for client in pump.clients:
        pump.disconnect(client)
    pump.lsp.start()
    pump.sync()
    heights = {one.period: one.height for one in told(pump.lsp, dr.PeriodBegan)}
    assert heights == {
        "dying": life.dying_height,
        "late": life.exit_deadline_height,
        "expired": life.expiry_height,
    }
    pump.mine(2)
    factory = lsp_state(pump).factory(0)
    assert factory.attempt.funding_outpoint in factory.chain.spends, "it was swept"


def with_policy(pump: Pump, **changes: Any) -> None:
    """Restart an LSP with another policy."""
    pump.lsp.lsp_policy = replace(pump.lsp.lsp_policy, **changes)
    pump.restart(pump.lsp)
    pump.run()


@pytest.mark.parametrize("steps", [(CLOSE, MOVE, SWEEP), (CLOSE, SWEEP)])
def test_a_policy_that_closes_sooner_counts_from_the_next_block_on(
    steps: tuple[DyingStep, ...],
) -> None:
    pump = waiting_world()
    pump.mine(5)
    assert lsp_state(pump).restless.due
    with_policy(pump, dying_policy=steps)
    pump.mine()
    assert begun(pump) == ROOT


# What all moved out of


def deserted() -> World:
    """Return a dying factory that all moved out of, the LSP knowing no step `close`; all are away.

    A block later.
    """
    world = dying_world(2)
    for client in world.pump.clients:
        world.move(client)
    world.pump.mine()
    assert len(world.factory.held_keys) == 2
    for client in world.pump.clients:
        world.pump.disconnect(client)
    world.pump.mine()
    return world


def test_a_factory_that_all_moved_out_of_stays_in_memory_at_rest_until_it_is_closed(
    asked: list[int],
) -> None:
    world = deserted()
    pump, half = world.pump, world.old.lifetime.share_height(50)
    pump.lsp.checkpoint()
    assert 0 not in sleeping(pump)
    asked.clear()
    mine_to(pump, half - 1)
    assert not asked
    pump.mine()
    assert asked == [half]
    assert len(told(pump.lsp, cl.CloseFinished)) == 1
    pump.mine()
    assert [one.height for one in told(pump.lsp, cl.CloseConfirmed)] == [half + 1]


def test_what_all_moved_out_of_is_closed_as_the_policy_says_that_a_restart_brings() -> None:
    world = deserted()
    pump = world.pump
    pump.lsp.lsp_policy = replace(DYING_SOON, dying_policy=(MOVE, SWEEP))
    pump.lsp.die()
    pump.lsp.start()
    end = close_end_height(world.old.lifetime)
    mine_to(pump, end + 10)
    pump.lsp.checkpoint()
    assert 0 not in sleeping(pump), "no label says that it is not to be closed"
    assert not told(pump.lsp, cl.CloseBegun)
    pump.lsp.lsp_policy = DYING_SOON
    pump.lsp.die()
    pump.lsp.start()
    stale = Facts(stale="the node does not answer")
    hindered = lsp_role.decide(lsp_state(pump), block_at(end + 11), stale)
    assert not hindered.state.factory(0).closing
    assert 0 in hindered.state.restless.asked, "the next block tries again"
    pump.mine()
    assert len(told(pump.lsp, cl.CloseFinished)) == 1


def test_what_is_left_of_nothing_grows_no_older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last outputs were taken: it is at rest for ever, and nobody hears of its periods."""
    pump = waiting_world()
    life = life_of(pump)
    monkeypatch.setattr(lsp_role, "is_shared_out", lambda _: True)
    mine_to(pump, life.exit_deadline_height + 1)
    assert told(pump.lsp, dr.PeriodBegan) == []
    assert told(pump.lsp, dr.CloseWanted) == []
    monkeypatch.undo()
    pump.mine()
    assert [one.period for one in told(pump.lsp, dr.PeriodBegan)] == ["late"]
