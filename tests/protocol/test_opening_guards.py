"""How long each step of a ceremony may take, and what is never funded."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import only_from, proposed
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol.journal.lsp_attempt import Aborted
from cromford.protocol.opening.funding import fund
from cromford.wire import messages as m

STEP_SECONDS: Final = 20  # The default of the LSP's policy.
CEREMONY_SECONDS: Final = 240  # Four steps of a client's 60.


def deadlines_set(pump: Pump, node: PumpNode) -> list[int]:
    """Return the seconds of every deadline that a node set for the attempt."""
    asked = pump.wishes(node, fx.SetDeadline)
    return [one.seconds for one in asked if one.deadline == deadline_of(pump)]


def deadline_of(pump: Pump) -> fx.AttemptDeadline:
    return fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)


def test_each_step_of_a_ceremony_has_its_own_deadline() -> None:
    pump = proposed(3)
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS]
    pump.run_to(m.SignedBelow)
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS] * 2
    pump.run_to(m.SignedRoot)
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS] * 3
    pump.run()
    assert pump.is_funded()
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS] * 3
    assert (pump.lsp.name, deadline_of(pump)) not in pump.deadlines


def test_a_client_waits_for_all_steps_together_and_sets_its_deadline_once() -> None:
    pump = proposed(3)
    pump.run()
    for client in pump.clients:
        assert deadlines_set(pump, client) == [CEREMONY_SECONDS]
        assert (client.name, deadline_of(pump)) not in pump.deadlines


@pytest.mark.parametrize("missing", [m.SignBelow, m.SignRoot, m.Acknowledge])
def test_nothing_is_funded_while_somebody_holds_out(missing: type[m.Message]) -> None:
    """Whoever would ask for it: the wish itself is refused."""
    pump = proposed(3)
    silent = pump.client_at(2)
    with pump.tampering(only_from(silent, lambda _message: (), missing)):
        pump.run()
    assert pump.attempt.holdouts == (2,)
    with pytest.raises(AssertionError, match="funding before everybody holds an exit"):
        fund(pump.factory)
    assert not pump.is_funded()


def test_nothing_is_funded_after_an_abort_or_a_second_time() -> None:
    pump = proposed(2)
    pump.run()
    attempt = pump.attempt
    assert attempt.funded is not None
    for over in (attempt, replace(attempt, stage=Aborted(reason="over"))):
        with pytest.raises(AssertionError, match="funding before everybody holds an exit"):
            fund(replace(pump.factory, begun=over))
