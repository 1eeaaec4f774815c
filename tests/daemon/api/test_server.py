import asyncio
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.daemon.api.asking import (
    GOOD,
    JSON,
    METHODS,
    SOCKET,
    SaleParams,
    ask_raw,
    ask_server,
    got,
    in_server,
    posted,
    raw_connection,
    read_one,
    served,
)

from cromford.daemon.api import calling, connections
from cromford.daemon.api import server as api_server
from cromford.daemon.api.calling import ApiClient
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import read_params
from cromford.daemon.api.server import ApiServer, SocketInUse
from cromford.ports import StoreFull


def test_an_answer_comes_back_as_it_was_returned(tmp_path: Path) -> None:
    def scenario(client: ApiClient) -> None:
        params = {"name": "m", "self": [1, None, {"deep": "\u2028"}], "amount_sat": 2**53}
        assert client.call("pay", **params) == params
        assert client.call("wallet_send", amount_sat=5) == {"amount_sat": 5, "leaf": "first"}

    in_server(tmp_path / SOCKET, scenario)


def test_what_stands_in_a_query_comes_back_as_its_type_has_it(tmp_path: Path) -> None:
    def scenario(client: ApiClient) -> None:
        params = {
            "after": "1-2",
            "wait_seconds": 1.5,
            "limit": 7,
            "is_deep": True,
            "only": ["a&b", "c=d", "ü"],
        }
        assert client.call("events", **params) == params
        assert client.call("events", only=["one"], limit=None) == {"only": ["one"]}
        assert client.call("events", after="") == {"after": ""}

    in_server(tmp_path / SOCKET, scenario)


@pytest.mark.parametrize("name", ["ab12", "a/b", "..", "a?b#c", "ü %2F", "{factory_id}"])
def test_what_stands_in_a_path_comes_back_whatever_it_is(tmp_path: Path, name: str) -> None:
    def scenario(client: ApiClient) -> None:
        assert client.call("factory_show", factory_id=name) == {"factory_id": name}
        assert client.call("ban_remove", node_id=name) == {"node_id": name}
        with pytest.raises(InvalidParam, match="factory_id: expected a text, received ''"):
            client.call("factory_show", factory_id="")

    in_server(tmp_path / SOCKET, scenario)


def test_a_failure_reaches_the_caller_whole(tmp_path: Path) -> None:
    def scenario(client: ApiClient) -> None:
        with pytest.raises(ApiFailure, match="no epoch left") as failure:
            client.call("join")
        assert failure.value.code == "odometer_exhausted"
        assert failure.value.retryable is False
        assert failure.value.remediation == "Rotate into a new factory."
        assert failure.value.exit_code == 3
        assert failure.value.status == 403

    in_server(tmp_path / SOCKET, scenario)


def test_an_error_has_the_documented_form(tmp_path: Path) -> None:
    ((status, headers, body),) = ask_server(tmp_path, posted("/v1/lobby/join"))
    assert (status, headers["content-type"]) == (403, "application/json")
    assert body == {
        "code": "odometer_exhausted",
        "message": "the leaf has no epoch left",
        "retryable": False,
        "remediation": "Rotate into a new factory.",
        "exit_code": 3,
        "param": None,
    }


@pytest.mark.parametrize(
    ("code", "exit_code", "status"),
    [
        ("factory_not_found", 4, 404),
        ("invalid_invoice", 2, 400),
        ("chain_unavailable", 1, 503),
        ("events_expired", 1, 410),
        ("store_failed", 1, 500),
        ("too_few_clients", 1, 409),
    ],
)
def test_a_status_says_whose_turn_it_is(code: str, exit_code: int, status: int) -> None:
    assert ApiFailure(code, "", exit_code=exit_code).status == status


@pytest.mark.parametrize(
    ("params", "param", "complaint"),
    [
        ({}, "amount_sat", "missing required field"),
        ({"amount_sat": "5"}, "amount_sat", "Expected `int`, got `str`"),
        ({"amount_sat": 5, "leaf": 7}, "leaf", "Expected `str`, got `int`"),
        ({"amount_sat": 5, "lief": "x"}, "lief", "unknown field"),
        # What no record can hold would end the daemon as it is remembered.
        (
            {"amount_sat": 2**63},
            "amount_sat",
            f"expected {-(2**63)}..{2**63 - 1}, received 64 bits",
        ),
        ({"amount_sat": -(2**63) - 1}, "amount_sat", "expected -.* received 64 bits"),
        ({"amount_sat": 10**4000}, "amount_sat", "expected -.* received 13288 bits"),
    ],
)
def test_a_wrong_parameter_is_named(
    tmp_path: Path, params: dict[str, Any], param: str, complaint: str
) -> None:
    with pytest.raises(InvalidParam) as local:
        read_params(params, SaleParams)
    assert local.value.param == param

    def scenario(client: ApiClient) -> None:
        with pytest.raises(ApiFailure, match=f"^{param}: .*{complaint}") as failure:
            client.call("wallet_send", **params)
        refused = failure.value
        assert (refused.status, refused.code, refused.param) == (400, "invalid_param", param)

    in_server(tmp_path / SOCKET, scenario)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=many", "limit"),
        (f"limit={2**63}", "limit"),
        ("is_deep=perhaps", "is_deep"),
        ("limit=1&limit=2", "limit"),
        ("lemit=1", "lemit"),
        ("after=%ff", "params"),
        ("&".join(["only=x"] * 129), "params"),
    ],
)
def test_a_wrong_query_is_named(tmp_path: Path, query: str, param: str) -> None:
    ((status, _, body),) = ask_server(tmp_path, got(f"/v1/events?{query}"))
    assert (status, body["code"], body["param"]) == (400, "invalid_param", param)


@pytest.mark.parametrize(
    ("request_", "status", "code", "complaint"),
    [
        (posted("/v1/payments", b"{", JSON), 400, "invalid_request", "JSON object"),
        (posted("/v1/payments", b"\xff\xfe", JSON), 400, "invalid_request", "JSON object"),
        (posted("/v1/payments", b"[" * 100_000, JSON), 400, "invalid_request", "JSON object"),
        (posted("/v1/payments", b"[]", JSON), 400, "invalid_request", "got `array`"),
        (posted("/v1/payments", b"7", JSON), 400, "invalid_request", "got `int`"),
        (
            posted("/v1/payments", b'{"a":1,"a":1}', JSON),
            400,
            "invalid_param",
            "a: it is said twice",
        ),
        (posted("/v1/payments", b"{}"), 415, "invalid_request", "content-type: expected"),
        (
            posted("/v1/payments", b"a=1", "Content-Type: application/x-www-form-urlencoded"),
            *(415, "invalid_request", "content-type: expected"),
        ),
        (posted("/v1/payments?a=1"), 400, "invalid_param", "stand in the body"),
        (got("/v1/nope"), 404, "unknown_operation", "serves no /v1/nope"),
        (got("/v1/payments/"), 404, "unknown_operation", "serves no"),
        (got("/v1/payments"), 405, "unknown_operation", "expected POST, received GET"),
        (got("/v1/events", verb="BREW"), 405, "unknown_operation", "expected GET"),
        (got("/v1/factories/ab?factory_id=cd"), 400, "invalid_param", "in the path already"),
    ],
)
def test_a_request_that_is_none_is_answered_and_the_connection_lives_on(
    tmp_path: Path, request_: bytes, status: int, code: str, complaint: str
) -> None:
    refused, answered = ask_server(tmp_path, request_, GOOD)
    assert (refused[0], refused[2]["code"]) == (status, code)
    assert complaint in refused[2]["message"]
    assert (status == 405) == ("allow" in refused[1])
    assert (answered[0], answered[2]) == (200, {"a": 1})


@pytest.mark.parametrize(
    "request_",
    [
        b"{}\n\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v1/events HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/events HTTP/1.1\r\nHost: a\r\nX: " + b"x" * connections.HEAD_SIZE_MAX,
    ],
)
def test_what_is_no_http_is_refused_and_ended(tmp_path: Path, request_: bytes) -> None:
    async def run() -> None:
        async with (
            ApiServer(tmp_path / SOCKET, served()),
            raw_connection(tmp_path / SOCKET) as (reader, writer),
            asyncio.timeout(20),
        ):
            writer.write(request_)
            status, _, body = await read_one(reader)
            assert (status, body["code"]) == (400, "invalid_request")
            assert await reader.read() == b""

    asyncio.run(run())


@pytest.mark.parametrize("content_length", [0, 5, 60])
def test_a_request_of_two_lengths_is_refused_and_what_follows_is_nobodys(
    tmp_path: Path, content_length: int
) -> None:
    # A proxy that goes by the length would take this for one request; the chunks end before.
    lengths = ("Transfer-Encoding: chunked", f"Content-Length: {content_length}", JSON)
    request_ = got("/v1/payments", *lengths, verb="POST") + b"0\r\n\r\n" + got("/v1/status")

    async def run() -> None:
        async with (
            ApiServer(tmp_path / SOCKET, served()),
            raw_connection(tmp_path / SOCKET) as (reader, writer),
            asyncio.timeout(20),
        ):
            writer.write(request_)
            status, _, body = await read_one(reader)
            assert (status, body["code"]) == (400, "invalid_request")
            assert "content-length: expected none" in body["message"]
            assert await reader.read() == b""

    asyncio.run(run())


def test_a_body_that_breaks_off_is_answered_once_and_is_no_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Nobody waits for the body of what is refused as it is.
    head = got("/v1/nope", "Transfer-Encoding: chunked", verb="POST")

    async def run() -> None:
        async with (
            ApiServer(tmp_path / SOCKET, served()),
            raw_connection(tmp_path / SOCKET) as (reader, writer),
            asyncio.timeout(20),
        ):
            writer.write(head + b"no size of a chunk\r\n")
            status, _, body = await read_one(reader)
            assert (status, body["code"]) == (400, "invalid_request")
            assert await reader.read() == b""

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert not caplog.records, "whoever can connect could fill the log"


@given(body=st.binary(max_size=200))
def test_any_body_gets_one_answer(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    ((status, _, said),) = ask_server(
        tmp_path_factory.mktemp("datadir"), posted("/v1/wallet/sends", body, JSON)
    )
    assert status in {200, 400}
    assert (status == 400) == ("code" in said)


def test_many_requests_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            ApiServer(tmp_path / SOCKET, served()),
            raw_connection(tmp_path / SOCKET) as (reader, writer),
            asyncio.timeout(20),
        ):
            for number in range(100):
                writer.write(posted("/v1/payments", b'{"n":%d}' % number, JSON))
            for number in range(100):
                assert (await read_one(reader))[2] == {"n": number}

    asyncio.run(run())


def test_a_bug_in_an_operation_ends_the_request_only_and_leaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(client: ApiClient) -> None:
        with pytest.raises(ApiFailure) as failure:
            client.call("leave", seed_words="abandon ability")
        assert (failure.value.status, failure.value.code) == (500, "internal_error")
        assert "abandon" not in str(failure.value)
        with pytest.raises(ApiFailure, match="failed to carry out"):
            client.call("address")
        assert client.call("pay", still="here") == {"still": "here"}

    with caplog.at_level(logging.DEBUG):
        in_server(tmp_path / SOCKET, scenario)
    assert "api_operation_failed operation=leave error=RuntimeError at=" in caplog.text
    assert "asking.py:" in caplog.text
    assert "abandon" not in caplog.text


def test_a_disk_without_room_is_no_bug_and_says_what_to_do(tmp_path: Path) -> None:
    async def pay(_params: dict[str, Any]) -> object:
        raise StoreFull("cannot append to /home/somebody/journal.sqlite: no room")

    def scenario(client: ApiClient) -> None:
        with pytest.raises(ApiFailure, match="the journal could not be written") as failure:
            client.call("pay")
        told = failure.value
        assert (told.status, told.code, told.retryable) == (500, "store_failed", True)
        assert "neither done nor told" in told.remediation
        assert "somebody" not in str(told)

    in_server(tmp_path / SOCKET, scenario, {**METHODS, "pay": pay})


def test_a_request_at_the_limit_is_served_and_one_above_is_refused(tmp_path: Path) -> None:
    head, tail = b'{"a":"', b'"}'
    fitting = head + b"x" * (calling.REQUEST_SIZE_MAX - len(head) - len(tail)) + tail

    async def run() -> None:
        async with ApiServer(tmp_path / SOCKET, served()):
            ((status, _, _),) = await ask_raw(
                tmp_path / SOCKET, posted("/v1/payments", fitting, JSON)
            )
            assert status == 200
            ((status, _, said),) = await ask_raw(
                tmp_path / SOCKET, posted("/v1/payments", b" " + fitting, JSON)
            )
            assert (status, said["code"]) == (413, "request_too_large")

    asyncio.run(run())


def test_the_client_refuses_a_request_above_the_limit_itself(tmp_path: Path) -> None:
    with pytest.raises(ApiFailure, match="at most 4194304 bytes") as failure:
        ApiClient(tmp_path / SOCKET).call("pay", a="x" * calling.REQUEST_SIZE_MAX)
    assert failure.value.code == "request_too_large"


def test_callers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def run() -> None:
        go_on = asyncio.Event()

        async def wait(_: dict[str, Any]) -> object:
            await go_on.wait()
            return "waited"

        async with ApiServer(tmp_path / SOCKET, served({**METHODS, "build": wait})):
            client = ApiClient(tmp_path / SOCKET, timeout_seconds=10)
            slow = asyncio.create_task(asyncio.to_thread(client.call, "build"))
            assert await asyncio.to_thread(client.call, "pay") == {}
            go_on.set()
            assert await slow == "waited"

    asyncio.run(run())


def test_only_the_owner_can_reach_the_socket(tmp_path: Path) -> None:
    socket_path = tmp_path / SOCKET

    def scenario(_: ApiClient) -> None:
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
    socket_path = datadir / SOCKET
    assert len(str(socket_path)) > 2 * 108

    def scenario(client: ApiClient) -> None:
        assert client.call("pay", far="away") == {"far": "away"}

    in_server(socket_path, scenario)
    assert not socket_path.exists()


def test_the_file_of_a_daemon_that_is_gone_is_replaced(tmp_path: Path) -> None:
    socket_path = tmp_path / SOCKET
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    assert socket_path.exists()
    in_server(socket_path, lambda client: client.call("pay"))


def test_a_socket_somebody_listens_on_is_left_to_them(tmp_path: Path) -> None:
    async def run() -> None:
        async with ApiServer(tmp_path / SOCKET, served()):
            with pytest.raises(SocketInUse, match="another daemon listens"):
                await ApiServer(tmp_path / SOCKET, served()).start()
            client = ApiClient(tmp_path / SOCKET, timeout_seconds=10)
            assert await asyncio.to_thread(client.call, "pay") == {}

    asyncio.run(run())


def test_a_file_that_is_no_socket_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / SOCKET).write_text("mine")
    with pytest.raises(SocketInUse, match="is not a socket"):
        asyncio.run(ApiServer(tmp_path / SOCKET, served()).start())
    assert (tmp_path / SOCKET).read_text() == "mine"


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(ApiServer(tmp_path / "missing" / SOCKET, served()).start())


def test_closing_lets_a_begun_request_finish(tmp_path: Path) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def stop(_: dict[str, Any]) -> object:
            begun.set()
            await asyncio.sleep(0.02)
            return "stopping"

        server = ApiServer(tmp_path / SOCKET, served({"stop": stop}))
        await server.start()
        async with raw_connection(tmp_path / SOCKET) as (idle, _):
            client = ApiClient(tmp_path / SOCKET, timeout_seconds=10)
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
    monkeypatch.setattr(api_server, "GRACE_SECONDS", 0.02)

    async def run() -> None:
        begun = asyncio.Event()

        async def hang(_: dict[str, Any]) -> object:
            begun.set()
            return await asyncio.Event().wait()

        async with ApiServer(tmp_path / SOCKET, served({"pay": hang})):
            client = ApiClient(tmp_path / SOCKET, timeout_seconds=10)
            call = asyncio.create_task(asyncio.to_thread(client.call, "pay"))
            await begun.wait()
        with pytest.raises(ApiFailure, match="closed the connection"):
            await call

    asyncio.run(run())


@pytest.mark.parametrize("name", ["pay", "wallet_send"])
def test_a_request_for_another_role_is_refused_unread(tmp_path: Path, name: str) -> None:
    async def run() -> None:
        seen: list[dict[str, Any]] = []

        async def note(params: dict[str, Any]) -> object:
            seen.append(params)
            return params

        async with ApiServer(tmp_path / SOCKET, served({name: note}), role="lsp"):
            with pytest.raises(ApiFailure) as refused:
                await asyncio.to_thread(ApiClient(tmp_path / SOCKET, role="client").call, name, a=1)
            assert (refused.value.status, refused.value.code) == (409, "wrong_role")
            assert "expected a client's, received an lsp's" in refused.value.message
            assert "--datadir" in refused.value.remediation
            assert seen == []
            for meant in ("lsp", None):
                answer = await asyncio.to_thread(
                    ApiClient(tmp_path / SOCKET, role=meant).call, name, a=1
                )
                assert answer == {"a": 1}
            assert len(seen) == 2

    asyncio.run(run())
