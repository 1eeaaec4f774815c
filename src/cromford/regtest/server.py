"""A small HTTP/1.1 server for JSON-RPC on the loopback interface, in a thread of its own.

It answers POST requests with Basic authentication, keeps connections open, and bounds
everything it reads. Calls take turns: there is one chain.
"""

import asyncio
import base64
import hmac
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from cromford.factory.terms import N_CLIENTS_MAX
from cromford.listening import stop_listening
from cromford.open_files import OWN_FILES, allow_open_files

log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
HEADERS_SIZE_MAX: Final = 8_192
BODY_SIZE_MAX: Final = 32 * 1024 * 1024
# A daemon has as many calls under way at most, each on a connection of its own; and the largest
# factory's clients may all ask at once, with their LSP.
CALLS_PER_DAEMON: Final = 4
N_CONNECTIONS_MAX: Final = CALLS_PER_DAEMON * (N_CLIENTS_MAX + 1)
IDLE_SECONDS_MAX: Final = 30.0  # As Core: a silent connection is closed.
WRONG_PASSWORD_DELAY_SECONDS: Final = 0.25
STOP_SECONDS_MAX: Final = 10.0
CLOSE_SECONDS_MAX: Final = 1.0

Answer = Callable[[bytes], tuple[int, bytes]]


class ServerFailed(Exception):
    """The port could not be opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the server needs of an HTTP request."""

    method: str
    path: str
    authorization: str | None
    keep_alive: bool
    body: bytes


class BadRequest(Exception):
    """What came is not a request this server reads; the connection ends with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class HttpServer:
    """Serves one `answer` function until it is stopped.

    Args:
        answer: Turns a request's body into a status and a body. Called in the server's thread.
        credentials: `user:password` that every request must bring.
        port: The TCP port on 127.0.0.1; 0 for any that is free.
    """

    def __init__(self, answer: Answer, *, credentials: str, port: int) -> None:
        self._answer = answer
        self._credentials = credentials.encode()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="regtest-rpc", daemon=True)
        self._started = threading.Event()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: OSError | None = None
        self._n_connections_max = N_CONNECTIONS_MAX

    @property
    def port(self) -> int:
        """The port that is served."""
        return self._port

    def start(self) -> None:
        """Open the port and serve.

        Raises:
            ServerFailed: If the port cannot be opened.
        """
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise ServerFailed(f"{LOOPBACK}:{self._port}: {self._failure}") from self._failure

    def stop(self) -> None:
        """Close the port and every connection. Safe to call twice, not from its own thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            self._started.set()

    async def _serve(self) -> None:
        n_files = allow_open_files(N_CONNECTIONS_MAX + OWN_FILES)
        self._n_connections_max = max(1, n_files - OWN_FILES)
        try:
            server = await asyncio.start_server(
                self._connected,
                LOOPBACK,
                self._port,
                limit=HEADERS_SIZE_MAX,
                backlog=N_CLIENTS_MAX + 1,
            )
        except OSError as error:
            self._failure = error
            return
        self._port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        await stop_listening(server)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= self._n_connections_max or self._stopping.is_set():
            writer.close()
            return
        self._tasks.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass  # The client went away, fell silent, or the server stops.
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request, and say whether the connection stays open."""
        try:
            async with asyncio.timeout(IDLE_SECONDS_MAX):
                request = await read_request(reader, writer)
        except BadRequest as bad:
            writer.write(response(bad.status, b"", keep_alive=False))
            await writer.drain()
            return False
        if request is None:
            return False
        status, body = await self._status_and_body(request)
        writer.write(response(status, body, keep_alive=request.keep_alive))
        await writer.drain()
        return request.keep_alive

    async def _status_and_body(self, request: Request) -> tuple[int, bytes]:
        if request.path != "/":
            return HTTPStatus.NOT_FOUND, b""
        if request.method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED, b"JSONRPC server handles only POST requests"
        if request.authorization is None:
            return HTTPStatus.UNAUTHORIZED, b""
        if not self._is_authorized(request.authorization):
            await asyncio.sleep(WRONG_PASSWORD_DELAY_SECONDS)
            return HTTPStatus.UNAUTHORIZED, b""
        try:
            return self._answer(request.body)
        except Exception:
            # A fault of ours must not look like a lost connection; the traceback goes to the log.
            log.exception("rpc_failed")
            return HTTPStatus.INTERNAL_SERVER_ERROR, b""

    def _is_authorized(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        if scheme != "Basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except ValueError:
            return False
        return hmac.compare_digest(given, self._credentials)


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    """Return the next request of a connection, or None at its end.

    Raises:
        BadRequest: If it is malformed or too large.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadRequest(HTTPStatus.BAD_REQUEST) from None
        return None
    except asyncio.LimitOverrunError:
        raise BadRequest(HTTPStatus.BAD_REQUEST) from None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise BadRequest(HTTPStatus.NOT_IMPLEMENTED)
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if len(length) > 10 or int(length) > BODY_SIZE_MAX:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    connection = headers.get("connection", "").lower()
    is_latest = words[2] == "HTTP/1.1"
    return Request(
        method=words[0],
        path=words[1],
        authorization=headers.get("authorization"),
        keep_alive=connection != "close" if is_latest else connection == "keep-alive",
        body=await reader.readexactly(int(length)),
    )


def response(status: int, body: bytes, *, keep_alive: bool) -> bytes:
    """Return the bytes of an HTTP response."""
    lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"]
    if status == HTTPStatus.UNAUTHORIZED:
        lines.append('WWW-Authenticate: Basic realm="jsonrpc"')
    if body[:1] in {b"{", b"["}:
        lines.append("Content-Type: application/json")
    if status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(body)}")
    if not keep_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
