"""`cromford ROLE stop`: alike for all roles; with `--wait` it ends when the daemon has."""

import time
from pathlib import Path
from typing import Final

import click

from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import lists
from cromford.cli.shown.output import show
from cromford.daemon.api.failures import DaemonNotRunning

WAIT_SECONDS: Final = 60
WAIT_SECONDS_MAX: Final = 3600
POLL_SECONDS: Final = 0.1


def stop_command(role: str, *, consequence: str = "") -> click.Command:
    """Return the command for a role's daemon; `consequence` is what its help says of being down."""

    @click.command(help=f"Stop the daemon.{consequence}")
    @click.option("--wait", is_flag=True, help="Wait until it has let go of its data directory.")
    @click.option(
        "--timeout",
        "timeout_seconds",
        metavar="SECONDS",
        type=click.IntRange(1, WAIT_SECONDS_MAX),
        help=f"With --wait: no longer than that.  [default: {WAIT_SECONDS}]",
    )
    @invocation_options
    @click.pass_obj
    def stop(invocation: Invocation, *, wait: bool, timeout_seconds: int | None) -> None:
        if timeout_seconds is not None and not wait:
            raise click.UsageError("--timeout: only --wait has a use for it")
        home = invocation.home_of(role)
        if not wait:
            try:
                show(invocation, invocation.call(role, "stop"), lists.stopping)
            except DaemonNotRunning:
                if _is_held(home):
                    raise _silent(home) from None
                raise
            return
        _stop_and_wait(invocation, role, home, seconds=timeout_seconds or WAIT_SECONDS)
        show(invocation, {"stopped": True}, lists.stopped)

    return stop


def _stop_and_wait(invocation: Invocation, role: str, home: Path, *, seconds: int) -> None:
    """Ask a daemon to stop, as soon as it can be asked, and return once nobody has its journal.

    Raises:
        DaemonNotRunning: If nobody has it.
        CommandFailed: If somebody still has it when the time is up.
    """
    give_up = time.monotonic() + seconds
    is_asked = was_held = False
    while True:
        if not is_asked:
            try:
                invocation.call(role, "stop")
                is_asked = True
            except DaemonNotRunning:
                # One that folds its journal cannot be asked yet, and one that is on its way out
                # answers nobody any more: both hold it.
                if not was_held and not _is_held(home):
                    raise
        if not _is_held(home):
            return
        was_held = True
        if time.monotonic() > give_up:
            raise _still_held(home, seconds) if is_asked else _silent(home)
        time.sleep(POLL_SECONDS)


def _still_held(home: Path, seconds: int) -> CommandFailed:
    return CommandFailed(
        "still_stopping",
        f"a process still holds {home} after {seconds} s",
        retryable=True,
        remediation="It ends when what it has begun is on its disk: wait again, and look at its "
        "log.",
    )


def _silent(home: Path) -> CommandFailed:
    return CommandFailed(
        "daemon_busy",
        f"a process holds {home}, and takes no connection: it starts, or ends",
        retryable=True,
        remediation="It was not asked to stop. Try again, or with --wait, which asks it as soon as "
        "it can be asked.",
    )


def _is_held(home: Path) -> bool:
    """Say whether a process has the journal of a directory; nothing is made there."""
    from cromford.adapters.sqlite import is_locked  # noqa: PLC0415 - SQLite; else nobody needs it

    return is_locked(home)
