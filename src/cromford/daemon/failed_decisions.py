"""Bugs of ours that were met while deciding: what was not decided, how often, and since when.

Nothing was remembered, so nothing is broken; but somebody was let go for it, or a factory stopped,
and the operator has to know. Neither messages nor an error's words are kept: either can hold a
secret.
"""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cromford.answers.status import FailedDecisionKind
from cromford.daemon.metrics import Sample
from cromford.protocol import events as ev
from cromford.protocol.journal.intents import DoubleSigning
from cromford.recent import Recent

KINDS_MAX: Final = 100  # Of more, those that are not met any more go.


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDecision:
    """One kind of failure. Times are seconds since 1970, UTC.

    Attributes:
        event: What was to be decided about.
        error: The type of the exception.
        place: The file and line that raised it.
        is_alarm: Whether a second signature for one thing was prevented.
        node_id: The last peer that caused it, or None where it was the operator.
        count: How often.
        first_time: When it was met first.
        last_time: When last.
    """

    event: str
    error: str
    place: str
    is_alarm: bool
    node_id: bytes | None
    first_time: int
    last_time: int
    count: int = 1

    def shown(self) -> FailedDecisionKind:
        """Return it as plain data."""
        return {
            "event": self.event,
            "error": self.error,
            "place": self.place,
            "alarm": self.is_alarm,
            "node_id": None if self.node_id is None else self.node_id.hex(),
            "first_time": self.first_time,
            "last_time": self.last_time,
            "count": self.count,
        }


class FailedDecisions:
    """Those of this process, by kind."""

    def __init__(self) -> None:
        self._kinds = Recent[tuple[str, str, str], FailedDecision](KINDS_MAX)
        self._n_alarms = 0
        self._n = 0

    def note(self, event: ev.Event, error: BaseException, *, unix_time: int) -> FailedDecision:
        """Remember one failure, and return its kind as it is now."""
        met = FailedDecision(
            event=_name_of(event),
            error=type(error).__name__,
            place=_place_of(error),
            is_alarm=isinstance(error, DoubleSigning),
            node_id=event.node_id if isinstance(event, ev.PeerEvent) else None,
            first_time=unix_time,
            last_time=unix_time,
        )
        kind = (met.event, met.error, met.place)
        known = self._kinds.get(kind)
        if known is not None:
            met = replace(met, first_time=known.first_time, count=known.count + 1)
        self._kinds.note(kind, met)
        self._n += 1
        self._n_alarms += met.is_alarm
        return met

    def samples(self) -> Iterator[Sample]:
        """Yield how many there were, for Prometheus."""
        yield "failed_decisions", {}, self._n
        yield "double_signings_prevented", {}, self._n_alarms

    def shown(self) -> list[FailedDecisionKind]:
        """Return all kinds as plain data, the last met last."""
        return [met.shown() for _, met in self._kinds.items()]


def _name_of(event: ev.Event) -> str:
    if isinstance(event, ev.MessageReceived):
        return type(event.message).__name__
    return type(event).__name__


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
