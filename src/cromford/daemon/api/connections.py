"""HTTP connections of one listener, bounded: in number, and in the time that each step may take.

The protocol itself is uvicorn's. What is added here: a connection that says nothing ends, so does a
request that does not come to its end, and an answer that nobody reads; and where there are too
many, the one that has been idle for longest makes room. And a request of two lengths is refused: a
proxy before us may go by the other one, and take what follows for somebody else's request.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import h11
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from cromford.daemon.api.calling import JSON_TYPE, ErrorBody
from cromford.daemon.api.failures import BAD_REQUEST

HEAD_SIZE_MAX: Final = 64 * 1024  # Of the first line and all headers.
IDLE_SECONDS: Final = 60.0  # That a connection may wait for its first, or its next, request.
REQUEST_SECONDS: Final = 30.0  # From the first byte of a request to its last.
UNREAD_SECONDS: Final = 30.0  # That an answer may wait for a caller that does not read it.

_log = logging.getLogger(__name__)


class Connections:
    """The connections of one listener.

    Args:
        app: The application that answers.
        name: Of the listener, for the log.
        n_max: How many there may be at once.
    """

    def __init__(self, app: Callable[..., Any], *, name: str, n_max: int) -> None:
        self.name = name
        self.n_max = n_max
        self.is_closing = False
        self.state = ServerState()
        # In the order in which each was last of use.
        self.open: dict[BoundedProtocol, None] = {}
        self._config = Config(
            _of_one_length(app),
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,  # What it warns of, any caller can cause.
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(IDLE_SECONDS),
            h11_max_incomplete_event_size=HEAD_SIZE_MAX,
        )
        self._config.load()

    def protocol(self) -> "BoundedProtocol":
        """Return what serves one more connection."""
        return BoundedProtocol(self._config, self)

    def admit(self, protocol: "BoundedProtocol") -> bool:
        """Take one more, in the place of an idle one if all are taken; say whether there is one."""
        if self.is_closing:
            return False
        if len(self.open) >= self.n_max:
            idle = next((one for one in self.open if not one.is_busy), None)
            if idle is None:
                _log.warning("api_connection_refused listener=%s max=%d", self.name, self.n_max)
                return False
            _log.info("api_connection_displaced listener=%s max=%d", self.name, self.n_max)
            idle.end()
        self.open[protocol] = None
        return True

    def used(self, protocol: "BoundedProtocol") -> None:
        """Take note that a connection was of use just now."""
        if self.open.pop(protocol, self) is None:
            self.open[protocol] = None

    async def close(self, *, grace_seconds: float) -> None:
        """Let begun requests finish for a moment, then end every connection."""
        self.is_closing = True
        for protocol in list(self.open):
            protocol.shutdown()
        if self.state.tasks:
            await asyncio.wait(self.state.tasks, timeout=grace_seconds)
        for protocol in list(self.open):
            protocol.end()
        await asyncio.sleep(0)  # Each knows now that it is closed: nothing more is sent.
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)


def _of_one_length(app: Callable[..., Any]) -> Callable[..., Any]:
    """Return an application that refuses what has a length twice, and hangs up (RFC 9112, 6.1)."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        if not names >= {b"content-length", b"transfer-encoding"}:
            await app(scope, receive, send)
            return
        body = _refused("content-length: expected none beside transfer-encoding, received one")
        response = Response(
            body, status_code=BAD_REQUEST, media_type=JSON_TYPE, headers={"connection": "close"}
        )
        await response(scope, receive, send)

    return answered


def _refused(message: str) -> bytes:
    return msgspec.json.encode(ErrorBody(code="invalid_request", message=message))


class BoundedProtocol(H11Protocol):
    """One connection. See the module for what bounds it."""

    def __init__(self, config: Config, connections: Connections) -> None:
        super().__init__(config, connections.state, {})
        self._among = connections
        self._is_admitted = False
        self._idle = _Timer(self.end)
        self._request = _Timer(self.end)
        self._unread = _Timer(self.end)

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Begin, if there is room."""
        super().connection_made(transport)
        self._is_admitted = self._among.admit(self)
        if self._is_admitted:
            self._idle.begin(IDLE_SECONDS)
        else:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._among.open.pop(self, None)
        for timer in (self._idle, self._request, self._unread):
            timer.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came. A request that has begun has to come to its end in time."""
        if not self._is_admitted:
            return
        self._among.used(self)
        self._idle.stop()
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            self.end()  # It breaks HTTP while it is being answered.
            return
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come already."""
        super().on_response_complete()
        self._among.used(self)
        if self.is_busy:
            self._look()

    def _look(self) -> None:
        if self.transport.is_closing() or (self.is_busy and not self.cycle.more_body):
            self._request.stop()
        elif not self._request.is_running:
            self._request.begin(REQUEST_SECONDS)

    def pause_writing(self) -> None:
        """Take note that the caller does not read."""
        super().pause_writing()
        self._unread.begin(UNREAD_SECONDS)

    def resume_writing(self) -> None:
        """Take note that it does."""
        self._unread.stop()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as any other bad request is answered, and close."""
        if self.is_busy:
            # What is being answered is this request: nothing more is said to it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = _refused(msg)
        response = h11.Response(
            status_code=BAD_REQUEST,
            headers=[
                ("content-type", JSON_TYPE),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ],
            reason=b"Bad Request",
        )
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def end(self) -> None:
        """Close it, whatever it does."""
        self.transport.abort()


class _Timer:
    """Does something after a while, unless it is stopped before."""

    def __init__(self, reached: Callable[[], None]) -> None:
        self._reached = reached
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        return self._handle is not None

    def begin(self, seconds: float) -> None:
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, self._reached)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
