"""An LSP that builds by itself, when its schedule says so."""

from dataclasses import replace

import pytest
from tests.protocol.pump import Pump

from cromford.protocol import events as ev
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.lobby.schedule import is_build_due
from cromford.protocol.policy import LspPolicy

POLICY = LspPolicy(min_clients=2)


@pytest.mark.parametrize("n_waiting", [0, 2, 100])
@pytest.mark.parametrize("at_height", [None, 0, 144])
def test_without_a_schedule_nothing_is_ever_due(n_waiting: int, at_height: int | None) -> None:
    assert not is_build_due(POLICY, n_waiting=n_waiting, at_height=at_height)


@pytest.mark.parametrize(
    ("n_waiting", "at_height", "due"),
    [(4, None, False), (5, None, True), (6, None, True), (4, 7, False), (5, 7, True)],
)
def test_a_build_is_due_once_enough_clients_wait(
    n_waiting: int, at_height: int | None, *, due: bool
) -> None:
    policy = replace(POLICY, build_at_clients=5)
    assert is_build_due(policy, n_waiting=n_waiting, at_height=at_height) is due


@pytest.mark.parametrize(
    ("n_waiting", "at_height", "due"),
    [(2, 288, True), (2, 289, False), (2, None, False), (1, 288, False)],
)
def test_a_build_is_due_at_multiples_of_a_height_if_enough_clients_wait(
    n_waiting: int, at_height: int | None, *, due: bool
) -> None:
    policy = replace(POLICY, build_every_blocks=144)
    assert is_build_due(policy, n_waiting=n_waiting, at_height=at_height) is due


def test_fewer_than_a_factory_takes_are_never_enough() -> None:
    policy = replace(POLICY, min_clients=3, build_at_clients=1, build_every_blocks=1)
    assert not is_build_due(policy, n_waiting=2, at_height=10)


def test_clients_that_wait_get_their_factory_unasked() -> None:
    pump = Pump(n_clients=3, policy=LspPolicy(build_at_clients=3))
    pump.join(*pump.clients[:2])
    assert not pump.lsp.state.attempts
    pump.join(pump.clients[2])
    assert pump.is_funded()
    assert len(pump.attempt.seats) == 3


def test_at_its_height_an_lsp_builds_with_whoever_waits() -> None:
    pump = Pump(n_clients=3, policy=LspPolicy(build_every_blocks=4))
    pump.join(*pump.clients[:2])
    while pump.chain.height % 4 != 3:
        pump.mine()
        assert not pump.lsp.state.attempts
    pump.mine()
    assert pump.is_funded()
    assert len(pump.attempt.seats) == 2
    pump.mine(8)
    assert len(pump.published) == 1


def test_who_joined_during_a_build_is_built_for_with_the_next_block() -> None:
    pump = Pump(n_clients=4, policy=LspPolicy(build_at_clients=2))
    pump.join()
    assert len(pump.published) == 1
    assert len(pump.lsp.state.house.members) == 2
    pump.mine()
    assert len(pump.published) == 2
    seats = [attempt.seats for attempt in pump.lsp.state.attempts.values()]
    assert [len(seat) for seat in seats] == [2, 2]


def test_what_hinders_a_scheduled_build_is_remembered_once() -> None:
    """A channel that the coins do not reach for: the schedule asks at every block."""
    policy = LspPolicy(
        min_clients=1,
        build_every_blocks=1,
        lstock_csv_blocks=1,
        capital_per_client_sat=90_000_000,
    )
    pump = Pump(n_clients=1, policy=policy)
    wish = ev.JoinRequested(capacity_sat=90_000_000, capacity_least_sat=90_000_000)
    pump.handle(pump.clients[0], wish)
    pump.run()
    pump.mine(5)
    reason = pump.lsp.state.house.build_dropped
    assert reason is not None
    dropped = [
        record for record in pump.lsp.store.remembered if isinstance(record, lr.BuildDropped)
    ]
    assert [record.reason for record in dropped] == [reason]


def test_who_comes_and_goes_with_other_wishes_makes_no_record_of_what_hinders_each_time() -> None:
    """A name costs nothing; only the numbers in the reason differ."""
    policy = LspPolicy(
        min_clients=2, build_at_clients=2, lstock_csv_blocks=1, capital_per_client_sat=90_000_000
    )
    pump = Pump(n_clients=2, policy=policy)
    alice, bob = pump.clients
    for client, least_sat in ((alice, 90_000_000), (bob, 80_000_000), (bob, 70_000_000)):
        if client.state.wish is not None:
            pump.handle(client, ev.LeaveRequested())
        wish = ev.JoinRequested(capacity_sat=90_000_000, capacity_least_sat=least_sat)
        pump.handle(client, wish)
        pump.run()
    assert len(pump.lsp.state.house.members) == 2
    dropped = [one for one in pump.lsp.store.remembered if isinstance(one, lr.BuildDropped)]
    assert len(dropped) == 1
    assert pump.lsp.state.house.build_dropped == dropped[0].reason
