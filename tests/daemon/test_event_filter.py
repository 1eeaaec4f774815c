"""Events are asked for by name and by what they are about; nothing else is told, nothing missed."""

import asyncio
from typing import Any

import pytest

from cromford.cli import build_waiting, invoices
from cromford.daemon.api import events as events_api
from cromford.daemon.api.failures import InvalidParam
from cromford.daemon.event_filter import KNOWN_EVENTS, BadFilter, EventFilter

FACTORY, OTHER = "ab" * 32, "cd" * 32
PAGE = 2
HAPPENED: list[dict[str, Any]] = [
    {"event": "block_connected", "height": 7},
    {"event": "attempt_aborted", "attempt_id": FACTORY, "reason": f"{OTHER} was silent"},
    {"event": "block_connected", "height": 8},
    {"event": "block_connected", "height": 9},
    {"event": "funding_signed", "attempt_id": OTHER},
    {"event": "period_began", "attempt_id": OTHER, "period": "dying"},
    {"event": "join_answered", "node_ids": [FACTORY, OTHER]},
]


class Kept:
    """Events that are told some at a time, as a journal of ten thousand tells them."""

    def number_of(self, cursor: str) -> int:
        return int(cursor or 0)

    def cursor_of(self, number: int) -> str:
        return str(number)

    async def wait_after(self, number: int, *, seconds: float) -> list[dict[str, Any]]:
        assert seconds >= 0
        page = HAPPENED[number : number + PAGE]
        return [event | {"cursor": str(number + n)} for n, event in enumerate(page, start=1)]


def told(**asked: object) -> list[dict[str, Any]]:
    """Follow the events to their end, and return all that was told."""

    async def main() -> list[dict[str, Any]]:
        ask = events_api.events_method(Kept())  # type: ignore[arg-type]  # It is asked no more.
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer: Any = await ask({"after": cursor, **asked})
            if not answer["events"]:
                assert answer["cursor"] == str(len(HAPPENED)), "the next question begins here"
                return found
            found += answer["events"]
            cursor = answer["cursor"]

    return asyncio.run(main())


def test_only_what_is_asked_for_is_told_and_all_of_it_over_every_page() -> None:
    assert len(told()) == len(HAPPENED)
    assert [event["height"] for event in told(only=["block_connected"])] == [7, 8, 9]
    of_two = told(only=["funding_signed", "attempt_aborted"])
    assert [event["cursor"] for event in of_two] == ["2", "5"]
    about = told(about=OTHER[:8].upper())
    assert [event["cursor"] for event in about] == ["5", "6", "7"], "a reason names nobody"
    assert [event["cursor"] for event in told(only=["period_began"], about=OTHER)] == ["6"]
    assert told(only=["period_began"], about=FACTORY) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"only": ["block_conected"]}, "only: there is no event 'block_conected'; did you mean b"),
        ({"only": ["mail_taken"]}, "only: there is no event 'mail_taken'"),
        ({"about": "abc"}, "about: expected at least 4 hex digits of an id, received 'abc'"),
        ({"about": "factory"}, "about: expected at least 4 hex digits of an id, received"),
    ],
)
def test_what_would_let_nothing_through_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidParam) as refused:
        told(**asked)
    assert refused.value.message.startswith(said)


def test_the_commands_that_wait_for_events_know_their_names() -> None:
    assert {*build_waiting.TOLD, invoices.PAID, invoices.EXPIRED} <= KNOWN_EVENTS


def test_a_bad_filter_says_which_half_of_it_is() -> None:
    with pytest.raises(BadFilter) as refused:
        EventFilter(about="xyzw")
    assert refused.value.field == "about"
