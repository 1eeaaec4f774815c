"""The API's `events`: what happened after a cursor, at once or as soon as something does."""

from typing import Any, Final

import msgspec

from cromford.daemon.api.rpc import InvalidParam, RpcFailure
from cromford.daemon.api.rpc_server import Handler, read_params
from cromford.daemon.event_log import CursorExpired, CursorUnknown, EventLog

EVENTS_WAIT_SECONDS_MAX: Final = 60.0


class EventsParams(msgspec.Struct, forbid_unknown_fields=True):
    """What `events` is asked: those after a cursor, and how long to wait for the first."""

    after: str = ""
    wait_seconds: float = 0.0


def events_method(log: EventLog) -> Handler:
    """Return the method `events`."""

    async def events(params: dict[str, Any]) -> object:
        wanted = read_params(params, EventsParams)
        if not 0 <= wanted.wait_seconds <= EVENTS_WAIT_SECONDS_MAX:
            raise InvalidParam(
                "wait_seconds",
                f"expected 0..{EVENTS_WAIT_SECONDS_MAX}, received {wanted.wait_seconds}",
            )
        number = _number_of(log, wanted.after)
        found = await log.wait_after(number, seconds=wanted.wait_seconds)
        cursor = found[-1]["cursor"] if found else log.cursor_of(number)
        return {"events": found, "cursor": cursor}

    return events


def _number_of(log: EventLog, cursor: str) -> int:
    try:
        return log.number_of(cursor)
    except CursorUnknown as error:
        raise RpcFailure(
            "cursor_unknown",
            f"after: {error}",
            remediation="Ask without a cursor: that begins with the oldest event that is kept.",
        ) from error
    except CursorExpired as error:
        raise RpcFailure(
            "events_expired",
            f"after: {error}",
            remediation="Ask without a cursor, which begins with the oldest event that is kept, "
            "and take what is owned from `payments`, `factories` and the wallet.",
        ) from error
