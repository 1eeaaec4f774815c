"""The local API as the daemon sees it: methods by name, one connection as good as another."""

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import stat
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.daemon.api.rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_SIZE_MAX,
    ErrorData,
    ErrorObject,
    InvalidParam,
    OtherRolesDaemon,
    RpcFailure,
    short_path,
)
from cromford.listening import stop_listening

CONNECTIONS_MAX: Final = 64
SOCKET_MODE: Final = 0o600
GRACE_SECONDS: Final = 5.0  # How long a closing server waits for requests it has begun.
WRITE_TIMEOUT_SECONDS: Final = 30.0  # A caller that does not read its answer is dropped.

Handler = Callable[[dict[str, Any]], Awaitable[object]]

_log = logging.getLogger(__name__)
_Params = TypeVar("_Params")

# How msgspec names the parameter it complains about.
_PARAM_PATTERNS: Final = (
    re.compile(r"missing required field `(?P<param>[^`]+)`"),
    re.compile(r"contains unknown field `(?P<param>[^`]+)`"),
    re.compile(r"at `\$\.(?P<param>[^`]+)`"),
)


_REQUEST_DECODER: Final = msgspec.json.Decoder()


class SocketInUse(Exception):
    """Another daemon listens on the socket, or its name belongs to something else."""


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: str
    id: int | str
    method: str
    params: dict[str, Any] = {}
    role: str | None = None  # None: whoever listens is meant


def read_params(params: dict[str, Any], kind: type[_Params]) -> _Params:
    """Return a handler's parameters as a msgspec struct or a dataclass, strictly typed.

    Raises:
        InvalidParam: Naming the first parameter that does not fit.
    """
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        complaint = str(error)
        for pattern in _PARAM_PATTERNS:
            if match := pattern.search(complaint):
                raise InvalidParam(match["param"], complaint) from error
        raise InvalidParam("params", complaint) from error


def without_params(answer: Callable[[], Awaitable[object]]) -> Handler:
    """Return the handler of a method that takes no parameters, and refuses any."""

    async def handler(params: dict[str, Any]) -> object:
        for param in params:
            raise InvalidParam(param, "this method takes no parameters")
        return await answer()

    return handler


class RpcServer:
    """Answers requests on a unix socket until it is closed.

    A handler is `async (params) -> result`. The result is whatever msgspec encodes as JSON;
    bytes would become base64, so hand over hex. A handler reports a failure by raising
    `RpcFailure`. Anything else it raises is logged, answered as an internal error without a
    word of what it says, since that may be secret, and ends nothing but the request.

    The requests of one connection are answered in order. With a `role`, a request that is meant
    for another is refused unread.
    """

    def __init__(
        self, socket_path: Path, methods: Mapping[str, Handler], *, role: str | None = None
    ) -> None:
        self._socket_path = socket_path
        self._role = role
        self._methods = dict(methods)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._inode = 0
        self._resources = contextlib.ExitStack()

    async def start(self) -> None:
        """Listen. The file of a daemon that has gone is replaced.

        Two daemons that start at one moment are kept apart by the journal's lock, not here.

        Raises:
            SocketInUse: If a daemon is listening there, or the file is no socket.
            OSError: If the directory is missing or cannot be written.
        """
        with contextlib.ExitStack() as undo:
            # Held while listening, since newer versions of asyncio look the name up again.
            path = undo.enter_context(short_path(self._socket_path))
            listener = _bind(self._socket_path, path)
            self._resources = undo.pop_all()
        self._inode = self._socket_path.stat().st_ino
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=REQUEST_SIZE_MAX
        )

    async def close(self) -> None:
        """Stop listening, let begun requests finish for a moment, then end them.

        Safe to call twice. A handler must not wait for it: it would wait for itself.
        """
        server, self._server = self._server, None
        if server is None:
            return
        await stop_listening(server)
        self._remove_file()
        for task in self._connections - self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=GRACE_SECONDS)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()
        self._resources.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None or len(self._connections) >= CONNECTIONS_MAX:
            _log.warning("rpc_connection_refused connections_max=%d", CONNECTIONS_MAX)
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)

        def forget(done: asyncio.Task[None]) -> None:
            self._connections.discard(done)
            # A task cancelled before its first step has not closed anything.
            writer.transport.abort()

        task.add_done_callback(forget)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - a coroutine runs in a task
            raise AssertionError
        try:
            while self._server is not None:
                line = await reader.readuntil(b"\n")
                self._busy.add(task)
                await _write(writer, await self._answer(line))
                self._busy.discard(task)
        except asyncio.LimitOverrunError:
            complaint = f"a request has at most {REQUEST_SIZE_MAX} bytes on one line"
            await _write(writer, _refusal(None, INVALID_REQUEST, "request_too_large", complaint))
        except (asyncio.IncompleteReadError, OSError, TimeoutError):
            # The caller left. Whatever it has begun has been carried out.
            _log.debug("rpc_connection_ended")
        finally:
            self._busy.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        try:
            raw = decoded(_REQUEST_DECODER, line)
        except MalformedBytes:
            return _refusal(None, PARSE_ERROR, "parse_error", "the request is not JSON")
        request_id = raw.get("id") if isinstance(raw, dict) else None
        if isinstance(request_id, bool) or not isinstance(request_id, int | str):
            request_id = None
        if isinstance(raw, dict) and not isinstance(raw.get("params", {}), dict):
            complaint = "params: expected an object of named parameters"
            return _refusal(request_id, INVALID_PARAMS, "invalid_param", complaint)
        try:
            request = msgspec.convert(raw, _Request)
        except msgspec.ValidationError as error:
            return _refusal(request_id, INVALID_REQUEST, "invalid_request", str(error))
        if request.jsonrpc != "2.0":
            complaint = f"jsonrpc: expected '2.0', received {request.jsonrpc!r}"
            return _refusal(request_id, INVALID_REQUEST, "invalid_request", complaint)
        if self._role is not None and request.role not in {None, self._role}:
            return _failed(
                request.id, OtherRolesDaemon(expected=str(request.role), received=self._role)
            )
        return await self._call(request)

    async def _call(self, request: _Request) -> bytes:
        handler = self._methods.get(request.method)
        if handler is None:
            complaint = f"there is no method {request.method!r}"
            return _refusal(request.id, METHOD_NOT_FOUND, "unknown_method", complaint)
        try:
            result = await handler(request.params)
            return msgspec.json.encode({"jsonrpc": "2.0", "id": request.id, "result": result})
        except RpcFailure as failure:
            return _failed(request.id, failure)
        except Exception as error:  # noqa: BLE001 - a bug in one method must not end the daemon
            # Neither the message, which a traceback ends with, nor the parameters: either can
            # hold a secret.
            _log.error(
                "rpc_method_failed method=%s error=%s at=%s",
                request.method,
                type(error).__name__,
                _places(error),
            )
            return _refusal(
                request.id,
                INTERNAL_ERROR,
                "internal_error",
                "the daemon failed to carry out the request",
                remediation="The daemon's log says where it failed. Please report it.",
            )

    def _remove_file(self) -> None:
        # Only our own: another daemon may have taken the name in the meantime.
        try:
            if self._socket_path.stat().st_ino == self._inode:
                self._socket_path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("rpc_socket_left error=%s", error.strerror)


def _bind(socket_path: Path, path: str) -> socket.socket:
    _remove_stale(socket_path, path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before the bind, so that there is no moment in which others could connect.
        os.fchmod(listener.fileno(), SOCKET_MODE)
        listener.bind(path)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SocketInUse(f"another daemon has just taken {socket_path}") from error
        raise
    return listener


def _remove_stale(socket_path: Path, path: str) -> None:
    try:
        mode = socket_path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketInUse(f"{socket_path} is not a socket; it is left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            socket_path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # Its queue is full, so somebody has it.
    raise SocketInUse(f"another daemon listens on {socket_path}")


async def _write(writer: asyncio.StreamWriter, answer: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
        writer.write(answer + b"\n")
        await writer.drain()


def _failed(request_id: int | str, failure: RpcFailure) -> bytes:
    data = ErrorData(
        code=failure.code,
        retryable=failure.retryable,
        remediation=failure.remediation,
        exit_code=failure.exit_code,
    )
    error = ErrorObject(code=failure.number, message=failure.message, data=data)
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def _refusal(
    request_id: int | str | None, number: int, code: str, message: str, *, remediation: str = ""
) -> bytes:
    error = ErrorObject(
        code=number, message=message, data=ErrorData(code=code, remediation=remediation)
    )
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def _places(error: Exception) -> str:
    """Return where an exception passed, innermost last, without what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
