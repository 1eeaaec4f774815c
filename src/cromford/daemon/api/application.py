"""The local API as an ASGI application: a request to a handler, its answer or failure to JSON.

Nothing here knows a socket, and nothing what an operation does. Whatever a handler raises besides
`ApiFailure` is logged, answered as an internal error without a word of what it says, since that may
be secret, and ends nothing but the request.
"""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cromford.codec.decoders import RepeatedName, decoded_object
from cromford.codec.reader import MalformedBytes
from cromford.daemon.api import failures as status
from cromford.daemon.api import operations as ops
from cromford.daemon.api.caller import OPERATOR, caller
from cromford.daemon.api.calling import JSON_TYPE, REQUEST_SIZE_MAX, ErrorBody
from cromford.daemon.api.endpoints import ServedOperation
from cromford.daemon.api.failures import ApiFailure, InvalidParam, OtherRolesDaemon
from cromford.ports import StoreFailed

DOCUMENT_PATH: Final = "/openapi.json"
STREAM_TYPE: Final = "text/event-stream"
QUERY_FIELDS_MAX: Final = 128

# Says what the caller may do, by the headers of a request; raises if it may do nothing.
Gate = Callable[[Headers], frozenset[ops.Scope]]
# The same of one caller, whenever it is asked.
Allowed = Callable[[], frozenset[ops.Scope | None]]
# Gives what is told as it happens, in the form of server-sent events.
Stream = Callable[[dict[str, Any], str], AsyncGenerator[bytes, None]]

_log = logging.getLogger(__name__)
_EVERYTHING: Final = frozenset({*ops.Scope, None})
_SOMEBODY: Final = "?"  # Until the gate knows who it is.
_BODY_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


class CallerGone(Exception):
    """The caller left before it had said what it wants, or while it waited for something."""


class Application:
    """Answers requests for the operations of one daemon.

    Args:
        endpoints: What it serves.
        role: Whose daemon it is: a request that names another in `Cromford-Role` is refused unread.
            None for anybody's.
        gate: Who may ask for what; None where every caller may do everything.
        document: Returns the description of the API, as JSON.
        streams: Of some operations, what is told where `text/event-stream` is asked for.
    """

    def __init__(
        self,
        endpoints: Iterable[ServedOperation],
        *,
        role: str | None = None,
        gate: Gate | None = None,
        document: Callable[[], bytes] | None = None,
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self._role = role
        self._gate = gate
        self._document = document
        by_path: dict[str, dict[str, ServedOperation]] = {}
        for endpoint in endpoints:
            operation = endpoint.described.operation
            by_path.setdefault(operation.path, {})[operation.verb] = endpoint
        given = dict(streams or {})
        # The first that fits is taken, so a name comes before what stands for any.
        paths = sorted(by_path.items(), key=lambda item: "{" in item[0])
        self._router = Router(
            [Route(path, _Path(by_verb, given)) for path, by_verb in paths],
            redirect_slashes=False,
            default=_no_such_path,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; an ASGI application."""
        caller.set(OPERATOR if self._gate is None else _SOMEBODY)
        await answered(self._answer, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        meant = headers.get(ops.ROLE_HEADER)
        if self._role is not None and meant not in {None, self._role}:
            raise OtherRolesDaemon(expected=str(meant), received=self._role)
        # Matched as it was sent: a slash inside of a parameter is no border.
        path = scope["raw_path"].decode("ascii")
        if path == DOCUMENT_PATH and scope["method"] == "GET" and self._document is not None:
            await json_answer(self._document())(scope, receive, send)
            return
        matched = {
            **scope,
            "path": path,
            "root_path": "",
            "allowed": partial(self._allowed, headers),
        }
        try:
            await self._router(matched, receive, send)
        finally:
            scope["operation"] = matched.get("operation", "")

    def _allowed(self, headers: Headers) -> frozenset[ops.Scope | None]:
        """Return what a caller may ask for at this moment; raise if that is nothing."""
        return _EVERYTHING if self._gate is None else self._gate(headers)


async def answered(answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let an application answer a request; what it raises becomes the answer."""
    begun = False

    async def noting(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await answer(scope, receive, noting)
    except CallerGone:
        _log.debug("api_caller_gone")
    except asyncio.CancelledError:
        # The server closes, and has hung up already. Above is nobody but the HTTP library.
        _log.debug("api_request_ended")
    except ApiFailure as failure:
        await failed(failure)(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - a bug in one operation must not end the daemon
        # Neither the message, which a traceback ends with, nor the parameters: either can
        # hold a secret.
        _log.error(
            "api_operation_failed operation=%s error=%s at=%s",
            scope.get("operation", ""),
            type(error).__name__,
            _places(error),
        )
        if not begun:
            told = _unwritten() if isinstance(error, StoreFailed) else _internal()
            await failed(told)(scope, receive, send)


class _Path:
    """The operations of one path, by their verbs; an ASGI application."""

    def __init__(
        self, by_verb: Mapping[str, ServedOperation], streams: Mapping[str, Stream]
    ) -> None:
        self._by_verb = by_verb
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._by_verb.get(scope["method"])
        if endpoint is None:
            raise WrongVerb(scope["method"], self._by_verb)
        described = endpoint.described
        operation = described.operation
        scope["operation"] = operation.name
        allowed: Allowed = scope["allowed"]
        _check_scope(operation, allowed())
        headers = Headers(scope=scope)
        params = await _params_of(endpoint, scope, headers, receive)
        _check_scope(operation, allowed())  # A body takes its time, and tokens are revoked.
        stream = self._streams.get(operation.name)
        if stream is not None and STREAM_TYPE in headers.get("accept", ""):
            told = stream(params, headers.get("last-event-id", ""))
            # Whatever is wrong with what was asked for is said before the answer begins.
            response: Response = StreamingResponse(
                _after(await anext(told), told, lambda: _still(allowed, operation.scope)),
                media_type=STREAM_TYPE,
                headers={"cache-control": "no-store"},
            )
        else:
            asked = endpoint.handler(params)
            # What waits for events changes nothing, so nobody need wait once the caller has left.
            answer = await (asked if stream is None else _unless_gone(asked, receive))
            if stream is not None:
                # It may have waited for long, and its token been revoked meanwhile.
                _check_scope(operation, allowed())
            response = _response(answer, operation.media_type)
        await response(scope, receive, send)


def _check_scope(operation: ops.Operation, allowed: frozenset[ops.Scope | None]) -> None:
    """Check that a caller may ask for an operation.

    Raises:
        ApiFailure: If it may not.
    """
    if operation.scope in allowed:
        return
    is_local = operation.scope is None
    raise ApiFailure(
        "scope_missing",
        f"{operation.name} is answered over the unix socket only"
        if is_local
        else f"{operation.name} needs a token with the scope {operation.scope}",
        remediation="" if is_local else "Make one with `token add --scope`.",
        exit_code=status.EXIT_AUTHENTICATION,
        status=status.FORBIDDEN,
    )


class WrongVerb(ApiFailure):
    """A path that is served, by another method of HTTP; `allow` names those."""

    def __init__(self, verb: str, known: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(known))
        super().__init__(
            "unknown_operation",
            f"the method of HTTP: expected {self.allow}, received {verb}",
            status=status.METHOD_NOT_ALLOWED,
        )


async def _no_such_path(scope: Scope, _receive: Receive, _send: Send) -> None:
    scope["allowed"]()  # Who may do nothing does not hear what there is.
    raise ApiFailure(
        "unknown_operation",
        f"this daemon serves no {scope['path']}",
        remediation="GET /openapi.json says what it serves. Use the command line and the daemon of "
        "one version.",
        status=status.NOT_FOUND,
    )


async def _after(
    first: bytes, rest: AsyncGenerator[bytes, None], may_go_on: Callable[[], bool]
) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(rest):
        yield first
        async for part in rest:
            # The token may have been revoked since the stream began.
            if not may_go_on():
                return
            yield part


async def _unless_gone(asked: Awaitable[object], receive: Receive) -> object:
    """Return an answer, or end what makes it once its caller has left.

    Raises:
        CallerGone: If it has.
    """

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.ensure_future(asked), asyncio.ensure_future(left())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise CallerGone
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


def _still(allowed: Allowed, needed: ops.Scope | None) -> bool:
    """Say whether who was let in would be let in now."""
    try:
        return needed in allowed()
    except ApiFailure:
        return False


async def _params_of(
    endpoint: ServedOperation, scope: Scope, headers: Headers, receive: Receive
) -> dict[str, Any]:
    """Return the parameters of a request, each as its type has it.

    Raises:
        ApiFailure: If they are none, or too long.
        CallerGone: If it left before they were there.
    """
    query = scope["query_string"].decode("ascii", "replace")
    if endpoint.described.operation.has_body:
        if query:
            raise InvalidParam("params", "the parameters of this operation stand in the body")
        params = await body_params(headers, receive)
    else:
        params = query_params(query, endpoint.described.params)
    for name, value in scope["path_params"].items():
        if name in params:
            raise InvalidParam(name, "it stands in the path already")
        params[name] = unquote(value, errors="replace")
    return params


async def body_params(
    headers: Headers, receive: Receive, *, size_max: int = REQUEST_SIZE_MAX
) -> dict[str, Any]:
    """Return the parameters in the body of a request.

    Args:
        headers: Of the request.
        receive: Gives its body.
        size_max: How many bytes that may have.

    Raises:
        ApiFailure: If it has more, or holds no JSON object.
        InvalidParam: Naming a parameter that it says twice.
        CallerGone: If the caller left before it was there.
    """
    body = await _read_body(receive, size_max)
    if not body:
        return {}
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        raise ApiFailure(
            "invalid_request",
            f"content-type: expected {JSON_TYPE}, received {kind!r}",
            status=status.UNSUPPORTED_MEDIA_TYPE,
        )
    try:
        return decoded_object(_BODY_DECODER, body)
    except RepeatedName as error:
        raise InvalidParam(error.name, "it is said twice") from error
    except MalformedBytes as error:
        raise ApiFailure(
            "invalid_request",
            f"the body: expected a JSON object of named parameters: {error}",
            status=status.BAD_REQUEST,
        ) from error


async def _read_body(receive: Receive, size_max: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        body += message["body"]
        if len(body) > size_max:
            raise ApiFailure(
                "request_too_large",
                f"a request has at most {size_max} bytes",
                status=status.CONTENT_TOO_LARGE,
            )
        if not message["more_body"]:
            return bytes(body)


def query_params(query: str, kind: type[msgspec.Struct] | None) -> dict[str, Any]:
    """Return the parameters of a query, each as its type has it: what is not said is left out.

    Raises:
        InvalidParam: Naming the first that does not fit.
    """
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except ValueError as error:
        complaint = f"expected at most {QUERY_FIELDS_MAX} names and values in UTF-8"
        raise InvalidParam("params", complaint) from error
    if kind is None:
        return dict(pairs)
    kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
    said: dict[str, Any] = {}
    for name, value in pairs:
        if _is_list(kinds.get(name)):
            said.setdefault(name, []).append(value)
        elif name in said:
            raise InvalidParam(name, "it is said twice")
        else:
            said[name] = value
    return {name: _query_value(name, value, kinds.get(name)) for name, value in said.items()}


def _is_list(kind: Any) -> bool:  # noqa: ANN401 - a type of msgspec's
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_origin(bare) is list


def _query_value(name: str, value: object, kind: Any) -> object:  # noqa: ANN401 - a type of msgspec's
    """Return what a text of the query says; of an unknown name the text, which nobody takes."""
    if kind is None:
        return value
    try:
        read: object = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidParam(name, str(error)) from error
    if read is None:
        raise InvalidParam(name, "what is not said is left out: there is no null in a query")
    return read


def _response(answer: object, media_type: str) -> Response:
    body = msgspec.json.encode(answer) if media_type == ops.JSON else str(answer).encode()
    return Response(body, media_type=media_type, headers={"cache-control": "no-store"})


def json_answer(body: bytes) -> Response:
    """Return JSON as an answer that nobody keeps."""
    return Response(body, media_type=JSON_TYPE, headers={"cache-control": "no-store"})


def failed(failure: ApiFailure) -> Response:
    """Return a failure as an answer."""
    body = ErrorBody(
        code=failure.code,
        message=failure.message,
        retryable=failure.retryable,
        remediation=failure.remediation,
        exit_code=failure.exit_code,
        param=failure.param,
    )
    headers = {"cache-control": "no-store"}
    if isinstance(failure, WrongVerb):
        headers["allow"] = failure.allow
    if failure.status == status.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(body),
        status_code=failure.status,
        media_type=JSON_TYPE,
        headers=headers,
    )


def _unwritten() -> ApiFailure:
    return ApiFailure(
        "store_failed",
        "the journal could not be written or read, and the daemon ends",
        retryable=True,
        remediation="What was not written was neither done nor told. The last line of the daemon's "
        "log says what to mend; start it then, and look before asking again.",
    )


def _internal() -> ApiFailure:
    return ApiFailure(
        "internal_error",
        "the daemon failed to carry out the request",
        remediation="The daemon's log says where it failed. Please report it.",
        status=status.INTERNAL_ERROR,
    )


def _places(error: Exception) -> str:
    """Return where an exception passed, innermost last, without what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
