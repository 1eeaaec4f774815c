"""The API's `events`: what happened after a cursor, at once or as soon as something does."""

import asyncio
from typing import Any, Final

import msgspec

from cromford.answers.events import EventAnswer, EventsAnswer
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.event_filter import BadFilter, EventFilter
from cromford.daemon.event_log import CursorExpired, CursorUnknown, EventLog

EVENTS_WAIT_SECONDS_MAX: Final = 60.0


class EventsParams(msgspec.Struct, forbid_unknown_fields=True):
    """What `events` is asked: which, after which cursor, and how long to wait for the first."""

    after: str = ""
    wait_seconds: float = 0.0
    only: list[str] = []
    about: str = ""


PARAMS: Final[Params] = {"events": EventsParams}


def events_method(log: EventLog) -> Handler:
    """Return the method `events`."""

    async def events(params: dict[str, Any]) -> EventsAnswer:
        wanted = read_params(params, EventsParams)
        if not 0 <= wanted.wait_seconds <= EVENTS_WAIT_SECONDS_MAX:
            raise InvalidParam(
                "wait_seconds",
                f"expected 0..{EVENTS_WAIT_SECONDS_MAX}, received {wanted.wait_seconds}",
            )
        told = _filter_of(wanted)
        number = _number_of(log, wanted.after)
        found, number = await _told_after(log, number, told, seconds=wanted.wait_seconds)
        answer: EventsAnswer = {"events": found, "cursor": log.cursor_of(number)}
        return answer

    return events


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


def _filter_of(wanted: EventsParams) -> EventFilter:
    try:
        return EventFilter(names=frozenset(wanted.only), about=wanted.about.lower())
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
        raise ApiFailure(
            "events_expired",
            f"after: {error}",
            remediation="Ask without a cursor, which begins with the oldest event that is kept, "
            "and take what is owned from `payments`, `factories` and the wallet.",
        ) from error
