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
        if not wait:
            if timeout_seconds is not None:
                raise click.UsageError("--timeout: only --wait has a use for it")
            show(invocation, invocation.call(role, "stop"), lists.stopping)
            return
        home = invocation.home_of(role)
        give_up = time.monotonic() + (timeout_seconds or WAIT_SECONDS)
        try:
            invocation.call(role, "stop")
        except DaemonNotRunning:
            # One that is on its way out answers nobody any more, and still has its journal.
            if not _is_held(home):
                raise
        while _is_held(home):
            if time.monotonic() > give_up:
                raise CommandFailed(
                    "still_stopping",
                    f"a process still holds {home} after {timeout_seconds or WAIT_SECONDS} s",
                    retryable=True,
                    remediation="It ends when what it has begun is on its disk: wait again, and "
                    "look at its log.",
                )
            time.sleep(POLL_SECONDS)
        show(invocation, {"stopped": True}, lists.stopped)

    return stop


def _is_held(home: Path) -> bool:
    """Say whether a process has the journal of a directory; nothing is made there."""
    from cromford.adapters.sqlite import is_locked  # noqa: PLC0415 - SQLite; only --wait needs it

    return is_locked(home)
