"""Events as they happen: server-sent events, resumable by their ids, and bounded in number."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from tests.daemon.api.asking import SOCKET, got, raw_connection, read_one

from cromford.adapters.memory import MemoryJournal
from cromford.daemon.api import events as api_events
from cromford.daemon.api.caller import OPERATOR, caller
from cromford.daemon.api.endpoints import endpoints
from cromford.daemon.api.events import Followers, events_method, events_stream
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.gate import TokenGate
from cromford.daemon.api.operations import Scope
from cromford.daemon.api.server import ApiServer, TcpListener
from cromford.daemon.api.tokens import Tokens
from cromford.daemon.event_log import CursorExpired, EventLog
from cromford.ports import EVENTS_KEPT, Entry
from cromford.protocol.journal import records as r
from cromford.protocol.journal.records import encode_record

STREAM = "Accept: text/event-stream"
Happen = Callable[[int], None]


async def read_event(reader: asyncio.StreamReader) -> dict[str, str]:
    """Return the next event; comments are passed over, and so is how it was cut into chunks."""
    fields: dict[str, str] = {}
    while line := (await reader.readline()).decode():
        name, found, value = line.rstrip("\r\n").partition(": ")
        if fields and not line.strip():
            return fields
        if found and name in {"id", "event", "data"}:
            fields[name] = value
    raise EOFError


def play(
    tmp_path: Path,
    scenario: Callable[[Happen, EventLog], Coroutine[Any, Any, None]],
    *,
    heartbeat_seconds: float = 10.0,
) -> None:
    """Play a scenario against an API whose events happen when the scenario says so."""

    async def run() -> None:
        store = MemoryJournal()
        log = EventLog(store, journal_number=0x7F)

        def happen(height: int) -> None:
            block = r.BlockConnected(height=height, block_hash=bytes(32), txs=())
            store.append([Entry("client", encode_record(block))])
            log.news()

        served = endpoints({"events": events_method(log)}, params=api_events.PARAMS, answers={})
        streams = {"events": events_stream(log, heartbeat_seconds=heartbeat_seconds)}
        async with ApiServer(tmp_path / SOCKET, served, streams=streams), asyncio.timeout(20):
            await scenario(happen, log)
            log.close()

    asyncio.run(run())


def test_events_come_as_they_happen_each_under_its_cursor(tmp_path: Path) -> None:
    async def scenario(happen: Happen, _log: EventLog) -> None:
        happen(1)
        async with raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(got("/v1/events", STREAM))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert b"text/event-stream" in head
            first = await read_event(reader)
            assert (first["id"], first["event"]) == ("7f-1", "block_connected")
            assert json.loads(first["data"])["height"] == 1
            for height in (2, 3):
                happen(height)
                told = await read_event(reader)
                assert (told["id"], json.loads(told["data"])["height"]) == (f"7f-{height}", height)

    play(tmp_path, scenario)


def test_who_comes_back_with_the_last_id_misses_nothing_and_sees_nothing_twice(
    tmp_path: Path,
) -> None:
    async def scenario(happen: Happen, _log: EventLog) -> None:
        for height in range(1, 6):
            happen(height)
        seen: list[int] = []
        last = ""
        for _ in range(5):
            async with raw_connection(tmp_path / SOCKET) as (reader, writer):
                # What was given as `after` is where it began; the last id is where it is.
                writer.write(got("/v1/events?after=7f-0", STREAM, f"Last-Event-ID: {last}"))
                told = await read_event(reader)
                seen.append(json.loads(told["data"])["height"])
                last = told["id"]
        assert seen == [1, 2, 3, 4, 5]

    play(tmp_path, scenario)


def test_only_what_is_asked_for_is_told_and_silence_is_no_end(tmp_path: Path) -> None:
    async def scenario(happen: Happen, log: EventLog) -> None:
        happen(1)
        async with raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(got("/v1/events?only=peer_connected", STREAM))
            await reader.readuntil(b"cursor\n\n")
            # Whoever comes back goes on behind what was passed over, which may be gone by then.
            passed = await reader.readuntil(b"\n\n")
            assert passed.endswith(f"id: {log.cursor_of(1)}\n\n".encode())
            assert await reader.readuntil(b":\n\n")
            assert await reader.readuntil(b":\n\n")

    play(tmp_path, scenario, heartbeat_seconds=0.01)


def test_what_is_gone_before_it_was_told_is_never_skipped_in_silence(tmp_path: Path) -> None:
    async def scenario(happen: Happen, log: EventLog) -> None:
        happen(1)
        async with raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(got("/v1/events?after=7f-1", STREAM))
            await reader.readuntil(b"cursor\n\n")
            # All at one moment, in which nobody is told anything.
            for height in range(2, EVENTS_KEPT + 3):
                happen(height)
            # The last chunk (RFC 9112, section 7.1).
            assert b"data" not in await reader.readuntil(b"\r\n0\r\n\r\n")
        with pytest.raises(CursorExpired, match="7f-1"):
            log.after(1)
        assert log.after(2)[0]["cursor"] == "7f-3"

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("after=nonsense", 400, "cursor_unknown"),
        ("only=nonsense", 400, "invalid_param"),
        ("nonsense=1", 400, "invalid_param"),
        ("wait_seconds=5", 400, "invalid_param"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_told(
    tmp_path: Path, query: str, status: int, code: str
) -> None:
    async def scenario(_happen: Happen, _log: EventLog) -> None:
        async with raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(got(f"/v1/events?{query}", STREAM))
            refused = await read_one(reader)
            assert (refused[0], refused[2]["code"]) == (status, code)

    play(tmp_path, scenario)


def test_there_are_so_many_followers_and_who_leaves_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_events, "FOLLOWERS_MAX", 1)

    async def scenario(_happen: Happen, _log: EventLog) -> None:
        async with raw_connection(tmp_path / SOCKET) as (first, first_writer):
            first_writer.write(got("/v1/events", STREAM))
            await first.readuntil(b"cursor\n\n")
            async with raw_connection(tmp_path / SOCKET) as (second, second_writer):
                second_writer.write(got("/v1/events", STREAM))
                refused = await read_one(second)
                assert (refused[0], refused[2]["code"]) == (429, "too_many_followers")
                assert refused[2]["retryable"]
                second_writer.write(got("/v1/events"))
                assert (await read_one(second))[0] == 200
        while True:
            async with raw_connection(tmp_path / SOCKET) as (third, third_writer):
                third_writer.write(got("/v1/events", STREAM))
                if b"200 OK" in await third.readline():
                    return

    play(tmp_path, scenario)


def test_who_waits_for_an_event_is_counted_and_who_does_not_wait_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_events, "FOLLOWERS_MAX", 1)

    async def scenario(happen: Happen, _log: EventLog) -> None:
        async with (
            raw_connection(tmp_path / SOCKET) as (first, first_writer),
            raw_connection(tmp_path / SOCKET) as (second, second_writer),
        ):
            first_writer.write(got("/v1/events?wait_seconds=60"))
            while True:
                second_writer.write(got("/v1/events?wait_seconds=0.01"))
                status, _, body = await read_one(second)
                if status == 429:
                    break
            assert (body["code"], body["retryable"]) == ("too_many_followers", True)
            second_writer.write(got("/v1/events"))
            assert (await read_one(second))[0] == 200
            happen(1)
            assert (await read_one(first))[0] == 200
            second_writer.write(got("/v1/events?wait_seconds=60"))
            assert (await read_one(second))[0] == 200, "who was answered makes room"

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (got("/v1/events", STREAM), got("/v1/events", STREAM)),
        (got("/v1/events?wait_seconds=60"), got("/v1/events?wait_seconds=0.01")),
    ],
)
def test_whoever_comes_with_a_token_takes_no_place_of_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bytes, asked: bytes
) -> None:
    monkeypatch.setattr(api_events, "FOLLOWERS_MAX", 1)

    async def run() -> None:
        log = EventLog(MemoryJournal(), journal_number=0x7F)
        tcp = TcpListener(host="127.0.0.1", port=0, gate=lambda _headers: frozenset(Scope))
        async with (
            ApiServer(
                tmp_path / SOCKET,
                endpoints({"events": events_method(log)}, params=api_events.PARAMS, answers={}),
                tcp=tcp,
                streams={"events": events_stream(log)},
            ) as server,
            asyncio.timeout(20),
        ):
            port = server.tcp_port
            assert port is not None

            async def first_line(request: bytes) -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(request)
                    return await reader.readline()
                finally:
                    writer.close()

            _, holder = await asyncio.open_connection("127.0.0.1", port)
            holder.write(held)
            while b" 429 " not in await first_line(asked):
                pass
            async with raw_connection(tmp_path / SOCKET) as (reader, writer):
                writer.write(asked)
                assert b" 200 " in await reader.readline()
            log.close()
            holder.close()

    asyncio.run(run())


def test_a_token_takes_no_more_places_than_it_leaves_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_events, "FOLLOWERS_MAX", 8)
    followers = Followers()

    def taken_by(name: str) -> int:
        caller.set(name)
        for n_taken in range(100):
            try:
                held.enter_context(followers.one_more())
            except ApiFailure:
                return n_taken
        return 100

    def play() -> list[int]:
        return [taken_by(name) for name in ("first", "first", "second", "third", OPERATOR)]

    with contextlib.ExitStack() as held:
        assert copy_context().run(play) == [4, 0, 2, 1, 8]
    with contextlib.ExitStack() as held:
        assert copy_context().run(play) == [4, 0, 2, 1, 8], "who leaves makes room"


def test_who_comes_by_tcp_is_known_by_its_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    made: Any = asyncio.run(_made(tokens, "dashboard"))
    gate = TokenGate(tokens, host="127.0.0.1")

    def let_in() -> str:
        gate(Headers({"host": "127.0.0.1", "authorization": f"Bearer {made['token']}"}))
        return caller.get()

    assert copy_context().run(let_in) == "dashboard"


async def _made(tokens: Tokens, name: str) -> object:
    return await tokens.methods()["token_add"]({"name": name, "scopes": ["read"]})


def test_who_leaves_while_it_waits_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_events, "FOLLOWERS_MAX", 1)
    short, long = (got(f"/v1/events?wait_seconds={seconds}") for seconds in (0.01, 60))

    async def scenario(_happen: Happen, _log: EventLog) -> None:
        async with raw_connection(tmp_path / SOCKET) as (other, other_writer):
            async with raw_connection(tmp_path / SOCKET) as (leaving, leaving_writer):
                leaving_writer.write(short)
                assert (await read_one(leaving))[0] == 200
                leaving_writer.write(long)
                status = 200
                while status != 429:
                    other_writer.write(short)
                    status, _, _ = await read_one(other)
            while status != 200:
                other_writer.write(short)
                status, _, _ = await read_one(other)

    play(tmp_path, scenario)


def test_a_daemon_that_stops_ends_every_stream(tmp_path: Path) -> None:
    async def scenario(_happen: Happen, log: EventLog) -> None:
        async with raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(got("/v1/events", STREAM))
            await reader.readuntil(b"cursor\n\n")
            log.close()
            await reader.readuntil(b"\r\n0\r\n\r\n")  # The last chunk (RFC 9112, section 7.1).

    play(tmp_path, scenario)
