"""What a factory watches is what it asked for: whatever its money becomes later is not its news."""

from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump
from tests.protocol.test_abandoned_fundings import abandon, unheard
from tests.protocol.test_neighbours_leave import ask_to_leave, with_money

from cromford.protocol.journal.lsp_state import LspState


def check_nothing_else_is_watched(pump: Pump) -> None:
    """The chain's stream watches for each factory what that asked for, and nothing else."""
    state: LspState = pump.lsp.state
    assert state.scan.watched
    for stream, outpoints in state.scan.watched.items():
        (factory,) = (one for one in state.all_factories() if one.stream == stream)
        assert set(outpoints) == factory.watch
        assert all(stream in state.scan.watchers[outpoint] for outpoint in outpoints)
    assert set(state.scan.watchers) == {o for of in state.scan.watched.values() for o in of}


def test_a_coin_that_ended_a_funding_is_not_followed_any_further() -> None:
    pump = unheard()
    abandon(pump)
    pump.mine(pump.policy.min_depth)
    assert pump.factory.is_dead
    check_nothing_else_is_watched(pump)


def test_what_was_swept_out_of_a_factory_is_not_followed_any_further() -> None:
    pump = with_money(3)
    leaver = pump.clients[1]
    ask_to_leave(pump, leaver)
    for _ in range(newest_link(leaver).exit_blocks + 10):
        pump.mine()
        check_nothing_else_is_watched(pump)
