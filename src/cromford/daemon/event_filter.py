"""Which events somebody asks for: by their names, or by what they are about."""

import difflib
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, Final, get_args

from cromford.protocol.journal.channel_records import ClientPaymentRecord, LspPaymentRecord
from cromford.protocol.journal.mail import AnyMail
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.records import ClientOnly, LspOnly, SharedRecord

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


def _names(*kinds: object) -> frozenset[str]:
    told = {kind for union in kinds for kind in get_args(union) or (union,)}
    return frozenset(str(kind.__struct_config__.tag) for kind in told)


EVENTS_OF: Final[Mapping[str, frozenset[str]]] = {
    "client": _names(SharedRecord, ClientOnly) - _names(LspPaymentRecord),
    # Mail that was taken is told by what it says.
    "lsp": _names(SharedRecord, LspOnly, AnyMail) - _names(ClientPaymentRecord, MailTaken),
}
KNOWN_EVENTS: Final = frozenset().union(*EVENTS_OF.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What is told of all that happened.

    Attributes:
        names: Of the events; empty for all.
        about: The beginning of an id, in hex, that an event names: of a factory, a channel, a
            payment, a node; empty for whatever it is about.
        known: The names that there are, for whoever asks.

    Raises:
        BadFilter: If a name is none of an event, or of none that is told here, or an id is none.
    """

    names: frozenset[str] = frozenset()
    about: str = ""
    known: InitVar[frozenset[str]] = KNOWN_EVENTS

    def __post_init__(self, known: frozenset[str]) -> None:
        for name in sorted(self.names - known):
            if name in KNOWN_EVENTS:
                expected = f"expected one of {', '.join(sorted(known))}"
                raise BadFilter("only", f"{name!r} is never told here; {expected}")
            near = difflib.get_close_matches(name, known, n=1)
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
