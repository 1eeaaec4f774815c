"""Which factory of a client is meant where none is named."""

from tests.protocol.forked_world import ForkedPump
from tests.protocol.paying_clients import newest_link
from tests.protocol.test_late_fundings import BRIEF, mine_without_it_to, waiting

from cromford.daemon.views.client import meant_by_default, stage_of, status_of
from cromford.protocol import events as ev
from cromford.wire import messages as m


def meant(pump: ForkedPump) -> tuple[int, str]:
    """Return which of the first client's factories is meant, the oldest 0, and its status."""
    state = pump.clients[0].state
    attempt = meant_by_default(state)
    assert attempt is not None
    return [*state.attempts].index(attempt.attempt_id), status_of(state, attempt)


def test_it_is_the_newest_that_lives_and_none_that_came_to_nothing_after_it() -> None:
    """What is left in an emergency is what has money in it."""
    pump = waiting()
    assert meant(pump) == (0, "waiting_for_funding")
    pump.mine(BRIEF.min_depth)
    assert all(newest_link(client).is_open for client in pump.clients)
    pump.join()
    pump.build()
    pump.run_to(m.SignBelow)
    assert [stage_of(one) for one in pump.clients[0].state.attempts.values()][1] == "below_sent"
    assert meant(pump) == (0, "live")
    pump.run()
    assert len(pump.clients[0].state.attempts) == 2
    assert meant(pump) == (0, "live"), "no money is in a funding that waits"
    mine_without_it_to(pump, pump.attempt.terms.patience_end_height)
    assert pump.held(pump.clients[0]).given_up
    assert meant(pump) == (0, "live")


def test_it_is_the_newer_one_once_that_has_a_channel() -> None:
    pump = waiting()
    pump.mine(BRIEF.min_depth)
    pump.join()
    pump.build()
    pump.run()
    for _ in range(BRIEF.min_depth - 1):
        pump.mine()
        assert meant(pump) == (0, "live")
    pump.mine()
    assert meant(pump) == (1, "live")


def test_of_those_that_ended_the_newest_is_meant() -> None:
    pump = waiting()
    mine_without_it_to(pump, pump.attempt.terms.patience_end_height)
    assert meant(pump) == (0, "given_up")
    pump.handle(pump.clients[0], ev.LeaveRequested())
    assert meant(pump) == (0, "given_up")


def test_while_the_only_one_is_being_built_it_is_meant() -> None:
    pump = ForkedPump(policy=BRIEF)
    pump.join()
    pump.build()
    pump.run_to(m.Propose)
    assert meant_by_default(pump.clients[0].state) is None
    pump.run_to(m.SignBelow)
    assert meant(pump) == (0, "building")


def test_without_a_factory_none_is_meant() -> None:
    assert meant_by_default(ForkedPump(policy=BRIEF).clients[0].state) is None
