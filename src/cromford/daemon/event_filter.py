"""Which events somebody asks for: by their names, or by what they are about."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from cromford.protocol.journal.mail import AnyMail
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.records import AnyRecord

ABOUT_SIZE_MIN: Final = 4  # Digits; with fewer, too much begins so.
_NOT_AN_ID: Final = frozenset({"event", "cursor", "reason"})


class BadFilter(ValueError):
    """A filter that lets nothing through, whatever happens: a name or an id that cannot be.

    Attributes:
        field: Which half of the filter it is.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


# Mail that was taken is told by what it says.
_TOLD: Final = {*get_args(AnyRecord), *get_args(AnyMail)} - {MailTaken}
KNOWN_EVENTS: Final = frozenset(str(kind.__struct_config__.tag) for kind in _TOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What is told of all that happened.

    Attributes:
        names: Of the events; empty for all.
        about: The beginning of an id, in hex, that an event names: of a factory, a channel, a
            payment, a node; empty for whatever it is about.

    Raises:
        BadFilter: If a name is none of an event, or an id is none.
    """

    names: frozenset[str] = frozenset()
    about: str = ""

    def __post_init__(self) -> None:
        for name in sorted(self.names - KNOWN_EVENTS):
            near = difflib.get_close_matches(name, KNOWN_EVENTS, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise BadFilter("only", f"there is no event {name!r}{meant}")
        is_hex = set(self.about) <= set("0123456789abcdef")
        if self.about and not (is_hex and len(self.about) >= ABOUT_SIZE_MIN):
            expected = f"expected at least {ABOUT_SIZE_MIN} hex digits of an id"
            raise BadFilter("about", f"{expected}, received {self.about!r}")

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Say whether an event is one of those that are asked for."""
        if self.names and event["event"] not in self.names:
            return False
        return not self.about or any(
            text.startswith(self.about)
            for field, value in event.items()
            if field not in _NOT_AN_ID
            for text in (value if isinstance(value, list) else [value])
            if isinstance(text, str)
        )
