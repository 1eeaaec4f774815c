"""One event posted to one address, signed as the Standard Webhooks say (standardwebhooks.com).

The library that speaks HTTP blocks, so it runs in a thread of its own, which nobody waits for when
the daemon stops. All that it may take is bounded: how long, how many bytes, and no redirect is
followed. Proxies of the environment are not asked.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import socket
import threading
from dataclasses import dataclass
from typing import Final

from cromford.adapters.dialing import connected
from cromford.daemon.webhooks.kept import Target

ANSWER_SECONDS: Final = 15.0  # From looking up the name to the end of the answer.
LOOKUP_SECONDS: Final = 5.0
ANSWER_SIZE_MAX: Final = 65_536
NO_THREAD: Final = "no thread could be begun for it"
_REASON_LENGTH_MAX: Final = 200
_SIGNATURE_VERSION: Final = "v1"
_REDIRECTS: Final = range(300, 400)
_TAKEN: Final = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is posted.

    Attributes:
        message_id: The same however often it is posted: whoever takes it twice knows by that.
        body: The event, as JSON.
    """

    message_id: str
    body: bytes


class PostFailed(Exception):
    """A message was not taken; the message says why, in words, without address or secret."""


def signature(key: bytes, message: Message, *, unix_time: int) -> str:
    """Return the signature of a message that is posted at a time, as its header has it."""
    signed = f"{message.message_id}.{unix_time}.".encode() + message.body
    digest = hmac.digest(key, signed, hashlib.sha256)
    return f"{_SIGNATURE_VERSION},{base64.b64encode(digest).decode()}"


async def post(
    target: Target,
    key: bytes,
    message: Message,
    *,
    unix_time: int,
    seconds: float = ANSWER_SECONDS,
) -> None:
    """Post a message, and return once it is taken: answered with a status of 200 to 299.

    Args:
        target: Where.
        key: Of the signature.
        message: What.
        unix_time: When, in unix seconds.
        seconds: How long it may take in all.

    Raises:
        PostFailed: If it was not.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "cromford",
        "Connection": "close",
        "webhook-id": message.message_id,
        "webhook-timestamp": str(unix_time),
        "webhook-signature": signature(key, message, unix_time=unix_time),
    }
    posting = _Posting(target, headers, message.body, seconds)
    posted = posting.start()
    try:
        async with asyncio.timeout(seconds):
            status = await asyncio.shield(posted)
    except TimeoutError:
        posting.abort()
        # One at a time, also at a name server that does not answer.
        await asyncio.wait({posted})
        raise PostFailed(f"no whole answer within {seconds:g} s") from None
    except asyncio.CancelledError:
        posting.abort()
        raise
    if status in _REDIRECTS:
        raise PostFailed(f"status {status}: redirects are not followed")
    if status not in _TAKEN:
        raise PostFailed(f"status {status}")


async def look_up(target: Target, *, seconds: float = LOOKUP_SECONDS) -> str | None:
    """Return why a target's host is not known now, in words; None if it is.

    Args:
        target: Where.
        seconds: How long that may take.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()

    def ask() -> None:
        reason = None
        try:
            socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            reason = _short(error.strerror or type(error).__name__)
        with contextlib.suppress(RuntimeError):  # The daemon has stopped meanwhile.
            loop.call_soon_threadsafe(_found, found, reason)

    try:
        threading.Thread(target=ask, name="webhook-host", daemon=True).start()
    except RuntimeError:  # As for a post.
        return NO_THREAD
    try:
        async with asyncio.timeout(seconds):
            return await found
    except TimeoutError:
        return f"no answer within {seconds:g} s"


def _found(found: asyncio.Future[str | None], reason: str | None) -> None:
    if not found.done():
        found.set_result(reason)


class _Posting:
    """One exchange in a thread, which ends soon after it is told to."""

    def __init__(
        self, target: Target, headers: dict[str, str], body: bytes, seconds: float
    ) -> None:
        self._target = target
        self._headers = headers
        self._body = body
        self._seconds = seconds
        self._lock = threading.Lock()
        self._is_aborted = False
        self._socket: socket.socket | None = None

    def start(self) -> asyncio.Future[int]:
        """Begin, and return what will have the status, or `PostFailed`."""
        loop = asyncio.get_running_loop()
        posted: asyncio.Future[int] = loop.create_future()
        # Who was cancelled no longer looks; without this the loop would complain of that.
        posted.add_done_callback(lambda done: done.cancelled() or done.exception())

        def run() -> None:
            status, reason = 0, "it could not be posted, by a bug"
            try:
                status, reason = self._exchange(), ""
            except PostFailed as error:
                reason = str(error)
            finally:
                # The loop is closed where the daemon has stopped meanwhile.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle, posted, status, reason)

        try:
            threading.Thread(target=run, name="webhook", daemon=True).start()
        except RuntimeError:  # The system allows no more now; this need not last.
            _settle(posted, 0, NO_THREAD)
        return posted

    def abort(self) -> None:
        """Let the thread end: what it waits for on the socket fails."""
        with self._lock:
            self._is_aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Of the class: that of a TLS socket would take its state from under the thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _exchange(self) -> int:
        # Only a daemon that has webhooks needs these.
        import ssl  # noqa: PLC0415 - see above
        from http.client import (  # noqa: PLC0415 - see above
            HTTPConnection,
            HTTPException,
            HTTPSConnection,
            RemoteDisconnected,
        )

        target = self._target
        # Which of the two it is says only whether `Host` names the port: it is connected here.
        kind = HTTPSConnection if target.is_tls else HTTPConnection
        connection = kind(target.host, target.port)
        try:
            raw = connected(target.host, target.port, seconds=self._seconds)
            connection.sock = self._known(raw)
            if target.is_tls:
                context = ssl.create_default_context()
                wrapped = context.wrap_socket(
                    raw, server_hostname=target.host, do_handshake_on_connect=False
                )
                connection.sock = self._known(wrapped)
                wrapped.do_handshake()
            connection.request("POST", target.path, self._body, self._headers)
            answer = connection.getresponse()
            answer.read(ANSWER_SIZE_MAX)
        except ssl.SSLCertVerificationError as error:
            raise PostFailed(_short(f"TLS: {error.verify_message}")) from error
        except ssl.SSLError as error:
            raise PostFailed(_short(f"TLS: {error.reason or 'the connection ended'}")) from error
        except TimeoutError as error:
            raise PostFailed(f"no answer within {self._seconds:g} s") from error
        except RemoteDisconnected as error:
            raise PostFailed("the connection ended without an answer") from error
        except OSError as error:
            raise PostFailed(_short(error.strerror or type(error).__name__)) from error
        except (HTTPException, ValueError) as error:
            # What it says may be the other side's words.
            raise PostFailed(f"no answer of HTTP: {type(error).__name__}") from error
        else:
            return answer.status
        finally:
            connection.close()

    def _known(self, connected: socket.socket) -> socket.socket:
        """Remember a socket, so that it can be aborted; one that comes too late ends at once."""
        with self._lock:
            self._socket = connected
            if self._is_aborted:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)
        return connected


def _settle(posted: asyncio.Future[int], status: int, reason: str) -> None:
    if posted.done():
        return
    if reason:
        posted.set_exception(PostFailed(reason))
    else:
        posted.set_result(status)


def _short(reason: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in reason)
    return shown[:_REASON_LENGTH_MAX]
