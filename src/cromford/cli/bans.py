"""`cromford lsp bans`: to whom the lobby is closed."""

from typing import Final

import click

from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import bans as shown
from cromford.cli.shown.output import show
from cromford.protocol.policy import BAN_BLOCKS_MAX

ROLE: Final = "lsp"
BLOCKS: Final = 144  # As long as three faults close it: a day.


@click.group(name="bans")
def bans_group() -> None:
    """See to whom the lobby is closed, close it to a node, or open it again.

    A ban is about new factories: channels that a node has go on, and so does a ceremony that it is
    in. Who is banned and wants to join is told why, and until which height.
    """


@bans_group.command(name="list")
@invocation_options
@click.pass_obj
def list_bans(invocation: Invocation) -> None:
    """List to whom the lobby is closed, by you or by the rules, and until when."""
    show(invocation, invocation.call(ROLE, "bans"), shown.bans)


@bans_group.command(name="add")
@click.argument("node_id", metavar="NODE_ID")
@click.option(
    "--blocks",
    type=click.IntRange(1, BAN_BLOCKS_MAX),
    default=BLOCKS,
    show_default=True,
    help="For how long. A ban before this one is replaced.",
)
@click.option("--reason", required=True, help="Why; the node is told. At most 200 bytes.")
@invocation_options
@click.pass_obj
def add_ban(invocation: Invocation, /, *, node_id: str, blocks: int, reason: str) -> None:
    """Close the lobby to a node. It is remembered over restarts."""
    answer = invocation.call(ROLE, "ban_add", node_id=node_id, blocks=blocks, reason=reason)
    show(invocation, answer, shown.banned)


@bans_group.command(name="remove")
@click.argument("node_id", metavar="NODE_ID")
@invocation_options
@click.pass_obj
def remove_ban(invocation: Invocation, /, *, node_id: str) -> None:
    """Open the lobby to a node again, whoever or whatever closed it.

    Faults that were proven against it do not count any more.
    """
    show(invocation, invocation.call(ROLE, "ban_remove", node_id=node_id), shown.unbanned)
