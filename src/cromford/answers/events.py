"""Answers about events. What an event tells besides depends on its name."""

from typing import Any, TypedDict

# `cursor`, `event`, `at` (unix seconds, None if unknown), and the fields of the record it tells of.
EventAnswer = dict[str, Any]


class EventsAnswer(TypedDict):
    """Events, oldest first, and the cursor to go on from."""

    events: list[EventAnswer]
    cursor: str
