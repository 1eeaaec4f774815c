"""The log says what happens, with the factory's id; and counters count it from the start on."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_payments import invoice_of, with_money
from tests.daemon.town import LSP_POLICY, Town, town
from tests.protocol.attacks import nothing, only_from, proposed
from tests.protocol.pump import Pump

from cromford import effects as fx
from cromford.daemon.ceremony_log import CeremonyLog
from cromford.daemon.health import readiness
from cromford.daemon.logs import JsonFormatter, TextFormatter
from cromford.wire import messages as m

Document = dict[str, Any]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator["Lines"]:
    """Keep the lines of the log as documents."""
    with caplog.at_level(logging.INFO, logger="cromford"):
        yield Lines(caplog)


class Lines:
    """The lines that were logged so far, with their fields."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def named(self, event: str) -> list[Document]:
        """Return those of an event."""
        shown = (json.loads(JsonFormatter().format(one)) for one in self._caplog.records)
        return [line for line in shown if line["event"] == event]

    def only(self, event: str) -> Document:
        """Return the one of an event."""
        (line,) = self.named(event)
        return line


class Told:
    """An LSP's ceremony that is told to the log, on a clock that a test moves."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.now = 0.0
        self._log = CeremonyLog(lambda: self.now)
        self._n_heard = 0
        self.hear()

    def hear(self) -> None:
        """Tell of all records that came meanwhile."""
        records = self.pump.lsp.store.remembered
        for record in records[self._n_heard :]:
            self._log.observe(record)
        self._n_heard = len(records)


def wait_for_the_last(told: Told, seconds: float) -> None:
    """Let the third client answer that much later than all others, and so end the phase."""
    pump = told.pump
    phase = type(pump.attempt.stage)
    pump.run(until=lambda: pump.attempt.holdouts == (3,))
    told.hear()
    told.now += seconds
    pump.run(until=lambda: type(pump.attempt.stage) is not phase)
    told.hear()


def test_of_each_phase_it_is_said_how_long_it_took_and_who_was_slow(lines: Lines) -> None:
    told = Told(proposed(3))
    pump = told.pump
    factory, slow = pump.attempt.attempt_id.hex(), pump.client_at(3)
    assert lines.only("build_begun")["clients"] == 3
    assert lines.only("factory_proposed")["factory"] == factory
    for seconds, kind in enumerate((m.SignBelow, m.SignRoot, m.Acknowledge), start=1):
        pump.run_to(kind)
        wait_for_the_last(told, seconds)
    pump.run()
    told.hear()
    said = lines.named("phase_over")
    assert [line["phase"] for line in said] == ["signing_below", "signing_root", "acknowledging"]
    assert {line["factory"] for line in said} == {factory}
    assert [line["slowest_seconds"] for line in said] == [1, 2, 3]
    assert {line["slowest"] for line in said} == {slow.node_id.hex()}
    assert lines.only("factory_funded")["seconds"] == 6


def test_an_abort_names_the_factory_how_it_ended_and_whose_fault_it_was(lines: Lines) -> None:
    told = Told(proposed(2))
    pump = told.pump
    client, attempt_id = pump.client_at(1), pump.attempt.attempt_id
    with pump.tampering(only_from(client, nothing, m.SignBelow)):
        pump.run()
    pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=attempt_id))
    told.hear()
    line = lines.only("factory_aborted")
    assert (line["factory"], line["outcome"]) == (attempt_id.hex(), "silence")
    assert line["culprits"] == client.node_id.hex()
    assert (line["answered"], line["level"]) == (1, "warning")


def numbers(t: Town, name: str) -> dict[tuple[str, str], float]:
    """Return how many payments ended, by direction and outcome."""
    return {
        (labels["direction"], labels["outcome"]): value
        for number, labels, value in t.running[name][0].samples()
        if number == "payments_ended_total"
    }


def test_a_factorys_life_is_told_by_both_roles_and_its_payments_are_counted(
    tmp_path: Path, lines: Lines
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=LSP_POLICY) as t:
            factory = await with_money(t)
            paid = await t.call("alice", "pay", invoice=await invoice_of(t, "bob", 5_000_000))
            assert paid["status"] == "paid"
            await t.until("lsp", "payments", lambda p: p["earned_msat"] > 0)
            await t.until("bob", "balance", lambda b: b["total"]["own_msat"] == 5_000_000)
            assert numbers(t, "alice")["out", "paid"] == numbers(t, "alice")["in", "paid"] == 1
            assert numbers(t, "bob")["in", "paid"] == 1
            assert numbers(t, "lsp") == {
                ("out", "paid"): 1,
                ("out", "failed"): 0,
                ("forwarded", "paid"): 1,
                ("forwarded", "failed"): 0,
                ("forwarded", "unsettled"): 0,
            }
            for daemon, _ in t.running.values():
                assert all(check.ok for check in readiness(daemon)), readiness(daemon)
                told = {name: value for name, _, value in daemon.samples()}
                assert told["chain_up"] == 1
                assert told["blocks_to_next_deadline"] > 1
            # Of each daemon that has to do with it, by the factory's id.
            assert len(lines.named("branch_complete")) == 2
            assert len(lines.named("funding_deep")) == 3
            assert len(lines.named("factory_live")) == 3
            for event in ("factory_proposed", "factory_funded"):
                assert lines.only(event)["factory"] == factory
            for event in ("phase_over", "branch_complete", "funding_deep", "factory_live"):
                assert {line["factory"] for line in lines.named(event)} == {factory}, event
            by_lsp, by_alice = lines.named("payment_made")
            assert by_alice["payment"] == paid["payment_hash"]
            assert by_lsp["payment"] != by_alice["payment"]
            assert [line["factory"] for line in lines.named("invoice_paid")] == [factory] * 2

    asyncio.run(main())


def test_a_line_has_its_time_to_the_millisecond_in_both_formats() -> None:
    record = logging.LogRecord("room", logging.INFO, "f", 1, "daemon_started n=%d", (1,), None)
    record.created = 1_700_000_000.0625
    in_json = json.loads(JsonFormatter().format(record))["time"]
    in_words = TextFormatter().format(record).split()[0]
    assert in_json == in_words
    assert ".062" in in_json
    assert in_json[-6] in "+-", "with its offset"
