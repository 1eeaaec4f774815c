"""Events are asked for by name and by what they are about; nothing else is told, nothing missed."""

import asyncio
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.daemon.webhooks.receiver import House

from cromford.cli import build_waiting, invoices
from cromford.daemon.api import events as events_api
from cromford.daemon.api.failures import InvalidParam
from cromford.daemon.api.webhooks import webhook_methods
from cromford.daemon.event_filter import EVENTS_OF, KNOWN_EVENTS, BadFilter, EventFilter
from cromford.protocol.journal.mail import AnyMail
from cromford.protocol.journal.records import AnyRecord

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


@pytest.mark.parametrize(("role", "name"), [("client", "fee_earned"), ("lsp", "invoice_issued")])
def test_an_event_that_only_the_other_role_tells_is_refused_with_those_there_are(
    role: str, name: str, tmp_path: Path
) -> None:
    """It would let nothing through for ever: of whoever asks, follows, or has it posted."""
    known = EVENTS_OF[role]
    house = House(tmp_path)
    add = webhook_methods(house.webhooks, known=known)["webhook_add"]
    ask = events_api.events_method(Kept(), known=known)  # type: ignore[arg-type]  # Not asked.
    follow = events_api.events_stream(Kept(), known=known)  # type: ignore[arg-type]  # Nor here.
    asked = {"only": [name, "block_connected"]}
    expected = f"only: {name!r} is never told here; expected one of {', '.join(sorted(known))}"

    async def first_of(told: Any) -> object:
        async for one in told:
            return one
        return None

    for attempt in (
        add({"name": "shop", "url": "https://shop.example/paid", **asked}),
        ask(asked),
        first_of(follow(asked, "")),
    ):
        with pytest.raises(InvalidParam) as refused:
            asyncio.run(attempt)  # type: ignore[arg-type]  # Each is a coroutine.
        assert (refused.value.message, refused.value.param) == (expected, "only")
    assert house.webhooks.deliveries == ()


def test_each_event_is_one_of_a_roles() -> None:
    told = {str(kind.__struct_config__.tag) for kind in (*get_args(AnyRecord), *get_args(AnyMail))}
    assert EVENTS_OF["client"] | EVENTS_OF["lsp"] == KNOWN_EVENTS == told - {"mail_taken"}
    assert "mail_taken" not in KNOWN_EVENTS


def test_the_commands_that_wait_for_events_know_their_names() -> None:
    assert {*build_waiting.TOLD} <= EVENTS_OF["lsp"]
    assert {invoices.PAID, invoices.EXPIRED} <= EVENTS_OF["client"]


def test_a_bad_filter_says_which_half_of_it_is() -> None:
    with pytest.raises(BadFilter) as refused:
        EventFilter(about="xyzw")
    assert refused.value.field == "about"
