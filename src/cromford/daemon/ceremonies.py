"""How ceremonies of this run went: what phases took, how they ended, how many are waited for.

Counted as records become durable, from zero after a restart, as Prometheus expects of counters.
Labels are phases and outcomes, of which there are a few, and never who it was.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from cromford.daemon.metrics import Sample
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.records import AnyRecord

PREPARING: Final = "preparing"
SIGNING_BELOW: Final = "signing_below"
SIGNING_ROOT: Final = "signing_root"
ACKNOWLEDGING: Final = "acknowledging"
REJOINING: Final = "rejoining"
PHASES: Final = (PREPARING, SIGNING_BELOW, SIGNING_ROOT, ACKNOWLEDGING, REJOINING)
DROPPED: Final = "dropped"  # Nothing was proposed, or nobody is left to try again with.
OUTCOMES: Final = (*op.Outcome, DROPPED)


class Ceremonies:
    """Counts and times an LSP's ceremonies, of which one is under way at a time.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: str | None = None
        self._since = 0.0
        self._ended: Counter[str] = Counter()
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phases: Counter[str] = Counter()

    def observe(self, record: AnyRecord) -> None:
        """Take note of what is durable now."""
        match record:
            case lr.BuildStarted():
                self._go_to(PREPARING)
            case lr.FactoryOrdered():
                self._go_to(SIGNING_BELOW)
            case op.BelowSigned():
                self._go_to(SIGNING_ROOT)
            case op.RootSigned():
                self._go_to(ACKNOWLEDGING)
            case lr.RebuildAwaited():
                self._go_to(REJOINING)
            case op.FundingWasSigned():
                self._end(op.Outcome.FUNDED)
            case op.AttemptAborted(outcome=outcome):
                self._end(outcome)
            case lr.BuildDropped():
                self._end(DROPPED)
            case _:
                return

    def samples(self, state: LspState) -> Iterator[Sample]:
        """Yield the numbers for Prometheus; each label has a number from the start."""
        for outcome in OUTCOMES:
            yield "ceremonies_ended_total", {"outcome": outcome}, self._ended[outcome]
        awaited = _awaited(state)
        for phase in PHASES:
            yield "ceremony_phase_seconds_total", {"phase": phase}, self._seconds[phase]
            yield "ceremony_phases_total", {"phase": phase}, self._phases[phase]
            yield "ceremony_holdouts", {"phase": phase}, awaited[phase]

    def _go_to(self, phase: str | None) -> None:
        now = self._clock()
        if self._phase is not None:
            self._seconds[self._phase] += now - self._since
            self._phases[self._phase] += 1
        self._phase, self._since = phase, now

    def _end(self, outcome: str) -> None:
        self._ended[outcome] += 1
        self._go_to(None)


def _awaited(state: LspState) -> Counter[str]:
    """Return how many clients the present phase waits for."""
    attempt, build = state.open_attempt, state.house.build
    if attempt is not None:
        return Counter({attempt.stage.label: len(attempt.holdouts)})
    if build is not None and build.attempt is None:
        missing = [node_id for node_id in build.node_ids if node_id not in state.house.members]
        return Counter({REJOINING: len(missing)})
    return Counter()
