"""What lists are asked with: a limit, a cursor, and what is wanted of them; and their cursors."""

import re
from typing import Final

import msgspec

from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.payment_limits import LIMIT, LIMIT_MAX
from cromford.daemon.event_log import EventLog
from cromford.protocol.journal.numbers import ListPlace

_CURSOR: Final = re.compile(r"([a-z])([0-9a-f]{1,8})-([0-9a-f]{1,15})-([0-9a-f]{1,15})", re.ASCII)


class PageParams(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every list takes.

    Attributes:
        limit: How many entries at most.
        after: The cursor of the page before; empty to begin with the newest.
        since: Only what was begun at this unix time or later.
        until: Only what was begun before it.
    """

    limit: int = LIMIT
    after: str = ""
    since: int | None = None
    until: int | None = None

    def has_time(self, created_at: int) -> bool:
        """Say whether something of this unix time is wanted; of an unknown one if any is."""
        if self.since is None and self.until is None:
            return True
        is_late_enough = self.since is None or created_at >= self.since
        return (
            bool(created_at) and is_late_enough and (self.until is None or created_at < self.until)
        )


def check_page(wanted: PageParams) -> None:
    """Check a limit, and that there is time in which something can have begun.

    Raises:
        InvalidParam: If the limit is out of range, or nothing lies between the two times.
    """
    if not 1 <= wanted.limit <= LIMIT_MAX:
        raise InvalidParam("limit", f"expected 1..{LIMIT_MAX}, received {wanted.limit}")
    since, until = wanted.since, wanted.until
    if since is not None and until is not None and since >= until:
        raise InvalidParam("since", f"expected less than until, {until}, received {since}")


def check_choice(field: str, received: str, allowed: tuple[str, ...]) -> None:
    """Check that a filter is one of a few words, or empty.

    Raises:
        InvalidParam: If it is none of them.
    """
    if received and received not in allowed:
        raise InvalidParam(field, f"expected one of {', '.join(allowed)}, received {received!r}")


def cursor_of(events: EventLog, kind: str, place: tuple[int, int] | None) -> str | None:
    """Return what the page behind a place is asked with; None where nothing follows.

    Args:
        events: Of the journal.
        kind: Of which list, in one letter.
        place: Where that page begins.
    """
    if place is None:
        return None
    return f"{kind}{events.journal_number:x}-{place[0]:x}-{place[1]:x}"


def place_of(events: EventLog, kind: str, cursor: str) -> tuple[int, int] | None:
    """Return where a page begins that is asked with a cursor; None to begin with the newest.

    Raises:
        ApiFailure: If it is no cursor of such a list of this journal.
    """
    if not cursor:
        return None
    named = _CURSOR.fullmatch(cursor)
    if named is None:
        complaint = f"{cursor!r} is no cursor"
    elif named[1] != kind:
        complaint = f"{cursor!r} is a cursor of another list"
    elif int(named[2], 16) != events.journal_number:
        complaint = f"{cursor!r} is a cursor of another journal"
    else:
        return int(named[3], 16), int(named[4], 16)
    raise ApiFailure(
        "cursor_unknown",
        f"after: expected `next` of the page before, received: {complaint}",
        remediation="Ask without a cursor: that begins with the newest entry.",
    )


def begun_at(events: EventLog, kind: str, cursor: str, *, n_begun: int) -> ListPlace:
    """Return where a page of numbered entries begins, of which there are `n_begun`.

    Raises:
        ApiFailure: If it is no cursor of such a list of this journal.
    """
    top, below = place_of(events, kind, cursor) or (n_begun, n_begun + 1)
    return ListPlace(top=min(top, n_begun), below=min(below, n_begun + 1))


def hash_of(text: str) -> bytes:
    """Return the payment hash in a parameter.

    Raises:
        InvalidParam: If it is none.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", text, re.ASCII) is None:
        raise InvalidParam("payment_hash", f"expected 64 hex digits, received {text!r}")
    return bytes.fromhex(text)
