"""`events`: what happened to a daemon, numbered for ever, alike for both roles."""

from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec
from rich.console import Console

from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown.output import cell, show, stdout_console

# A daemon that stops waits for the answers it owes, so none is owed for long.
FOLLOW_WAIT_SECONDS: Final = 3.0
NUMBER_WIDTH: Final = 6
EVENT_WIDTH: Final = 24
_SHOWN_APART: Final = frozenset({"number", "event"})
Document = dict[str, Any]


def events_command(role: str) -> click.Command:
    """Return the command `events` of a role."""

    @click.command()
    @click.option(
        "--after",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Only those with a greater number.",
    )
    @click.option("--follow", is_flag=True, help="Go on as they happen, until Ctrl-C.")
    @invocation_options
    @click.pass_obj
    def events(invocation: Invocation, /, *, after: int, follow: bool) -> None:
        """Show what happened, in order. The numbers are the same for ever.

        A reader that remembers the last number misses nothing and sees nothing twice. With --follow
        and --json each line is one JSON document.
        """
        if follow:
            _follow(invocation, role, after)
        else:
            found = [event for page in _pages(invocation, role, after) for event in page]
            show(invocation, {"events": found}, print_events)

    return events


def _pages(invocation: Invocation, role: str, after: int) -> Iterator[list[Document]]:
    """Yield the events that there are, as many at a time as the daemon tells."""
    while page := _ask(invocation, role, after, wait_seconds=0.0):
        yield page
        after = page[-1]["number"]


def _follow(invocation: Invocation, role: str, after: int) -> None:
    console = stdout_console()
    try:
        while True:
            for event in _ask(invocation, role, after, wait_seconds=FOLLOW_WAIT_SECONDS):
                after = event["number"]
                if invocation.is_json:
                    click.echo(msgspec.json.encode(event))
                else:
                    print_event(console, event)
    except KeyboardInterrupt:
        return  # That is how following ends.


def _ask(invocation: Invocation, role: str, after: int, *, wait_seconds: float) -> list[Document]:
    answer = invocation.call(role, "events", after=after, wait_seconds=wait_seconds)
    found: list[Document] = answer["events"]
    return found


def print_events(console: Console, answer: Document) -> None:
    """Print events, one to a line."""
    for event in answer["events"]:
        print_event(console, event)
    if not answer["events"]:
        console.print("no events")


def print_event(console: Console, event: Document) -> None:
    """Print one event: its number, its name, and the rest as `name=value`."""
    told = " ".join(
        f"{name}={_text(value)}" for name, value in event.items() if name not in _SHOWN_APART
    )
    line = f"{event['number']:>{NUMBER_WIDTH}}  {event['event']:<{EVENT_WIDTH}}  {told}"
    console.print(cell(line.rstrip()), soft_wrap=True)


def _text(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f'"{text}"' if " " in text else text
