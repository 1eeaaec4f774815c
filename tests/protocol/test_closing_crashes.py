"""Each participant of a close dies at each of its steps: nobody is frozen, or paid too little."""

import pytest
from tests.protocol.closes import (
    ask_for_close,
    check_all_is_paid,
    check_nobody_is_stuck,
    closable_factory,
    finished,
    limit_of,
    links,
)
from tests.protocol.pump import Pump, PumpNode

from cromford.wire import messages as m

N_CLIENTS = 2
FUSES_MAX = 40


def closed_with_a_death(whose: int | None, fuse: int) -> tuple[Pump, PumpNode]:
    """Return a world in which a participant died after so many steps of a close, and came back."""
    pump = closable_factory(N_CLIENTS)
    node = pump.lsp if whose is None else pump.client_at(whose)
    node.fuse = fuse
    ask_for_close(pump)
    pump.run()
    node.fuse = None
    return pump, node


@pytest.mark.sampled(1)
@pytest.mark.parametrize("whose", [None, 1])
def test_a_death_at_any_step_leaves_a_close_finished_for_all_or_for_nobody(
    whose: int | None,
) -> None:
    outcomes = []
    for fuse in range(1, FUSES_MAX):
        pump, node = closed_with_a_death(whose, fuse)
        check_all_is_paid(pump)
        check_nobody_is_stuck(pump)
        n_finished = [len(finished(one)) for one in (pump.lsp, *pump.clients)]
        assert n_finished in ([0] * (N_CLIENTS + 1), [1] * (N_CLIENTS + 1)), (fuse, n_finished)
        outcomes.append(n_finished[0])
        if not n_finished[0]:
            check_the_next_one_is_finished(pump)
        if node.n_deaths == 0:
            break
    else:
        raise AssertionError("a close has more steps than that")
    assert {0, 1} == set(outcomes), "some deaths end it, and some come too late for that"


def check_the_next_one_is_finished(pump: Pump) -> None:
    """Check that one crash was all that stood in the way."""
    due = {seat: link.state.accepter_msat for seat, (link, _) in links(pump).items()}
    ask_for_close(pump)
    pump.run()
    (record,) = finished(pump.lsp)
    assert record.balances_msat == tuple(due.values())
    check_all_is_paid(pump)
    for seat, (_, link) in links(pump).items():
        assert limit_of(pump, link) == due[seat]


@pytest.mark.parametrize("step", [m.CloseBegin, m.CloseAgree, m.ClosePropose, m.CloseSign])
def test_a_checkpoint_amid_a_close_is_read_and_the_close_is_over(step: type[m.Message]) -> None:
    pump = closable_factory(N_CLIENTS)
    ask_for_close(pump)
    pump.run_to(step)
    for node in (pump.lsp, *pump.clients):
        node.checkpoint()
    for node in (pump.lsp, *pump.clients):
        pump.restart(node)
    pump.run()
    check_nobody_is_stuck(pump)
    check_the_next_one_is_finished(pump)
