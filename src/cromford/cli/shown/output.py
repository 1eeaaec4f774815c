"""Answers on stdout: for people, or as one JSON document. Amounts and lengths carry their unit."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cromford import told
from cromford.cli.failures import CommandFailed, printable
from cromford.cli.invocation import Invocation
from cromford.cli.shown.listing import Listing
from cromford.picture.timeline import OVER
from cromford.told import counted

# Wide enough for every table of ours, so that what is piped onwards is not wrapped.
WIDTH_WITHOUT_TERMINAL: Final = 240
# Blocks before the exit deadline at which listings become louder.
DEADLINE_NEAR_BLOCKS: Final = 1008
DEADLINE_URGENT_BLOCKS: Final = 144
BLOCKS_PER_DAY: Final = 144
SHORT_ID_SIZE: Final = 12

Printer = Callable[[Console, Any], None]


def show(invocation: Invocation, document: object, printer: Printer) -> None:
    """Write a result to stdout: the document itself with `--json`, else as `printer` prints it.

    Raises:
        CommandFailed: If what is printed is not in it, as after an upgrade under a daemon that
            runs on.
    """
    if invocation.is_json:
        write_json(document)
        return
    try:
        printer(stdout_console(), document)
    except KeyError as error:
        raise CommandFailed(
            "daemon_outdated",
            f"the daemon is of another version: its answer lacks {error.args[0]!r}",
            remediation="What was asked for was done. Stop the daemon, and start it again with "
            "this version; `--json` shows an answer as it is.",
        ) from error


def write_json(document: object) -> None:
    """Write one JSON document to stdout, in UTF-8 (RFC 8259) whatever a terminal reads."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def stdout_console() -> Console:
    """Return a console that takes text as it is: what a peer sent is no markup."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """Return the console for progress."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:  # noqa: ANN401 - a test's double is no TextIO
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def table(*headings: str) -> Table:
    """Return an empty table in the style of all listings."""
    return Listing(*headings)


def cell(value: object, style: str = "") -> Text:
    """Return a value as table text; nothing in it steers the terminal."""
    return Text("-" if value is None else one_line(str(value)), style=style)


def one_line(text: str) -> str:
    """Return text that cannot steer a terminal, nor pretend to be a line of ours."""
    return printable(text).replace("\n", "?")


def sat(amount_sat: int | None) -> str:
    """Return an amount with its unit, or a dash while it is not known."""
    return "-" if amount_sat is None else told.sat(amount_sat)


def msat(amount_msat: int | None) -> str:
    """Return an amount of millisatoshi with its unit: in sat where it is whole."""
    return "-" if amount_msat is None else told.msat(amount_msat)


def blocks(n: int) -> str:
    """Return a length in blocks with its unit."""
    return counted(n, "block")


def days(n_blocks: int) -> str:
    """Return about how many days a number of blocks takes."""
    return f"about {n_blocks / BLOCKS_PER_DAY:.1f} days"


def moment(unix_time: int) -> str:
    """Return a moment, given in seconds since 1970, UTC."""
    return f"{datetime.fromtimestamp(unix_time, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"


def local_time(unix_time: int | None) -> str:
    """Return a moment by this machine's clock, with its zone; a dash if it is not known."""
    if unix_time is None:
        return "-"
    return f"{datetime.fromtimestamp(unix_time, tz=UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def short(identifier: str | None) -> str:
    """Return the beginning of a long id; daemons accept it wherever it is unique."""
    return "-" if identifier is None else identifier[:SHORT_ID_SIZE]


def facts(console: Console, rows: list[tuple[str, object]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(cell(f"{name:<{width}}  {value}"), soft_wrap=True)


def is_over(factory: dict[str, Any]) -> bool:
    """Say whether a factory has no deadline any more."""
    return factory["status"] in OVER


def expiry_text(factory: dict[str, Any]) -> Text:
    """Return the blocks left to the exit deadline and to the expiry, louder as they run out."""
    left = factory.get("blocks_to_expiry")
    if left is None:
        return Text("-")
    if factory["exit_deadline_height"] is None:
        return Text("does not expire")
    to_deadline = left - (factory["expiry_height"] - factory["exit_deadline_height"])
    if left <= 0:
        return Text(f"EXPIRED at height {factory['expiry_height']:,}", style="bold red")
    if to_deadline <= 0:
        return Text(f"EXIT DEADLINE PASSED, expiry in {blocks(left)}", style="bold red")
    told = f"exit within {blocks(to_deadline)}, expiry in {blocks(left)}"
    if to_deadline <= DEADLINE_URGENT_BLOCKS:
        return Text(f"URGENT: {told}", style="bold red")
    if to_deadline <= DEADLINE_NEAR_BLOCKS:
        return Text(f"SOON: {told}", style="bold yellow")
    return Text(told)
