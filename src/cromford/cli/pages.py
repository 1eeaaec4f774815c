"""Lists that come in pages: their options, and going through them."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, TypeVar

import click

from cromford.cli.invocation import Invocation
from cromford.daemon.api.payment_limits import LIMIT, LIMIT_MAX

_Command = TypeVar("_Command", bound=Callable[..., Any])
Document = dict[str, Any]


class DayOrTime(click.ParamType[int]):
    """A day or a moment. Its value is in unix seconds."""

    name = "TIME"
    expected: Final = (
        "a day as in 2026-11-29, a moment as in 2026-11-29T16:00:00, with Z or an offset for "
        "another zone than this machine's, or unix seconds"
    )

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the moment in unix seconds; without a zone it is this machine's time."""
        text = str(value)
        if text.isascii() and text.isdecimal():
            return int(text)
        try:
            return int(datetime.fromisoformat(text).timestamp())
        except (ValueError, OverflowError, OSError):
            self.fail(f"expected {self.expected}, received {value!r}", param, ctx)


def page_options(what: str) -> Callable[[_Command], _Command]:
    """Return the options of a command that lists: which part of it, and how; `what` is its noun."""

    def added(command: _Command) -> _Command:
        options = (
            click.option(
                "--limit",
                metavar="N",
                type=click.IntRange(min=1),
                help=f"At most this many {what}.  [default: {LIMIT}; all with --csv]",
            ),
            click.option(
                "--after",
                metavar="CURSOR",
                default="",
                help="Only what follows the page that ended with this cursor.",
            ),
            click.option(
                "--since",
                metavar="TIME",
                type=DayOrTime(),
                help="Only what began then or later: a day, a moment, or unix seconds.",
            ),
            click.option(
                "--until", metavar="TIME", type=DayOrTime(), help="Only what began before."
            ),
            click.option(
                "--csv",
                "is_csv",
                is_flag=True,
                help="Write comma-separated values with a header row, as for a spreadsheet.",
            ),
        )
        for option in reversed(options):
            command = option(command)
        return command

    return added


def listed(
    invocation: Invocation,
    role: str,
    method: str,
    *,
    field: str,
    limit: int | None,
    is_csv: bool,
    after: str,
    **wanted: object,
) -> Document:
    """Return the first answer of a list, with as many entries as were asked for, of all its pages.

    Args:
        invocation: The run of the command.
        role: Whose list.
        method: What the daemon is asked.
        field: Under which name it answers with the entries.
        limit: How many at most; None for the default, or all of them as comma-separated values.
        is_csv: Whether they are written so.
        after: The cursor of the page before; empty to begin with the newest.
        wanted: What else the daemon is asked with; what is empty is left out.

    Raises:
        ApiFailure: If there is no daemon, or it refused.
        UsageError: If both JSON and comma-separated values are asked for, or a time without length.
    """
    if is_csv and invocation.is_json:
        raise click.UsageError("--csv: an answer is either JSON or comma-separated values")
    if limit is None and not is_csv:
        limit = LIMIT
    since, until = wanted.get("since"), wanted.get("until")
    if isinstance(since, int) and isinstance(until, int) and since >= until:
        raise click.UsageError(
            f"--since: expected an earlier time than that of --until, {until}, received {since}: "
            "nothing is in between"
        )
    asked = {name: value for name, value in wanted.items() if value not in {None, ""}}
    first: Document | None = None
    pages = _pages(invocation, role, method, field=field, left=limit, after=after, asked=asked)
    for answer in pages:
        if first is None:
            first = answer
        else:
            first[field] += answer[field]
            first["next"] = answer["next"]
    if first is None:
        raise AssertionError("a list has a first page")
    return first


def _pages(
    invocation: Invocation,
    role: str,
    method: str,
    *,
    field: str,
    left: int | None,
    after: str,
    asked: Document,
) -> Iterator[Document]:
    while True:
        size = LIMIT_MAX if left is None else min(left, LIMIT_MAX)
        answer = invocation.call(role, method, limit=size, after=after or None, **asked)
        yield answer
        after = answer.get("next") or ""
        left = None if left is None else left - len(answer[field])
        if not after or left == 0:
            return
