"""`cromford ROLE rescan`: read blocks again that were missed; alike for both roles."""

import click

from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import lists
from cromford.cli.shown.output import show


def rescan_command(role: str) -> click.Command:
    """Return the command for a role's daemon."""

    @click.command()
    @click.option(
        "--from",
        "from_height",
        metavar="HEIGHT",
        type=click.IntRange(min=1),
        required=True,
        help="The first block to read again.",
    )
    @invocation_options
    @click.pass_obj
    def rescan(invocation: Invocation, from_height: int) -> None:
        """Read blocks again from a height: coins and transactions that were missed are seen.

        Until it is through, the chain counts as stale: no new payment is taken on, no factory
        joined. Nothing is lost by it, and it may be asked again. The node must still have the
        blocks.
        """
        show(invocation, invocation.call(role, "rescan", from_height=from_height), lists.rescanning)

    return rescan
