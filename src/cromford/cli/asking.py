"""Asking before something that cannot be taken back, where there is somebody to ask."""

import sys
from typing import Final

import click

from cromford.cli.failures import EXIT_NEEDS_CONFIRMATION, CommandFailed
from cromford.cli.invocation import Invocation

STALE_WARNING: Final = (
    "WARNING: this store was restored from a backup. If its commitment was revoked since that was "
    "made, the peer takes ALL of the channel with it, and nothing takes that back. Do it only "
    "where the peer is gone for good."
)
stale_option = click.option(
    "--publish-stale-commitment",
    is_flag=True,
    help="Of a restored store: publish its commitment, too. If revoked, the peer takes all.",
)


def warned_of_stale(publishes: bool) -> dict[str, bool]:  # noqa: FBT001 - it is the flag itself
    """Warn of the penalty where a commitment may be revoked; return what is asked of the daemon."""
    if not publishes:
        return {}
    click.echo(STALE_WARNING, err=True)
    return {"publish_stale_commitment": True}


def can_ask(invocation: Invocation) -> bool:
    """Say whether a person sits there: a terminal on both sides, and nobody who wants JSON."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not invocation.is_json


def confirm(
    invocation: Invocation, question: str, *, yes: bool, why: str, remediation: str
) -> None:
    """Go on only if the answer is yes. The question goes to stderr.

    Args:
        invocation: The run of the command.
        question: What is asked.
        yes: Whether it was answered on the command line already.
        why: What to say where nobody can be asked: why it is asked at all.
        remediation: And what to do.

    Raises:
        CommandFailed: If nobody can be asked.
        click.Abort: If the answer is no.
    """
    if yes:
        return
    if not can_ask(invocation):
        raise CommandFailed(
            "needs_confirmation",
            why,
            remediation=remediation,
            exit_code=EXIT_NEEDS_CONFIRMATION,
        )
    click.confirm(question, abort=True, err=True)


def confirm_fee(invocation: Invocation, told: str, *, add: str = "--yes") -> None:
    """Go on only if the operator agrees to a transaction that pays a fee: it stays paid.

    Args:
        invocation: The run of the command.
        told: What is paid.
        add: What the command has to say where nobody can be asked.

    Raises:
        CommandFailed: If nobody can be asked.
        click.Abort: If the answer is no.
    """
    confirm(
        invocation,
        f"{told[0].upper()}{told[1:]}. Publish it?",
        yes=False,
        why=f"a fee that is paid stays paid: {told}",
        remediation=f"Look at it with --dry-run, then add {add}.",
    )
