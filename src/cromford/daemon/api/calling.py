"""The local API as a caller in the same directory sees it: HTTP/1.1 over a unix socket.

Whoever may write to the socket commands the daemon; it lives in the data directory with mode 0600.
One request goes over one connection. This is so little of HTTP that the standard library's client,
whose imports cost a command line a third of its time, has no part in it.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning, InvalidParam
from cromford.daemon.api.operations import JSON, OPERATIONS, ROLE_HEADER, Operation

SOCKET_NAME: Final = "api.sock"
OLD_SOCKET_NAME: Final = "rpc.sock"  # Of daemons before this API.
REQUEST_SIZE_MAX: Final = 4 * 1024 * 1024
RESPONSE_SIZE_MAX: Final = 64 * 1024 * 1024
CALL_TIMEOUT_SECONDS: Final = 120.0
JSON_TYPE: Final = JSON
_QUEUE_SECONDS: Final = 0.01  # Between two looks whether a full queue has a place.
_CHUNK_SIZE: Final = 64 * 1024
UNANSWERED: Final = frozenset({"connection_lost", "timeout"})
_MADE_ONCE: Final = frozenset({"pay", "factory_replace", "liquidity_buy"})  # By what they name.
_ERROR_STATUS_MIN: Final = 400
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")
_CONTENT_LENGTH: Final = re.compile(rb"content-length: *(\d{1,12}) *", re.IGNORECASE)


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer with a status of 400 or more says.

    Attributes:
        code: Stays the same between versions.
        message: What went wrong, naming the field, what was expected and received.
        retryable: Whether the same request may succeed later.
        remediation: What to do; may be empty.
        exit_code: What a command line ends with.
        param: The parameter that is at fault, if one is.
    """

    code: str
    message: str
    retryable: bool = False
    remediation: str = ""
    exit_code: int = 1
    param: str | None = None


_ERROR_DECODER: Final = msgspec.json.Decoder(ErrorBody)
_ANSWER_DECODER: Final = msgspec.json.Decoder()


class ApiClient:
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

    def call(self, name: str, /, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer of an operation: what its JSON says, or its text if it is a picture.

        Raises:
            DaemonNotRunning: If nobody listens.
            ApiFailure: If the daemon refused, did not answer in time, or went away. After the
                last two the request may have been carried out all the same, but one that only
                looks. `wrong_role` if it is another role's.
        """
        target, body = _asked(OPERATIONS[name], params)
        if len(target) + len(body) > REQUEST_SIZE_MAX:
            raise ApiFailure(
                "request_too_large",
                f"a request has at most {REQUEST_SIZE_MAX} bytes, this one "
                f"{len(target) + len(body)}",
            )
        head = [
            f"{OPERATIONS[name].verb} {target} HTTP/1.1",
            "host: localhost",
            "connection: close",
        ]
        if self._role is not None:
            head.append(f"{ROLE_HEADER}: {self._role}")
        if body:
            head += [f"content-type: {JSON_TYPE}", f"content-length: {len(body)}"]
        request = "\r\n".join((*head, "", "")).encode() + body
        try:
            return read_answer(self._exchange(request), media_type=OPERATIONS[name].media_type)
        except ApiFailure as failure:
            if failure.code in UNANSWERED and OPERATIONS[name].verb == "GET":
                failure.retryable = True
                failure.remediation = "Nothing was asked for but an answer. Try again."
            elif failure.code in UNANSWERED and is_made_once(name, params):
                failure.retryable = True
                failure.remediation = "Try again, with the same: it is not made a second time."
            raise

    def _exchange(self, request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(self._timeout_seconds)
            self._connect(stream)
            try:
                stream.sendall(request)
                return _read_all(stream)
            except TimeoutError as error:
                raise ApiFailure(
                    "timeout",
                    f"no answer in {self._timeout_seconds:g} seconds",
                    remediation="The request may still be carried out: look before trying again.",
                ) from error
            except OSError as error:
                raise _connection_lost() from error

    def _connect(self, stream: socket.socket) -> None:
        try:
            with short_path(self._socket_path) as path:
                self._connect_to(stream, path)
        except BlockingIOError as error:
            raise ApiFailure(
                "daemon_busy",
                f"the daemon took no connection in {self._timeout_seconds:g} seconds: too many ask",
                retryable=True,
                remediation="Nothing was asked of it. Try again.",
            ) from error
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            if _is_listened_on(self._socket_path.with_name(OLD_SOCKET_NAME)):
                raise ApiFailure(
                    "daemon_outdated",
                    f"the daemon in {self._socket_path.parent} is of an older version, which this "
                    "one cannot ask",
                    remediation="Stop it, and start it again with this version.",
                ) from error
            raise DaemonNotRunning(self._socket_path) from error
        except OSError as error:
            raise ApiFailure(
                "socket_unreachable",
                f"cannot connect to {self._socket_path}: {error.strerror}",
                remediation="Run this as the user who runs the daemon.",
            ) from error

    def _connect_to(self, stream: socket.socket, path: str) -> None:
        """Connect; while as many wait as may, wait, for a unix socket does not by itself.

        Raises:
            BlockingIOError: If that takes too long.
            OSError: If it is impossible.
        """
        until = time.monotonic() + self._timeout_seconds
        while True:
            try:
                stream.connect(path)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_QUEUE_SECONDS)
            else:
                return


def _asked(operation: Operation, params: dict[str, object]) -> tuple[str, bytes]:
    """Return the target of a request, and its body.

    Raises:
        InvalidParam: If a parameter that stands in the path is missing or empty.
    """
    left, target = dict(params), operation.path
    for place in operation.places:
        value = left.pop(place, None)
        if value is None or value == "":
            raise InvalidParam(place, f"expected a text, received {value!r}")
        # A lone surrogate, as argv may have, must not end a command line: the daemon refuses it.
        target = target.replace(f"{{{place}}}", quote(str(value), safe="", errors="replace"))
    if operation.has_body:
        return target, msgspec.json.encode(left) if left else b""
    said = {name: value for name, value in left.items() if value is not None}
    query = urlencode(
        {name: _query_value(value) for name, value in said.items()}, doseq=True, errors="replace"
    )
    return (f"{target}?{query}" if query else target), b""


def is_made_once(name: str, params: Mapping[str, object]) -> bool:
    """Say whether a request that was carried out is not carried out again, but told of."""
    return name in _MADE_ONCE or bool(params.get("external_id"))


def _query_value(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


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


def _is_listened_on(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with short_path(socket_path) as path:
                probe.connect(path)
        except BlockingIOError:
            return True  # Its queue is full, so somebody has it.
        except OSError:
            return False
    return True


def _read_all(stream: socket.socket) -> bytes:
    received = bytearray()
    while chunk := stream.recv(_CHUNK_SIZE):
        received += chunk
        if len(received) > RESPONSE_SIZE_MAX:
            raise ApiFailure("response_too_large", f"the answer exceeds {RESPONSE_SIZE_MAX} bytes")
    return bytes(received)


def read_answer(received: bytes, *, media_type: str = JSON_TYPE) -> Any:  # noqa: ANN401 - as `call`
    """Return what an answer says, from all that came before the connection ended.

    Args:
        received: All of it.
        media_type: What is expected: of anything but JSON, its text is returned.

    Raises:
        ApiFailure: As the daemon says; `connection_lost` if the answer is cut short;
            `unreadable_response` if it is none.
    """
    head, ended, body = received.partition(b"\r\n\r\n")
    if not ended:
        raise _connection_lost()
    first, *fields = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    lengths = [found for field in fields if (found := _CONTENT_LENGTH.fullmatch(field))]
    if status is None or len(lengths) != 1:
        raise _unreadable("it is no HTTP, or does not say how long it is")
    size = int(lengths[0][1])
    if len(body) < size:
        raise _connection_lost()
    body = body[:size]
    try:
        if int(status[1]) < _ERROR_STATUS_MIN:
            return decoded(_ANSWER_DECODER, body) if media_type == JSON_TYPE else _text_of(body)
        error = decoded(_ERROR_DECODER, body)
    except MalformedBytes as malformed:
        raise _unreadable(str(malformed)) from malformed
    raise ApiFailure(
        error.code,
        error.message or f"the daemon answered {int(status[1])} ({error.code}) and did not say why",
        retryable=error.retryable,
        remediation=error.remediation,
        exit_code=error.exit_code,
        status=int(status[1]),
        param=error.param,
    )


def _text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(str(error)) from error


def _unreadable(reason: str) -> ApiFailure:
    return ApiFailure(
        "unreadable_response",
        f"the answer is not a response: {reason}",
        remediation="Use the command line and the daemon of one version.",
    )


def _connection_lost() -> ApiFailure:
    return ApiFailure(
        "connection_lost",
        "the daemon closed the connection before it answered",
        remediation="The request may have been carried out: look before trying again.",
    )
