"""`webhook`: who is told what happens to a daemon without asking."""

import click

from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import webhooks as shown
from cromford.cli.shown.output import show


def webhook_group(role: str) -> click.Group:
    """Return the commands `webhook` of a role."""

    @click.group(name="webhook")
    def webhook() -> None:
        """Make, list and remove webhooks: addresses to which events are posted as they happen.

        Each event is posted as JSON, signed as the Standard Webhooks say, in order, and again until
        it is answered with a status of 200 to 299.
        """

    @webhook.command(name="add")
    @click.argument("name")
    @click.argument("url")
    @click.option(
        "--only",
        metavar="EVENT",
        multiple=True,
        help="Only events of this name; may be given several times.",
    )
    @invocation_options
    @click.pass_obj
    def add(invocation: Invocation, /, *, name: str, url: str, only: tuple[str, ...]) -> None:
        """Post what happens from now on to URL, and show the secret of the signatures: this once.

        URL is https://HOST[:PORT][/PATH], or http:// to an address of this machine alone.
        """
        answer = invocation.call(role, "webhook_add", name=name, url=url, only=list(only) or None)
        show(invocation, answer, shown.made)

    @webhook.command(name="list")
    @invocation_options
    @click.pass_obj
    def list_webhooks(invocation: Invocation) -> None:
        """List the webhooks there are, and how each goes."""
        show(invocation, invocation.call(role, "webhooks"), shown.listed)

    @webhook.command(name="remove")
    @click.argument("name")
    @invocation_options
    @click.pass_obj
    def remove(invocation: Invocation, /, *, name: str) -> None:
        """Post nothing more to the address of a webhook, and forget its secret."""
        show(invocation, invocation.call(role, "webhook_remove", name=name), shown.removed)

    return webhook
