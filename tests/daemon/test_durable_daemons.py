"""Real daemons and their disks: started from checkpoints, and silent about what is not durable."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.town import Town, town

from cromford.adapters.sqlite import Journal
from cromford.daemon import streams
from cromford.daemon.api.rpc import RpcFailure
from cromford.ports import Archived, Entry, StoreFailed

AMOUNT_MSAT = 5_000_000


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
                    (stream,) = journal.heads().keys() - {"creation"}
                    checkpoint = journal.checkpoint(stream)
                    assert checkpoint is not None
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
            with pytest.raises(RpcFailure):
                await t.call("alice", "invoice", amount_msat=AMOUNT_MSAT)
            with pytest.raises(StoreFailed, match="the disk is full"):
                await asyncio.wait_for(task, 20)
            full.clear()
            await t.start_client("alice")
            assert (await t.call("alice", "payments"))["payments"] == []

    asyncio.run(scenario())
