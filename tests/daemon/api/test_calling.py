import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.daemon.api.asking import SOCKET

from cromford.daemon.api.calling import ApiClient, read_answer
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning


@pytest.mark.parametrize("name", [SOCKET, f"missing/{SOCKET}", f"file/{SOCKET}"])
def test_no_daemon_is_said_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DaemonNotRunning, match="no daemon listens on") as failure:
        ApiClient(tmp_path / name).call("pay")
    assert failure.value.code == "daemon_not_running"
    assert "Start the daemon" in failure.value.remediation


def test_a_stale_socket_is_no_daemon_either(tmp_path: Path) -> None:
    for name in (SOCKET, "rpc.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / name))
    with pytest.raises(DaemonNotRunning):
        ApiClient(tmp_path / SOCKET).call("pay")


def test_a_daemon_of_an_older_version_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as older:
        older.bind(str(tmp_path / "rpc.sock"))
        older.listen()
        with pytest.raises(ApiFailure, match="is of an older version") as failure:
            ApiClient(tmp_path / SOCKET).call("pay")
    assert failure.value.code == "daemon_outdated"
    assert "start it again" in failure.value.remediation


# What may be asked again though it may have been carried out, and what the caller is told to do.
LOST = pytest.mark.parametrize(
    ("name", "params", "remediation"),
    [
        ("status", {}, "Nothing was asked for but an answer"),
        ("pay", {"invoice": "lnbcrt1"}, "not made a second time"),
        ("wallet_send", {"address": "bcrt1q", "external_id": "payout-7"}, "not made a second time"),
        ("invoice", {"external_id": "order-12"}, "not made a second time"),
        ("wallet_send", {"address": "bcrt1q"}, "may"),
        ("factory_replace", {"factory_id": "cd", "candidate": 2}, "not made a second time"),
        ("liquidity_buy", {"quote_id": "cd" * 32}, "not made a second time"),
        ("build", {"external_id": "may"}, "not made a second time"),
        ("build", {}, "may"),
        ("invoice", {"external_id": ""}, "may"),
        ("wallet_split", {"n_coins": 2}, "may"),
    ],
)


@LOST
def test_a_daemon_that_does_not_answer_is_a_timeout(
    tmp_path: Path, name: str, params: dict[str, object], remediation: str
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / SOCKET))
        silent.listen()
        with pytest.raises(ApiFailure, match=r"no answer in 0\.05 seconds") as failure:
            ApiClient(tmp_path / SOCKET, timeout_seconds=0.05).call(name, **params)
        assert failure.value.retryable is (remediation != "may")
        assert remediation in failure.value.remediation


def test_a_queue_that_is_full_is_waited_for_and_is_no_question_of_permissions(
    tmp_path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(str(tmp_path / SOCKET))
        busy.listen(0)
        waiting.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / SOCKET))
        with pytest.raises(ApiFailure) as failure:
            ApiClient(tmp_path / SOCKET, timeout_seconds=0.05).call("pay")
        assert (failure.value.code, failure.value.retryable) == ("daemon_busy", True)
        asking = threading.Thread(target=waiting.enter_context(_taken_one_by_one(busy)))
        asking.start()
        assert ApiClient(tmp_path / SOCKET, timeout_seconds=20).call("pay") == {}
        asking.join()


@contextlib.contextmanager
def _taken_one_by_one(listener: socket.socket) -> Iterator[Callable[[], None]]:
    """Give what takes two connections and answers the second."""
    with contextlib.ExitStack() as taken:

        def take() -> None:
            taken.enter_context(listener.accept()[0])
            second = taken.enter_context(listener.accept()[0])
            second.recv(4096)
            second.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            second.shutdown(socket.SHUT_WR)

        yield take


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "connection_lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "connection_lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "connection_lost"),
        (b"hello\r\n\r\n", "unreadable_response"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "unreadable_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", "unreadable_response"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", "unreadable_response"),
    ],
)
def test_an_answer_that_is_none_is_a_failure_with_a_code(answer: bytes, code: str) -> None:
    with pytest.raises(ApiFailure) as failure:
        read_answer(answer)
    assert failure.value.code == code


def test_an_error_without_words_is_told_by_its_status_and_code() -> None:
    body = b'{"code":"busy","message":"","retryable":true,"remediation":"","exit_code":1}'
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n" % len(body)
    with pytest.raises(ApiFailure) as failure:
        read_answer(head + body)
    assert str(failure.value) == "the daemon answered 503 (busy) and did not say why"
    assert failure.value.message == str(failure.value)


@LOST
def test_a_daemon_that_hangs_up_has_lost_the_connection(
    tmp_path: Path, name: str, params: dict[str, object], remediation: str
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(reply, str(tmp_path / SOCKET))
        client = ApiClient(tmp_path / SOCKET, timeout_seconds=10)
        with pytest.raises(ApiFailure) as failure:
            await asyncio.to_thread(partial(client.call, name, **params))
        told = (failure.value.code, failure.value.retryable)
        assert told == ("connection_lost", remediation != "may")
        assert remediation in failure.value.remediation
        server.close()
        await server.wait_closed()

    asyncio.run(run())
