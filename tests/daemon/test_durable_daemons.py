"""Real daemons and their disks: started from checkpoints, and silent about what is not durable."""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.daemon.town import CAPACITY_SAT, LSP_POLICY, Town, town

from cromford import effects as fx
from cromford.adapters.sqlite import Journal
from cromford.daemon import streams
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.logs import set_up_logging
from cromford.daemon.shell import Daemon
from cromford.ports import EVENTS_KEPT, Archived, Entry, StoreFailed
from cromford.wire.messages import Abort, RevokeAndAck

AMOUNT_MSAT = 5_000_000
SEND = fx.Send(node_id=bytes(33), message=Abort(attempt_id=bytes(32), reason="no"))
BINDS = fx.Send(
    node_id=bytes(33),
    message=RevokeAndAck(
        channel_id=bytes(32),
        per_commitment_secret=bytes(32),
        next_per_commitment_point=bytes(33),
        next_pubnonce=bytes(66),
    ),
)
HANG_UP = fx.Disconnect(node_id=bytes(33), reason="no")


async def pay(t: Town, payer: str, payee: str, amount_msat: int) -> None:
    asked = await t.call(payee, "invoice", amount_msat=amount_msat)
    paid = await t.call(payer, "pay", invoice=asked["invoice"])
    assert paid["status"] == "paid"


async def events_after(t: Town, name: str, cursor: str) -> tuple[list[dict[str, Any]], str]:
    found: list[dict[str, Any]] = []
    while page := (await t.call(name, "events", after=cursor))["events"]:
        found += page
        cursor = page[-1]["cursor"]
    return found, cursor


@pytest.mark.sampled(0)
def test_daemons_go_on_from_their_checkpoints_and_readers_from_their_cursors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "TAIL_SIZE_MIN", 2_000)
    monkeypatch.setattr(streams, "TAIL_SHARE", 0.0)
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.build("alice", "bob")
            await t.until("alice", "factory", lambda a: a["channel_status"] == "open")
            await t.until("bob", "factory", lambda a: a["channel_status"] == "open")
            await pay(t, "lsp", "alice", 10 * AMOUNT_MSAT)
            before, cursor = await events_after(t, "lsp", "")
            balance = await t.call("alice", "balance")
            payments = await t.call("lsp", "payments")
            for name in ("alice", "bob", "lsp"):
                await t.stop(name)
                with Journal(t.base / name / "regtest") as journal:
                    streams = {kept.stream for kept in journal.history(after=0, limit=EVENTS_KEPT)}
                    for stream in streams - {"creation"}:
                        checkpoint = journal.checkpoint(stream)
                        assert checkpoint is not None, stream
                        assert checkpoint.n > 5
            await t.start_lsp()
            for name in ("alice", "bob"):
                await t.start_client(name)
            for name in ("alice", "bob"):
                await t.until(name, "factory", lambda a: a["channel_status"] == "open")
            assert (await t.call("lsp", "payments")) == payments
            assert (await t.call("alice", "balance"))["total"] == balance["total"]
            await pay(t, "alice", "bob", AMOUNT_MSAT)
            after, _ = await events_after(t, "lsp", cursor)
            everything, _ = await events_after(t, "lsp", "")
            assert before + after == everything[: len(before) + len(after)]
            assert "started" in {event["event"] for event in after}

    asyncio.run(scenario())
    taken = [record for record in caplog.records if "checkpoint_taken" in record.getMessage()]
    assert len(taken) > 4
    assert "checkpoint_failed" not in caplog.text


def test_a_daemon_whose_disk_is_full_answers_nothing_of_it_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal.append
    full: set[Path] = set()

    def append_if_there_is_room(
        journal: Journal, entries: Sequence[Entry], archived: Sequence[Archived] = ()
    ) -> None:
        if journal._path.parent in full:
            raise StoreFailed("the disk is full")
        append(journal, entries, archived)

    monkeypatch.setattr(Journal, "append", append_if_there_is_room)

    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.build("alice")
            await t.until("alice", "factory", lambda a: a["channel_status"] == "open")
            daemon, task = t.running.pop("alice")
            full.add(daemon.home)
            with pytest.raises(ApiFailure):
                await t.call("alice", "invoice", amount_msat=AMOUNT_MSAT)
            with pytest.raises(StoreFailed, match="the disk is full"):
                await asyncio.wait_for(task, 20)
            full.clear()
            await t.start_client("alice")
            assert (await t.call("alice", "payments"))["payments"] == []

    asyncio.run(scenario())


def test_a_disk_that_is_slower_than_a_deadline_lets_no_client_be_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal.append
    slow: set[Path] = set()

    def append_late(
        journal: Journal, entries: Sequence[Entry], archived: Sequence[Archived] = ()
    ) -> None:
        if journal._path.parent in slow:
            time.sleep(1.3)
        append(journal, entries, archived)

    monkeypatch.setattr(Journal, "append", append_late)

    async def scenario() -> None:
        async with town(tmp_path, lsp_policy=replace(LSP_POLICY, deadline_seconds=1)) as t:
            await t.start_client("alice")
            await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
            await t.until("alice", "status", lambda status: status["joined"])
            daemon, _ = t.running["lsp"]
            slow.add(daemon.home)
            await t.call("lsp", "build")
            over = {"funding", "aborted"}
            built = await t.until(
                "lsp", "factories", lambda a: {one["phase"] for one in a["factories"]} & over
            )
            slow.clear()
            assert [one["phase"] for one in built["factories"]] == ["funding"]

    asyncio.run(scenario())


def test_a_log_without_room_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = logging.getLogger().handlers[:]
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - it cannot be closed well
    monkeypatch.setattr(sys, "stderr", full)
    try:
        set_up_logging(level="info", form="text")
        logging.getLogger("a room").info("something_happened")
    finally:
        logging.getLogger().handlers[:] = handlers
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()


@pytest.mark.parametrize("effect", [SEND, HANG_UP])
@pytest.mark.parametrize(("later", "n_performed"), [("first", 1), ("second", 0), (None, 0)])
def test_what_was_decided_for_one_connection_is_not_done_on_the_next(
    effect: fx.Performed, later: str | None, n_performed: int
) -> None:
    connection: list[str | None] = ["first"]
    performed: list[fx.Performed] = []

    def note(one: fx.Performed) -> tuple[()]:
        performed.append(one)
        return ()

    let_go: list[bytes] = []
    peers = SimpleNamespace(connection_of=lambda _node_id: connection[0], let_go=let_go.append)
    daemon: Any = SimpleNamespace(peers=peers, _perform=note, _is_covered=True)
    perform = Daemon._bound(daemon, effect)
    assert let_go == ([bytes(33)] if effect is HANG_UP else []), "before the disk has it"
    connection[0] = later
    assert list(perform()) == []
    assert performed == [effect] * n_performed


@pytest.mark.parametrize(
    ("effect", "n_said"),
    [(SEND, 2), (HANG_UP, 2), (BINDS, 1)],
)
def test_what_binds_is_said_only_once_it_is_marked(effect: fx.Performed, n_said: int) -> None:
    performed: list[fx.Performed] = []
    hung_up: list[tuple[bytes, bool]] = []

    def note(one: fx.Performed) -> tuple[()]:
        performed.append(one)
        return ()

    peers = SimpleNamespace(
        connection_of=lambda _node_id: "one",
        let_go=lambda _node_id: None,
        disconnect=lambda node_id, _reason, *, is_ours: hung_up.append((node_id, is_ours)),
    )
    daemon: Any = SimpleNamespace(peers=peers, _perform=note, _is_covered=True)
    perform = Daemon._bound(daemon, effect)
    perform()
    daemon._is_covered = False
    perform()
    assert performed == [effect] * n_said
    assert hung_up == [(bytes(33), True)] * (2 - n_said), "that no mark can be written is our doing"
