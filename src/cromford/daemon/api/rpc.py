"""The local API as a caller sees it: JSON-RPC 2.0, one request per line, on a unix socket.

Whoever may write to the socket commands the daemon; it lives in the data directory with mode 0600.
A request is an object with `id`, `method` and, by name, `params`. An error carries in `data` what
a person or a script can act on: a `code` that stays the same between versions, whether the same
request may succeed later (`retryable`), and what to do (`remediation`). A request may name in
`role` whose daemon it is meant for; any other refuses it, before it has done anything.

Two things of the specification are left out: batches, and requests without an id.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes

SOCKET_NAME: Final = "rpc.sock"
REQUEST_SIZE_MAX: Final = 4 * 1024 * 1024
RESPONSE_SIZE_MAX: Final = 64 * 1024 * 1024
CALL_TIMEOUT_SECONDS: Final = 120.0
_CHUNK_SIZE: Final = 64 * 1024

# JSON-RPC 2.0, section 5.1.
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
# The range left to servers: every failure a handler reports; `data.code` tells them apart.
FAILURE: Final = -32000


class RpcFailure(Exception):
    """A request that failed for a reason its caller can read.

    `code` is in snake case and stays the same between versions; `remediation` says what to do;
    `exit_code` is what a command line ends with. `number` is JSON-RPC's own code.
    """

    number: int = FAILURE

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        remediation: str = "",
        exit_code: int = 1,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.remediation = remediation
        self.exit_code = exit_code


class InvalidParam(RpcFailure):
    """A parameter is missing, unknown, or not what it should be."""

    number = INVALID_PARAMS

    def __init__(self, param: str, complaint: str) -> None:
        super().__init__("invalid_param", f"{param}: {complaint}")
        self.param = param


class DaemonNotRunning(RpcFailure):
    """Nobody listens on the socket."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__(
            "daemon_not_running",
            f"no daemon listens on {socket_path}",
            retryable=True,
            remediation="Start the daemon, or name the data directory of the one that runs.",
        )


class OtherRolesDaemon(RpcFailure):
    """Who listens on the socket is another role's daemon: nothing was done."""

    def __init__(self, *, expected: str, received: str) -> None:
        super().__init__(
            "wrong_role",
            f"the daemon of this data directory: expected {_an(expected)}'s, received "
            f"{_an(received)}'s",
            remediation="Nothing was done. Name the right data directory: see --datadir, and "
            "CROMFORD_DATADIR, which is for one role only.",
        )


def _an(role: str) -> str:
    return f"{'an' if role in {'lsp', 'agent'} else 'a'} {role}"


class ErrorData(msgspec.Struct, frozen=True, kw_only=True):
    """What an error says beyond JSON-RPC's own fields."""

    code: str
    retryable: bool = False
    remediation: str = ""
    exit_code: int = 1


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """The `error` of a response."""

    code: int
    message: str
    data: ErrorData


class _Response(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: str
    id: int | str | None
    result: Any = None
    error: ErrorObject | None = None


_RESPONSE_DECODER: Final = msgspec.json.Decoder(_Response)


class RpcClient:
    """Calls the daemon that listens on a socket, and waits for each answer.

    Args:
        socket_path: Where it listens.
        role: Whose daemon has to be there; None for anybody's.
        timeout_seconds: How long it may take to answer.
    """

    def __init__(
        self,
        socket_path: Path,
        *,
        role: str | None = None,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        self._socket_path = socket_path
        self._role = role
        self._timeout_seconds = timeout_seconds

    def call(self, method: str, /, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the result of a method.

        Raises:
            DaemonNotRunning: If nobody listens.
            RpcFailure: If the daemon refused, did not answer in time, or went away. After the
                last two the request may have been carried out all the same. `wrong_role` if it is
                another role's.
        """
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        if self._role is not None:
            request["role"] = self._role
        line = msgspec.json.encode(request)
        if len(line) > REQUEST_SIZE_MAX:
            raise RpcFailure(
                "request_too_large",
                f"a request has at most {REQUEST_SIZE_MAX} bytes, this one {len(line)}",
            )
        return _read_result(self._exchange(line + b"\n"))

    def _exchange(self, line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(self._timeout_seconds)
            try:
                with short_path(self._socket_path) as path:
                    stream.connect(path)
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
                raise DaemonNotRunning(self._socket_path) from error
            except OSError as error:
                raise RpcFailure(
                    "socket_unreachable",
                    f"cannot connect to {self._socket_path}: {error.strerror}",
                    remediation="Run this as the user who runs the daemon.",
                ) from error
            try:
                stream.sendall(line)
                return _read_line(stream)
            except TimeoutError as error:
                raise RpcFailure(
                    "timeout",
                    f"no answer in {self._timeout_seconds:g} seconds",
                    retryable=True,
                    remediation="The request may still be carried out: look before trying again.",
                ) from error
            except OSError as error:
                raise _connection_lost() from error


@contextlib.contextmanager
def short_path(socket_path: Path) -> Iterator[str]:
    """Give a name of the socket that fits the 108 bytes of a unix address, however deep it lies.

    The name goes through a descriptor of the directory and holds inside the `with` block only.

    Raises:
        FileNotFoundError: If the directory does not exist.
        NotADirectoryError: If it is a file.
    """
    directory_fd = os.open(socket_path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory_fd}/{socket_path.name}"
    finally:
        os.close(directory_fd)


def _read_line(stream: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = stream.recv(_CHUNK_SIZE)
        if not chunk:
            raise _connection_lost()
        received += chunk
        if len(received) > RESPONSE_SIZE_MAX:
            raise RpcFailure("response_too_large", f"the answer exceeds {RESPONSE_SIZE_MAX} bytes")
    return bytes(received)


def _read_result(line: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        response = decoded(_RESPONSE_DECODER, line)
    except MalformedBytes as error:
        raise RpcFailure(
            "unreadable_response",
            f"the answer is not a response: {error}",
            remediation="Use the command line and the daemon of one version.",
        ) from error
    if response.error is None:
        return response.result
    data = response.error.data
    failure = RpcFailure(
        data.code,
        response.error.message,
        retryable=data.retryable,
        remediation=data.remediation,
        exit_code=data.exit_code,
    )
    failure.number = response.error.code
    raise failure


def _connection_lost() -> RpcFailure:
    return RpcFailure(
        "connection_lost",
        "the daemon closed the connection before it answered",
        remediation="The request may have been carried out: look before trying again.",
    )
