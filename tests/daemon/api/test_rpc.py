import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.daemon.api import rpc, rpc_server
from cromford.daemon.api.rpc import DaemonNotRunning, InvalidParam, RpcClient, RpcFailure
from cromford.daemon.api.rpc_server import Handler, RpcServer, SocketInUse, read_params


class SaleParams(msgspec.Struct, forbid_unknown_fields=True):
    amount_sat: int
    leaf: str = "first"


async def echo(params: dict[str, Any]) -> object:
    return params


async def sell(params: dict[str, Any]) -> object:
    return read_params(params, SaleParams)


async def refuse(_: dict[str, Any]) -> object:
    raise RpcFailure(
        "odometer_exhausted",
        "the leaf has no epoch left",
        retryable=False,
        remediation="Rotate into a new factory.",
        exit_code=3,
    )


async def fail(params: dict[str, Any]) -> object:
    raise RuntimeError(f"a bug that knows {params}")


async def answer_with_an_object(_: dict[str, Any]) -> object:
    return object()


METHODS: dict[str, Handler] = {
    "echo": echo,
    "sell": sell,
    "refuse": refuse,
    "fail": fail,
    "answer_with_an_object": answer_with_an_object,
}


def in_server(
    socket_path: Path,
    scenario: Callable[[RpcClient], object],
    methods: dict[str, Handler] = METHODS,
) -> None:
    """Run a blocking scenario in a thread against a server in this process."""

    async def run() -> None:
        async with RpcServer(socket_path, methods):
            await asyncio.to_thread(scenario, RpcClient(socket_path, timeout_seconds=10))

    asyncio.run(run())


@asynccontextmanager
async def raw_connection(
    socket_path: Path,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def ask_raw(socket_path: Path, *lines: bytes) -> list[dict[str, Any]]:
    async with raw_connection(socket_path) as (reader, writer), asyncio.timeout(10):
        writer.write(b"".join(line + b"\n" for line in lines))
        return [json.loads(await reader.readline()) for _ in lines]


def ask_server(tmp_path: Path, *lines: bytes) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        socket_path = tmp_path / "rpc.sock"
        async with RpcServer(socket_path, METHODS):
            return await ask_raw(socket_path, *lines)

    return asyncio.run(run())


def test_a_result_comes_back_as_it_was_returned(tmp_path: Path) -> None:
    def scenario(client: RpcClient) -> None:
        params = {"method": "m", "self": [1, None, {"deep": "\u2028"}], "amount_sat": 2**53}
        assert client.call("echo", **params) == params
        assert client.call("sell", amount_sat=5) == {"amount_sat": 5, "leaf": "first"}

    in_server(tmp_path / "rpc.sock", scenario)


def test_a_failure_reaches_the_caller_whole(tmp_path: Path) -> None:
    def scenario(client: RpcClient) -> None:
        with pytest.raises(RpcFailure, match="no epoch left") as failure:
            client.call("refuse")
        assert failure.value.code == "odometer_exhausted"
        assert failure.value.retryable is False
        assert failure.value.remediation == "Rotate into a new factory."
        assert failure.value.exit_code == 3
        assert failure.value.number == rpc.FAILURE

    in_server(tmp_path / "rpc.sock", scenario)


def test_an_error_has_the_documented_form(tmp_path: Path) -> None:
    (answer,) = ask_server(tmp_path, b'{"jsonrpc":"2.0","id":"x","method":"refuse"}')
    assert answer == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": -32000,
            "message": "the leaf has no epoch left",
            "data": {
                "code": "odometer_exhausted",
                "retryable": False,
                "remediation": "Rotate into a new factory.",
                "exit_code": 3,
            },
        },
    }


@pytest.mark.parametrize(
    ("params", "param", "complaint"),
    [
        ({}, "amount_sat", "missing required field"),
        ({"amount_sat": "5"}, "amount_sat", "Expected `int`, got `str`"),
        ({"amount_sat": 5, "leaf": 7}, "leaf", "Expected `str`, got `int`"),
        ({"amount_sat": 5, "lief": "x"}, "lief", "unknown field"),
    ],
)
def test_a_wrong_parameter_is_named(
    tmp_path: Path, params: dict[str, Any], param: str, complaint: str
) -> None:
    with pytest.raises(InvalidParam) as local:
        read_params(params, SaleParams)
    assert local.value.param == param

    def scenario(client: RpcClient) -> None:
        with pytest.raises(RpcFailure, match=f"^{param}: .*{complaint}") as failure:
            client.call("sell", **params)
        assert (failure.value.number, failure.value.code) == (-32602, "invalid_param")

    in_server(tmp_path / "rpc.sock", scenario)


@pytest.mark.parametrize(
    ("line", "number", "request_id", "complaint"),
    [
        (b"{", -32700, None, "not JSON"),
        (b"", -32700, None, "not JSON"),
        (b"\xff\xfe", -32700, None, "not JSON"),
        (b"[" * 100_000, -32700, None, "not JSON"),
        (b"[]", -32600, None, "Expected `object`, got `array`"),
        (b"7", -32600, None, "Expected `object`, got `int`"),
        (b'{"jsonrpc":"2.0","method":"echo"}', -32600, None, "missing required field `id`"),
        (b'{"jsonrpc":"2.0","id":null,"method":"echo"}', -32600, None, "id"),
        (b'{"jsonrpc":"2.0","id":true,"method":"echo"}', -32600, None, "id"),
        (b'{"jsonrpc":"1.0","id":4,"method":"echo"}', -32600, 4, "jsonrpc: expected '2.0'"),
        (b'{"jsonrpc":"2.0","id":4,"method":4}', -32600, 4, "method"),
        (b'{"jsonrpc":"2.0","id":4}', -32600, 4, "missing required field `method`"),
        (b'{"jsonrpc":"2.0","id":4,"method":"echo","params":[1]}', -32602, 4, "params: expected"),
        (b'{"jsonrpc":"2.0","id":4,"method":"nope"}', -32601, 4, "no method 'nope'"),
    ],
)
def test_a_request_that_is_none_is_answered_and_the_connection_lives_on(
    tmp_path: Path, line: bytes, number: int, request_id: object, complaint: str
) -> None:
    good = b'{"jsonrpc":"2.0","id":5,"method":"echo","params":{"a":1}}'
    refused, answered = ask_server(tmp_path, line, good)
    assert (refused["error"]["code"], refused["id"]) == (number, request_id)
    assert complaint in refused["error"]["message"]
    assert refused["error"]["data"]["code"]
    assert answered == {"jsonrpc": "2.0", "id": 5, "result": {"a": 1}}


@given(line=st.binary(max_size=200).filter(lambda line: b"\n" not in line))
def test_any_bytes_get_one_answer(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    (answer,) = ask_server(tmp_path_factory.mktemp("datadir"), line)
    assert answer["jsonrpc"] == "2.0"
    assert "error" in answer


def test_many_requests_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": number, "method": "echo"}).encode()
        for number in range(100)
    ]
    assert [answer["id"] for answer in ask_server(tmp_path, *lines)] == list(range(100))


def test_a_bug_in_a_method_ends_the_request_only_and_leaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(client: RpcClient) -> None:
        with pytest.raises(RpcFailure) as failure:
            client.call("fail", seed_words="abandon ability")
        assert (failure.value.number, failure.value.code) == (-32603, "internal_error")
        assert "abandon" not in str(failure.value)
        with pytest.raises(RpcFailure, match="failed to carry out"):
            client.call("answer_with_an_object")
        assert client.call("echo", still="here") == {"still": "here"}

    with caplog.at_level(logging.DEBUG):
        in_server(tmp_path / "rpc.sock", scenario)
    assert "rpc_method_failed method=fail error=RuntimeError at=" in caplog.text
    assert "test_rpc.py:" in caplog.text
    assert "abandon" not in caplog.text


def test_a_request_at_the_limit_is_served_and_one_above_is_refused(tmp_path: Path) -> None:
    head, tail = b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":"', b'"}}'
    fitting = head + b"x" * (rpc.REQUEST_SIZE_MAX - len(head) - len(tail)) + tail

    async def run() -> None:
        socket_path = tmp_path / "rpc.sock"
        async with RpcServer(socket_path, METHODS):
            (answer,) = await ask_raw(socket_path, fitting)
            assert "result" in answer
            async with raw_connection(socket_path) as (reader, writer), asyncio.timeout(10):
                writer.write(b" " + fitting + b"\n")
                refused = json.loads(await reader.readline())
                assert refused["error"]["data"]["code"] == "request_too_large"

    asyncio.run(run())


def test_the_client_refuses_a_request_above_the_limit_itself(tmp_path: Path) -> None:
    with pytest.raises(RpcFailure, match="at most 4194304 bytes") as failure:
        RpcClient(tmp_path / "rpc.sock").call("echo", a="x" * rpc.REQUEST_SIZE_MAX)
    assert failure.value.code == "request_too_large"


def test_callers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def run() -> None:
        go_on = asyncio.Event()

        async def wait(_: dict[str, Any]) -> object:
            await go_on.wait()
            return "waited"

        socket_path = tmp_path / "rpc.sock"
        async with RpcServer(socket_path, {**METHODS, "wait": wait}):
            client = RpcClient(socket_path, timeout_seconds=10)
            slow = asyncio.create_task(asyncio.to_thread(client.call, "wait"))
            assert await asyncio.to_thread(client.call, "echo") == {}
            go_on.set()
            assert await slow == "waited"

    asyncio.run(run())


def test_only_the_owner_can_reach_the_socket(tmp_path: Path) -> None:
    socket_path = tmp_path / "rpc.sock"

    def scenario(_: RpcClient) -> None:
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600

    old_umask = os.umask(0)
    try:
        in_server(socket_path, scenario)
    finally:
        os.umask(old_umask)
    assert not socket_path.exists()


def test_a_data_directory_of_any_depth_works(tmp_path: Path) -> None:
    datadir = tmp_path.joinpath(*["a-rather-long-name"] * 12)
    datadir.mkdir(parents=True)
    socket_path = datadir / "rpc.sock"
    assert len(str(socket_path)) > 2 * 108

    def scenario(client: RpcClient) -> None:
        assert client.call("echo", far="away") == {"far": "away"}

    in_server(socket_path, scenario)
    assert not socket_path.exists()


def test_the_file_of_a_daemon_that_is_gone_is_replaced(tmp_path: Path) -> None:
    socket_path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    assert socket_path.exists()
    in_server(socket_path, lambda client: client.call("echo"))


def test_a_socket_somebody_listens_on_is_left_to_them(tmp_path: Path) -> None:
    async def run() -> None:
        socket_path = tmp_path / "rpc.sock"
        async with RpcServer(socket_path, METHODS):
            with pytest.raises(SocketInUse, match="another daemon listens"):
                await RpcServer(socket_path, METHODS).start()
            client = RpcClient(socket_path, timeout_seconds=10)
            assert await asyncio.to_thread(client.call, "echo") == {}

    asyncio.run(run())


def test_a_file_that_is_no_socket_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rpc.sock").write_text("mine")
    with pytest.raises(SocketInUse, match="is not a socket"):
        asyncio.run(RpcServer(tmp_path / "rpc.sock", METHODS).start())
    assert (tmp_path / "rpc.sock").read_text() == "mine"


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(RpcServer(tmp_path / "missing" / "rpc.sock", METHODS).start())


@pytest.mark.parametrize("name", ["rpc.sock", "missing/rpc.sock", "file/rpc.sock"])
def test_no_daemon_is_said_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DaemonNotRunning, match="no daemon listens on") as failure:
        RpcClient(tmp_path / name).call("echo")
    assert failure.value.code == "daemon_not_running"
    assert "Start the daemon" in failure.value.remediation


def test_a_stale_socket_is_no_daemon_either(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "rpc.sock"))
    with pytest.raises(DaemonNotRunning):
        RpcClient(tmp_path / "rpc.sock").call("echo")


def test_a_daemon_that_does_not_answer_is_a_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "rpc.sock"))
        silent.listen()
        with pytest.raises(RpcFailure, match=r"no answer in 0\.05 seconds") as failure:
            RpcClient(tmp_path / "rpc.sock", timeout_seconds=0.05).call("echo")
        assert failure.value.retryable


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "connection_lost"),
        (b'{"jsonrpc":', "connection_lost"),
        (b"hello\n", "unreadable_response"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}\n', "unreadable_response"),
    ],
)
def test_an_answer_that_is_none_is_a_failure_with_a_code(
    tmp_path: Path, answer: bytes, code: str
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async def run() -> None:
        socket_path = tmp_path / "rpc.sock"
        server = await asyncio.start_unix_server(reply, str(socket_path))
        with pytest.raises(RpcFailure) as failure:
            await asyncio.to_thread(RpcClient(socket_path, timeout_seconds=10).call, "echo")
        assert failure.value.code == code
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def test_closing_lets_a_begun_request_finish(tmp_path: Path) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def stop(_: dict[str, Any]) -> object:
            begun.set()
            await asyncio.sleep(0.02)
            return "stopping"

        socket_path = tmp_path / "rpc.sock"
        server = RpcServer(socket_path, {"stop": stop})
        await server.start()
        async with raw_connection(socket_path) as (idle, _):
            client = RpcClient(socket_path, timeout_seconds=10)
            call = asyncio.create_task(asyncio.to_thread(client.call, "stop"))
            await begun.wait()
            await server.close()
            await server.close()
            assert await call == "stopping"
            assert await idle.read() == b""

    asyncio.run(run())


def test_closing_ends_a_request_that_does_not_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "GRACE_SECONDS", 0.02)

    async def run() -> None:
        begun = asyncio.Event()

        async def hang(_: dict[str, Any]) -> object:
            begun.set()
            return await asyncio.Event().wait()

        socket_path = tmp_path / "rpc.sock"
        async with RpcServer(socket_path, {"hang": hang}):
            client = RpcClient(socket_path, timeout_seconds=10)
            call = asyncio.create_task(asyncio.to_thread(client.call, "hang"))
            await begun.wait()
        with pytest.raises(RpcFailure, match="closed the connection"):
            await call

    asyncio.run(run())


def test_connections_above_the_limit_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "CONNECTIONS_MAX", 1)

    async def run() -> None:
        socket_path = tmp_path / "rpc.sock"
        request = b'{"jsonrpc":"2.0","id":1,"method":"echo"}\n'
        async with (
            RpcServer(socket_path, METHODS),
            raw_connection(socket_path) as (first, first_writer),
            asyncio.timeout(10),
        ):
            first_writer.write(request)
            assert b"result" in await first.readline()
            async with raw_connection(socket_path) as (second, _):
                assert await second.read() == b""
            first_writer.write(request)
            assert b"result" in await first.readline()

    asyncio.run(run())


@pytest.mark.parametrize("method", ["echo", "sell"])
def test_a_request_for_another_role_is_refused_unread(tmp_path: Path, method: str) -> None:
    async def run() -> None:
        socket_path = tmp_path / "rpc.sock"
        seen: list[dict[str, Any]] = []

        async def note(params: dict[str, Any]) -> object:
            seen.append(params)
            return params

        async with RpcServer(socket_path, {method: note}, role="lsp"):
            with pytest.raises(RpcFailure) as refused:
                await asyncio.to_thread(RpcClient(socket_path, role="client").call, method, a=1)
            assert refused.value.code == "wrong_role"
            assert "expected a client's, received an lsp's" in refused.value.message
            assert "--datadir" in refused.value.remediation
            assert seen == []
            for meant in ("lsp", None):
                answer = await asyncio.to_thread(
                    RpcClient(socket_path, role=meant).call, method, a=1
                )
                assert answer == {"a": 1}
            assert len(seen) == 2

    asyncio.run(run())
