"""When a factory's life changes everybody in it is told, once, and nobody who has left it."""

import pytest
from tests.protocol.moving_clients import (
    factory_with_money,
    mine_to,
    mine_to_dying,
    old_of,
    told,
)
from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.test_closed import SHORT
from tests.protocol.test_moving_out import ALL_MSAT, StayingPump

from cromford.factory.lifetime import Period
from cromford.protocol import events as ev
from cromford.protocol.journal import dying_records as dr

pytestmark = pytest.mark.sampled_file(7)


def test_each_period_is_told_once_whatever_is_reorganised() -> None:
    pump = factory_with_money(2, kind=StayingPump)
    alice = pump.clients[0]
    life = old_of(alice).lifetime
    mine_to_dying(pump)
    for _ in range(2):
        pump.chain.remove_tip(3)
        for node in (pump.lsp, *pump.clients):
            for _ in range(3):
                height = (node.state.scan if node is pump.lsp else node.state.chain).height
                pump.handle(node, ev.BlockRemoved(height=height))
        pump.mine(5)
    mine_to(pump, life.exit_deadline_height)
    for node in (pump.lsp, alice):
        periods = [(one.height, one.period) for one in told(node, dr.PeriodBegan)]
        assert periods == [(life.dying_height, "dying"), (life.exit_deadline_height, "late")]


def test_who_moved_out_hears_no_more_of_the_life_of_what_it_left() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    old, life = old_of(alice).attempt_id, old_of(alice).lifetime
    mine_to_dying(pump)
    pump.mine(8)
    assert old_of(alice).is_retired
    mine_to(pump, life.exit_deadline_height + 1)
    (only,) = (one for one in told(alice, dr.PeriodBegan) if one.attempt_id == old)
    assert (only.height, only.period) == (life.dying_height, "dying")


def test_who_left_hears_of_no_period_nor_whoever_has_its_channel_on_chain_for_good() -> None:
    pump = live_factory(2, policy=SHORT)
    alice, bob = pump.clients
    pay(pump, pump.lsp, bob, ALL_MSAT[0])
    old = old_of(alice)
    pump.handle(alice, ev.ExitRequested(attempt_id=old.attempt_id))
    pump.run()
    mine_to(pump, old.lifetime.dying_height - 1)
    link = newest_link(bob)
    assert link.funding_on(bob.state.chain).outpoint not in bob.state.chain.spends
    mine_to(pump, old.lifetime.exit_deadline_height + 1)
    assert not any(told(client, dr.PeriodBegan) for client in pump.clients)


def test_whoever_slept_over_a_change_says_it_with_the_block_that_made_it() -> None:
    pump = factory_with_money(2, kind=StayingPump)
    alice = pump.clients[0]
    life = old_of(alice).lifetime
    pump.blind.add(alice.name)
    mine_to(pump, life.dying_height + 20)
    assert not told(alice, dr.PeriodBegan)
    pump.blind.clear()
    pump.mine()
    assert [one.height for one in told(alice, dr.PeriodBegan)] == [life.dying_height]
    assert old_of(alice).period is Period.DYING
