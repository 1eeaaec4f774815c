"""Factories whose funding has a fee ladder: worlds, and what a test does with their candidates."""

from typing import Final, TypeVar

import pytest
from tests.protocol.forked_world import QUICK, ForkedPump
from tests.protocol.pump import Pump

from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.lsp_attempt import Funded
from cromford.protocol.policy import LspPolicy

FEERATES: Final = (500, 2_000, 7_500)  # 2, 8 and 30 sat/vB
DEPTH: Final = 6

P = TypeVar("P", bound=Pump)


def asked_for_keys(pump: P, n_candidates: int) -> P:
    """Let the operator ask for keys of so many candidates; who waits joins again."""
    pump.handle(pump.lsp, ev.LadderRequested(n_candidates=n_candidates))
    pump.run()
    return pump


def ask_build(pump: Pump, feerates_sat_per_kw: tuple[int, ...] = FEERATES) -> None:
    """Let the operator ask for a factory with a ladder; nothing is delivered yet."""
    pump.handle(pump.lsp, build_with(feerates_sat_per_kw))


def funded(pump: P, feerates_sat_per_kw: tuple[int, ...] = FEERATES) -> P:
    """Build a factory with a ladder: everything is signed, the first candidate published."""
    pump.join()
    asked_for_keys(pump, len(feerates_sat_per_kw))
    ask_build(pump, feerates_sat_per_kw)
    pump.run()
    assert pump.is_funded()
    return pump


def forked(
    n_clients: int = 2,
    feerates_sat_per_kw: tuple[int, ...] = FEERATES,
    *,
    policy: LspPolicy = QUICK,
) -> ForkedPump:
    """Return a world on the embedded node, with a ladder of which the first is published."""
    return funded(ForkedPump(n_clients, policy=policy), feerates_sat_per_kw)


def refused(pump: Pump, event: ev.Event) -> Rejected:
    """Return how the LSP refuses what its operator asks for."""
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected) as found:
        pump.lsp.driver.handle(event)
    return found.value


def build_with(feerates_sat_per_kw: tuple[int, ...] = FEERATES) -> ev.BuildRequested:
    """Return the operator's wish for a factory with a ladder."""
    return ev.BuildRequested(
        min_clients=1, max_clients=100, feerates_sat_per_kw=feerates_sat_per_kw
    )


def candidates(pump: Pump) -> list[Tx]:
    """Return every candidate of the newest factory's funding, signed, lowest feerate first."""
    stages = [one.stage for one in pump.attempt.ladder]
    return [stage.funding_tx for stage in stages if isinstance(stage, Funded)]


def replace_by(pump: Pump, rung: int | None = None) -> Tx:
    """Let the operator publish a higher candidate; return the one that is published then."""
    asked = ev.FundingReplaceRequested(attempt_id=pump.attempt.attempt_id, rung=rung)
    pump.handle(pump.lsp, asked)
    pump.run()
    return candidates(pump)[pump.attempt.published]
