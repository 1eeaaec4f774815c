"""What comes over the socket is bounded, and nothing that comes ends the server."""

import base64
import socket
from collections.abc import Iterator

import pytest

from cromford.regtest.server import BODY_SIZE_MAX, HEADERS_SIZE_MAX, HttpServer

TOKEN = base64.b64encode(b"user:password").decode()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    def answer(body: bytes) -> tuple[int, bytes]:
        if body == b"boom":
            raise ValueError("a fault of ours")
        return 200, b"[" + body + b"]"

    server = HttpServer(answer, credentials="user:password", port=0)
    server.start()
    yield server
    server.stop()


def exchange(server: HttpServer, *pieces: bytes, is_whole: bool = True) -> bytes:
    """Send bytes, and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if is_whole:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
        return received


def post(body: bytes, *headers: str, version: str = "HTTP/1.1") -> bytes:
    lines = [
        f"POST / {version}",
        f"Authorization: Basic {TOKEN}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_requests_sent_at_once_are_answered_in_order(server: HttpServer) -> None:
    received = exchange(server, post(b"1") + post(b"2"))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"[1]") < received.index(b"[2]")


def test_a_request_in_small_pieces_is_put_together(server: HttpServer) -> None:
    request = post(b"12345")
    pieces = [request[i : i + 7] for i in range(0, len(request), 7)]
    assert exchange(server, *pieces).endswith(b"[12345]")


@pytest.mark.parametrize("request_line", [b"nonsense", b"POST / FTP/1.0", b"\xff\xfe / HTTP/2"])
def test_nonsense_is_a_bad_request(server: HttpServer, request_line: bytes) -> None:
    received = exchange(server, request_line + b"\r\n\r\n", is_whole=False)
    assert received.startswith(b"HTTP/1.1 400 ")


def test_endless_headers_are_cut_off(server: HttpServer) -> None:
    head = b"POST / HTTP/1.1\r\nX: " + b"x" * (HEADERS_SIZE_MAX + 1)
    assert exchange(server, head, is_whole=False).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("length", "status"),
    [(str(BODY_SIZE_MAX + 1), b"413"), ("9" * 5_000, b"413"), ("-1", b"400"), ("x", b"400")],
)
def test_a_body_too_large_or_without_a_size_is_refused_unread(
    server: HttpServer, length: str, status: bytes
) -> None:
    head = f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode()
    assert exchange(server, head, is_whole=False).startswith(b"HTTP/1.1 " + status)


def test_chunked_bodies_are_not_implemented(server: HttpServer) -> None:
    received = exchange(server, post(b"", "Transfer-Encoding: chunked"), is_whole=False)
    assert received.startswith(b"HTTP/1.1 501 ")


def test_a_client_that_waits_is_told_to_continue(server: HttpServer) -> None:
    received = exchange(server, post(b"1", "Expect: 100-continue"))
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_a_client_may_ask_to_close(server: HttpServer) -> None:
    assert exchange(server, post(b"1", "Connection: close"), is_whole=False).endswith(b"[1]")
    assert exchange(server, post(b"1", version="HTTP/1.0"), is_whole=False).endswith(b"[1]")


def test_our_own_fault_is_an_error_and_the_connection_lives(server: HttpServer) -> None:
    received = exchange(server, post(b"boom") + post(b"1"))
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.endswith(b"[1]")


@pytest.mark.parametrize("header", ["", "Bearer x", "Basic !!!", "Basic eDp5", "Basic"])
def test_only_the_credentials_open_the_door(server: HttpServer, header: str) -> None:
    lines = f"POST / HTTP/1.1\r\nAuthorization: {header}\r\nConnection: close\r\n\r\n"
    assert exchange(server, lines.encode(), is_whole=False).startswith(b"HTTP/1.1 401 ")


def test_an_idle_connection_does_not_hold_up_the_stop(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(post(b"1"))
        assert connection.recv(65_536).endswith(b"[1]")
        connection.sendall(b"POST / HT")
        server.stop()
        assert connection.recv(1) == b""
