"""The API's `events`: what happened after a cursor, at once or as soon as something does."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

import msgspec

from cromford.answers.events import EventAnswer, EventsAnswer
from cromford.daemon.api.application import Stream
from cromford.daemon.api.caller import OPERATOR, caller
from cromford.daemon.api.failures import TOO_MANY_REQUESTS, ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.event_filter import KNOWN_EVENTS, BadFilter, EventFilter
from cromford.daemon.event_log import CursorExpired, CursorUnknown, EventLog

EVENTS_WAIT_SECONDS_MAX: Final = 60.0
HEARTBEAT_SECONDS: Final = 15.0
# Of each kind, streams and questions that wait, on either listener: a fourth of the places on the
# unix socket, and half of those on TCP.
FOLLOWERS_MAX: Final = 32


class EventsParams(msgspec.Struct, forbid_unknown_fields=True):
    """What `events` is asked: which, after which cursor, and how long to wait for the first."""

    after: str = ""
    wait_seconds: float = 0.0
    only: list[str] = []
    about: str = ""


PARAMS: Final[Params] = {"events": EventsParams}


def events_method(log: EventLog, *, known: frozenset[str] = KNOWN_EVENTS) -> Handler:
    """Return the method `events`.

    Args:
        log: The events.
        known: The names of those that the log may tell.
    """
    followers = Followers()

    async def events(params: dict[str, Any]) -> EventsAnswer:
        wanted = read_params(params, EventsParams)
        if not 0 <= wanted.wait_seconds <= EVENTS_WAIT_SECONDS_MAX:
            raise InvalidParam(
                "wait_seconds",
                f"expected 0..{EVENTS_WAIT_SECONDS_MAX}, received {wanted.wait_seconds}",
            )
        told = _filter_of(wanted, known)
        number = _number_of(log, wanted.after)
        with followers.one_more() if wanted.wait_seconds else contextlib.nullcontext():
            try:
                found, number = await _told_after(log, number, told, seconds=wanted.wait_seconds)
            except CursorExpired as error:
                raise _events_expired(error) from error
        answer: EventsAnswer = {"events": found, "cursor": log.cursor_of(number)}
        return answer

    return events


def events_stream(
    log: EventLog,
    *,
    known: frozenset[str] = KNOWN_EVENTS,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> Stream:
    """Return what gives events as they happen, as server-sent events (HTML, section 9.2).

    The id of each is its cursor, so that a browser's `EventSource`, which names the last one in
    `Last-Event-ID` as it comes back, misses nothing and sees nothing twice. A comment, or the id of
    what was passed over, comes where nothing else does, so that both sides know that the other is
    there.
    """
    followers = Followers()

    async def stream(params: dict[str, Any], last_id: str) -> AsyncGenerator[bytes, None]:
        wanted = read_params(params, EventsParams)
        if wanted.wait_seconds:
            raise InvalidParam(
                "wait_seconds",
                f"expected none of a stream, which goes on; received {wanted.wait_seconds}",
            )
        told, number = _filter_of(wanted, known), _number_of(log, last_id or wanted.after)
        with followers.one_more():
            yield b": the id of an event is its cursor\n\n"
            while not log.is_closed:
                begun = number
                try:
                    found, number = await _told_after(log, number, told, seconds=heartbeat_seconds)
                except CursorExpired:
                    # Whoever reads so slowly is told when it comes back with its last id.
                    return
                if found:
                    yield b"".join(map(_sent, found))
                elif number == begun:
                    yield b":\n\n"
                else:
                    # An id alone is no event, and is where to go on: what was looked at and not
                    # asked for may be gone by then.
                    yield f"id: {log.cursor_of(number)}\n\n".encode()

    return stream


class Followers:
    """Who is told what happens as it does: no more than leave room for others.

    Whoever comes with a token takes none of the operator's places, and of the others no more than
    it leaves free: so whoever comes with another token finds some.
    """

    def __init__(self) -> None:
        self._n_now: Counter[str] = Counter()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one in while the block lasts.

        Raises:
            ApiFailure: If there are too many.
        """
        whose = caller.get()
        n_own = self._n_now[whose]
        n_others = 0 if whose == OPERATOR else self._n_now.total() - self._n_now[OPERATOR] - n_own
        most = FOLLOWERS_MAX if whose == OPERATOR else (FOLLOWERS_MAX - n_others + 1) // 2
        if n_own >= most:
            raise ApiFailure(
                "too_many_followers",
                f"{n_own} callers of yours follow the events, the most there may be now",
                retryable=True,
                remediation="End one of them, or ask without waiting.",
                status=TOO_MANY_REQUESTS,
            )
        self._n_now[whose] += 1
        try:
            yield
        finally:
            self._n_now[whose] -= 1
            self._n_now += Counter()  # Forgets whose there is none.


def _sent(event: Mapping[str, Any]) -> bytes:
    data = msgspec.json.encode(event).decode()
    return f"id: {event['cursor']}\nevent: {event['event']}\ndata: {data}\n\n".encode()


async def _told_after(
    log: EventLog, number: int, told: EventFilter, *, seconds: float
) -> tuple[list[EventAnswer], int]:
    """Return the next events that are asked for, and the number up to which all were looked at."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        looked_at = await log.wait_after(number, seconds=max(0.0, until - loop.time()))
        if not looked_at:
            return [], number
        number = log.number_of(looked_at[-1]["cursor"])
        found = [event for event in looked_at if told.wants(event)]
        if found:
            return found, number


def _filter_of(wanted: EventsParams, known: frozenset[str]) -> EventFilter:
    try:
        return EventFilter(names=frozenset(wanted.only), about=wanted.about.lower(), known=known)
    except BadFilter as error:
        raise InvalidParam(error.field, str(error)) from error


def _number_of(log: EventLog, cursor: str) -> int:
    try:
        return log.number_of(cursor)
    except CursorUnknown as error:
        raise ApiFailure(
            "cursor_unknown",
            f"after: {error}",
            remediation="Ask without a cursor: that begins with the oldest event that is kept.",
        ) from error
    except CursorExpired as error:
        raise _events_expired(error) from error


def _events_expired(error: CursorExpired) -> ApiFailure:
    return ApiFailure(
        "events_expired",
        f"after: {error}",
        remediation="Ask without a cursor, which begins with the oldest event that is kept, "
        "and take what is owned from `payments`, `factories` and the wallet.",
    )
