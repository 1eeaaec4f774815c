"""`events`: what happened to a daemon, in order, alike for both roles."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
import msgspec
from rich.console import Console

from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import Id
from cromford.cli.shown.output import cell, local_time, show, stdout_console

# A daemon that stops waits for the answers it owes, so none is owed for long.
FOLLOW_WAIT_SECONDS: Final = 3.0
CURSOR_WIDTH: Final = 14
EVENT_WIDTH: Final = 24
TIME_WIDTH: Final = 24
_SHOWN_APART: Final = frozenset({"cursor", "event", "at"})
Document = dict[str, Any]


def events_command(role: str) -> click.Command:
    """Return the command `events` of a role."""

    @click.command()
    @click.option(
        "--after",
        metavar="CURSOR",
        default="",
        help="Only those that follow the event with this cursor.",
    )
    @click.option(
        "--only",
        metavar="EVENT",
        multiple=True,
        help="Only events of this name; may be given several times.",
    )
    @click.option(
        "--about",
        metavar="ID",
        type=Id(),
        help="Only those that name this id, or one that begins so: of a factory, a channel, a "
        "payment or a node.",
    )
    @click.option("--follow", is_flag=True, help="Go on as they happen, until Ctrl-C.")
    @invocation_options
    @click.pass_obj
    def events(
        invocation: Invocation,
        /,
        *,
        after: str,
        only: tuple[str, ...],
        about: str | None,
        follow: bool,
    ) -> None:
        """Show what happened, in order, each with when, and a cursor that names its place for ever.

        A reader that remembers the last cursor misses nothing and sees nothing twice, also over
        restarts. The newest 10,000 events are kept: a reader that comes later is told so
        (`events_expired`), and never skips what is gone in silence. With --follow and --json each
        line is one JSON document.
        """
        which: dict[str, object] = {"only": list(only) or None, "about": about}
        if follow:
            _follow(invocation, role, after, which)
        else:
            found = [event for page in _pages(invocation, role, after, which) for event in page]
            show(invocation, {"events": found}, print_events)

    return events


def _pages(
    invocation: Invocation, role: str, after: str, which: Mapping[str, object]
) -> Iterator[list[Document]]:
    """Yield the events that there are, as many at a time as the daemon tells."""
    while True:
        page, after = events_after(invocation, role, after, wait_seconds=0.0, **which)
        if not page:
            return
        yield page


def _follow(invocation: Invocation, role: str, after: str, which: Mapping[str, object]) -> None:
    console = stdout_console()
    try:
        while True:
            found, after = events_after(
                invocation, role, after, wait_seconds=FOLLOW_WAIT_SECONDS, **which
            )
            for event in found:
                if invocation.is_json:
                    click.echo(msgspec.json.encode(event))
                else:
                    print_event(console, event)
    except KeyboardInterrupt:
        return  # That is how following ends.


def events_after(
    invocation: Invocation, role: str, after: str, *, wait_seconds: float, **which: object
) -> tuple[list[Document], str]:
    """Return the next events after a cursor, and the cursor to go on from.

    Args:
        invocation: The run of the command.
        role: Whose events.
        after: What is remembered of those that were seen; empty for none.
        wait_seconds: How long to wait for the first.
        which: What they are filtered by, as the API takes it.

    Raises:
        ApiFailure: If there is no daemon, or it refused.
    """
    answer = invocation.call(role, "events", after=after, wait_seconds=wait_seconds, **which)
    return answer["events"], answer["cursor"]


def print_events(console: Console, answer: Document) -> None:
    """Print events, one to a line."""
    for event in answer["events"]:
        print_event(console, event)
    if not answer["events"]:
        console.print("no events")


def print_event(console: Console, event: Document) -> None:
    """Print one event: its cursor, when it was, its name, and the rest as `name=value`."""
    told = " ".join(
        f"{name}={_text(value)}" for name, value in event.items() if name not in _SHOWN_APART
    )
    when = f"{local_time(event.get('at')):<{TIME_WIDTH}}"
    line = f"{event['cursor']:<{CURSOR_WIDTH}}  {when}  {event['event']:<{EVENT_WIDTH}}  {told}"
    console.print(cell(line.rstrip()), soft_wrap=True)


def _text(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f'"{text}"' if " " in text else text
