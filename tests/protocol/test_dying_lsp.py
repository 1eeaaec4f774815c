"""What an LSP does about a factory that dies: it builds the next one, asks for a close, sweeps."""

from dataclasses import replace

import pytest
from tests.protocol.moving_clients import (
    DYING_BLOCKS,
    POLICY,
    factory_with_money,
    mine_to,
    mine_to_dying,
    old_of,
    told,
)
from tests.protocol.paying_clients import live_factory
from tests.protocol.pump import Pump
from tests.protocol.sleepers import all_away, lsp_state
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_moving_out import StayingPump

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Txid
from cromford.daemon.views.dying import show_steps
from cromford.daemon.views.lsp import dying, status_of
from cromford.protocol import events as ev
from cromford.protocol.dying.lsp import wants_close
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.lobby.schedule import is_move_due
from cromford.protocol.policy import DyingStep, LspPolicy
from cromford.shelf import Shelf

pytestmark = pytest.mark.sampled_file(4)

MOVE, CLOSE, SWEEP = DyingStep.MOVE, DyingStep.CLOSE, DyingStep.SWEEP


def waiting_pump(n_clients: int = 3, *, n_waiting: int = 2) -> Pump:
    """Return a world in its first dying block, where some of the clients wait in the lobby."""
    policy = replace(POLICY, dying_policy=(SWEEP,))
    pump = factory_with_money(n_clients, kind=StayingPump, amounts_msat=(), policy=policy)
    mine_to_dying(pump)
    for client in pump.clients[:n_waiting]:
        pump.handle(client, ev.MoveRequested(attempt_id=old_of(client).attempt_id))
    pump.run()
    return pump


def is_due(pump: Pump, *, height: int, min_clients: int = 2) -> bool:
    """Say whether those who wait get their factory at a height, under another policy."""
    house = pump.lsp.state.house
    tip = (BlockRef(height=height, block_hash=Txid(bytes(32))),)
    config = replace(
        house.config,
        policy=replace(
            house.config.policy, dying_policy=(MOVE, CLOSE, SWEEP), min_clients=min_clients
        ),
    )
    return is_move_due(replace(house, config=config, chain=replace(house.chain, recent=tip)))


def test_once_all_who_are_connected_wait_the_next_factory_is_due() -> None:
    pump = waiting_pump(n_waiting=2)
    dies, late = (old_of(pump.clients[0]).lifetime.share_height(percent) for percent in (0, 25))
    assert not is_due(pump, height=dies), "the third may come"
    assert not is_due(pump, height=late - 1)
    assert is_due(pump, height=late), "and is waited for no longer"
    pump.disconnect(pump.clients[2])
    assert is_due(pump, height=dies), "or is gone"
    assert not is_due(pump, height=dies - 1), "but nobody moves before"


@pytest.mark.parametrize("is_long", [True, False])
def test_who_may_not_join_in_time_is_not_waited_for(*, is_long: bool) -> None:
    """It has a channel, so it stays connected, whatever closed the lobby to it."""
    pump = waiting_pump(n_waiting=2)
    lifetime = old_of(pump.clients[0]).lifetime
    dies, late = (lifetime.share_height(percent) for percent in (0, 25))
    n_blocks = late - pump.lsp.state.chain.height - (not is_long)
    banned = pump.clients[2].node_id
    pump.handle(pump.lsp, ev.BanRequested(node_id=banned, n_blocks=n_blocks, reason="no"))
    assert banned in pump.lsp.state.house.connected
    assert is_due(pump, height=dies) is is_long


def test_too_few_for_a_factory_wait_on() -> None:
    pump = waiting_pump(n_waiting=2)
    late = old_of(pump.clients[0]).lifetime.share_height(25)
    assert is_due(pump, height=late, min_clients=2)
    assert not is_due(pump, height=late, min_clients=3)


def test_where_close_comes_first_moving_begins_at_its_share() -> None:
    pump = waiting_pump(n_waiting=3)
    half = old_of(pump.clients[0]).lifetime.share_height(50)
    house = pump.lsp.state.house
    for height, due in ((half - 1, False), (half, True)):
        tip = (BlockRef(height=height, block_hash=Txid(bytes(32))),)
        policy = replace(house.config.policy, dying_policy=(CLOSE, MOVE))
        config = replace(house.config, policy=policy)
        later = replace(house, config=config, chain=replace(house.chain, recent=tip))
        assert is_move_due(later) is due


def at(factory: Factory, height: int) -> Factory:
    tip = (BlockRef(height=height, block_hash=Txid(bytes(32))),)
    return factory.at(tip)


def test_a_close_is_wanted_from_its_height_until_a_day_before_the_exit_deadline() -> None:
    pump = factory_with_money(2, kind=StayingPump, amounts_msat=())
    factory = pump.factory
    life = factory.lifetime
    half, last = life.share_height(50), life.exit_deadline_height - 144
    assert DYING_BLOCKS == 288
    assert half == last, "of this factory"
    for height, wanted in ((half - 1, False), (half, True), (last + 1, False)):
        assert wants_close(at(factory, height), height) is wanted
    asked = replace(factory, close_height=last - 35)
    assert not wants_close(asked, last)
    assert wants_close(replace(factory, close_height=last - 36), last)
    stage = factory.attempt.funded
    assert stage is not None
    unready = replace(factory.attempt, stage=replace(stage, ready_sent=False))
    assert not wants_close(replace(factory, begun=unready), half)
    unfunded = replace(factory, chain=replace(factory.chain, confirmed=Shelf()))
    assert not wants_close(unfunded, half)


def test_a_close_is_asked_for_again_after_36_blocks() -> None:
    policy = replace(POLICY, dying_policy=(CLOSE, SWEEP))
    pump = factory_with_money(2, kind=StayingPump, amounts_msat=(), policy=policy)
    pump.disconnect(pump.clients[0])
    life = pump.factory.lifetime
    pump.disconnect(pump.clients[1])
    mine_to(pump, life.exit_deadline_height)
    heights = [one.height for one in told(pump.lsp, dr.CloseWanted)]
    assert heights == [*range(life.dying_height, life.exit_deadline_height - 143, 36)]
    assert heights[-1] == life.exit_deadline_height - 144


@pytest.mark.parametrize(
    ("steps", "told_steps"),
    [
        ((MOVE, CLOSE, SWEEP), ["move", "close", "sweep"]),
        ((CLOSE, MOVE), ["close", "move", "none"]),
        ((MOVE,), ["move", "none"]),
        ((CLOSE,), ["close", "none"]),
        ((SWEEP,), ["sweep"]),
    ],
)
def test_every_policy_says_what_it_does(
    steps: tuple[DyingStep, ...], told_steps: list[str]
) -> None:
    pump = factory_with_money(2, kind=StayingPump, amounts_msat=())
    life = pump.factory.lifetime
    policy = replace(POLICY, dying_policy=steps)
    shown = show_steps(policy, life, life.dying_height)
    assert [one["step"] for one in shown] == told_steps
    assert all(one["what"] for one in shown)
    short = replace(life, dying_height=life.exit_deadline_height - 143)
    late = [one for one in show_steps(policy, short, life.dying_height) if one["step"] == "close"]
    assert all(one["from_height"] is None and "too late" in one["what"] for one in late)


def test_an_lsp_says_of_each_factory_that_dies_who_waits_and_who_has_moved() -> None:
    pump = waiting_pump(n_waiting=2)
    house = pump.lsp.state.house
    (entry,) = house.factories()
    shown = dying(house, entry)
    assert shown is not None
    assert (shown["period"], shown["n_clients"]) == ("dying", 3)
    assert (shown["n_waiting"], shown["n_elsewhere"]) == (2, 0)
    assert shown["blocks_to_next_period"] == DYING_BLOCKS
    pump.build(min_clients=2)
    pump.run()
    pump.mine()
    house = pump.lsp.state.house
    first, second = house.factories()
    assert dying(house, second) is None
    shown = dying(house, first)
    assert shown is not None
    assert (shown["n_waiting"], shown["n_elsewhere"]) == (0, 2)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("steps", [(MOVE, CLOSE, SWEEP), (MOVE, CLOSE)])
def test_what_nobody_claimed_is_swept_only_if_the_policy_says_so(
    steps: tuple[DyingStep, ...],
) -> None:
    policy: LspPolicy = replace(
        QUICK, active_blocks=200, dying_blocks=144, ready_min_blocks=10, dying_policy=steps
    )
    pump = live_factory(2, policy=policy)
    for client in pump.clients:
        pump.blind.add(client.name)  # Or they would leave before.
    all_away(pump)
    factory = lsp_state(pump).factory(0)
    mine_to(pump, factory.lifetime.expiry_height + 2)
    factory = lsp_state(pump).factory(0)
    is_swept = factory.attempt.funding_outpoint in factory.chain.spends
    assert is_swept is (SWEEP in steps)
    assert status_of(factory) == ("swept" if is_swept else "expired")
    assert [one.period for one in told(pump.lsp, dr.PeriodBegan)] == ["dying", "late", "expired"]
