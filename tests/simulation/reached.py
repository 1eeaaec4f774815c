"""What the worlds of a run reached: messages, records, letters, deadlines, outcomes, and cuts."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cromford import effects as fx
from cromford.protocol.journal.records import AnyRecord
from cromford.wire.messages import Message

OUTCOME_SIZE: Final = 60  # Characters of a reason that are kept.
_VARYING: Final = re.compile(r"[0-9a-f]{6,}|[0-9]+")


class Reached:
    """Counts it, by a name whose first word says what it is."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, what: str) -> None:
        """Count something."""
        self.counts[f"{kind} {what}"] += 1

    def note_message(self, message: Message) -> None:
        """Count a message that was delivered."""
        self.note("message", type(message).__name__)

    def note_records(self, told: Iterable[tuple[str, AnyRecord]]) -> None:
        """Count what was remembered: letters among it by what they say, ends by their reasons."""
        for _, record in told:
            name = type(record).__name__
            self.note("record", name)
            mail = getattr(record, "mail", None)
            if mail is not None:
                self.note("mail", type(mail).__name__)
            reason: Any = getattr(record, "reason", None)
            if isinstance(reason, str):
                self.note("outcome", f"{name}: {_VARYING.sub('#', reason)[:OUTCOME_SIZE]}")

    def note_deadline(self, deadline: fx.Deadline) -> None:
        """Count a deadline that passed."""
        self.note("deadline", type(deadline).__name__)

    def note_cut(self, told: Sequence[tuple[str, AnyRecord]]) -> None:
        """Count the last word of a process that dies: that far its ceremony had come."""
        for _, record in told[-1:]:
            self.note("cut", type(record).__name__)
