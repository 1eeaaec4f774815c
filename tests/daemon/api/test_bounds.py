"""What no caller can do to the others: connections, and what a connection may take, are bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.daemon.api.asking import (
    GOOD,
    METHODS,
    SOCKET,
    echo,
    posted,
    raw_connection,
    read_one,
    served,
)

from cromford.daemon.api import connections, server
from cromford.daemon.api.gate import TokenGate
from cromford.daemon.api.server import ApiServer, TcpListener
from cromford.daemon.api.tokens import Tokens

SOON = 0.05
HEAD = b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


async def is_ended(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


@contextlib.asynccontextmanager
async def listening(tmp_path: Path, *, tcp: bool = False) -> AsyncIterator[ApiServer]:
    gate = TokenGate(Tokens(tmp_path), host="127.0.0.1")
    where = TcpListener(host="127.0.0.1", port=0, gate=gate) if tcp else None
    async with ApiServer(tmp_path / SOCKET, served(), tcp=where) as listener, asyncio.timeout(20):
        yield listener


def test_the_one_that_is_idle_for_longest_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNIX_CONNECTIONS_MAX", 2)

    async def run() -> None:
        async with (
            listening(tmp_path),
            raw_connection(tmp_path / SOCKET) as (first, first_writer),
            raw_connection(tmp_path / SOCKET) as (second, second_writer),
        ):
            second_writer.write(GOOD)
            await read_one(second)
            first_writer.write(GOOD)
            await read_one(first)
            async with raw_connection(tmp_path / SOCKET) as (third, third_writer):
                assert await is_ended(second)
                third_writer.write(GOOD)
                assert (await read_one(third))[0] == 200
                first_writer.write(GOOD)
                assert (await read_one(first))[0] == 200

    asyncio.run(run())


def test_nobody_who_is_being_answered_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNIX_CONNECTIONS_MAX", 1)

    async def run() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def wait(params: dict[str, object]) -> object:
            begun.set()
            await go_on.wait()
            return params

        async with (
            ApiServer(tmp_path / SOCKET, served({**METHODS, "pay": wait})),
            asyncio.timeout(20),
            raw_connection(tmp_path / SOCKET) as (first, first_writer),
        ):
            first_writer.write(GOOD)
            await begun.wait()
            async with raw_connection(tmp_path / SOCKET) as (second, _):
                assert await is_ended(second)
            go_on.set()
            assert (await read_one(first))[2] == {"a": 1}

    asyncio.run(run())


def test_a_crowd_at_the_tcp_port_does_not_keep_the_operator_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TCP_CONNECTIONS_MAX", 3)

    async def run() -> None:
        async with listening(tmp_path, tcp=True) as listener, contextlib.AsyncExitStack() as stack:
            crowd = []
            for _ in range(6):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.tcp_port)
                stack.callback(writer.close)
                writer.write(HEAD)  # Half a request each.
                crowd.append(reader)
            async with raw_connection(tmp_path / SOCKET) as (own, own_writer):
                own_writer.write(GOOD)
                assert (await read_one(own))[0] == 200
            assert all([await is_ended(reader) for reader in crowd[:3]])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (b"", "IDLE_SECONDS"),
        (b"POST /v1/payments HT", "REQUEST_SECONDS"),
        (HEAD + b"Content-Length: 9\r\n\r\n{", "REQUEST_SECONDS"),
    ],
)
def test_who_says_nothing_or_half_of_something_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, limit: str
) -> None:
    monkeypatch.setattr(connections, limit, SOON)

    async def run() -> None:
        async with listening(tmp_path), raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(said)
            assert await is_ended(reader)

    asyncio.run(run())


def test_a_request_that_trickles_in_is_not_waited_for_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 2 * SOON)

    async def run() -> None:
        async with listening(tmp_path), raw_connection(tmp_path / SOCKET) as (reader, writer):
            ended = asyncio.create_task(is_ended(reader))
            writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
            while not ended.done():
                writer.write(b" ")
                await asyncio.sleep(SOON / 5)
            assert await ended

    asyncio.run(run())


def test_a_connection_between_two_requests_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(connections, "IDLE_SECONDS", 0.0)
            listener = listening(tmp_path)
            await listener.__aenter__()
        async with raw_connection(tmp_path / SOCKET) as (reader, writer):
            writer.write(GOOD)
            assert (await read_one(reader))[0] == 200
            assert await is_ended(reader)
        await listener.__aexit__(None, None, None)

    asyncio.run(run())


def test_an_answer_that_nobody_reads_is_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", SOON)
    large = b'{"a":"%s"}' % (b"x" * 3_000_000)

    async def run() -> None:
        async with (
            ApiServer(tmp_path / SOCKET, served({"pay": echo})) as listener,
            raw_connection(tmp_path / SOCKET) as (_, writer),
            asyncio.timeout(20),
        ):
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's can
            writer.write(posted("/v1/payments", large, "Content-Type: application/json"))
            for n_connections in (1, 0):
                while listener.n_connections != n_connections:  # noqa: ASYNC110 - the server's
                    await asyncio.sleep(SOON / 5)

    asyncio.run(run())
