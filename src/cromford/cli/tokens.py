"""`token`: who may ask a daemon over TCP, and for what."""

import click

from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import tokens as shown
from cromford.cli.shown.output import show
from cromford.daemon.api.operations import Scope


def token_group(role: str) -> click.Group:
    """Return the commands `token` of a role."""

    @click.group(name="token")
    def token() -> None:
        """Make, list and revoke bearer tokens: who may ask this daemon over TCP.

        On its unix socket the daemon asks for no token: the file's permissions are the key. Over
        TCP, which --api-listen switches on, each request needs one.
        """

    @token.command(name="add")
    @click.option("--name", required=True, help="What to call it.")
    @click.option(
        "--scope",
        "scopes",
        type=click.Choice([str(scope) for scope in Scope]),
        multiple=True,
        required=True,
        help="What it may be used for; may be given several times. Whoever may receive may read, "
        "whoever may spend may do both, and whoever may operate may do everything.",
    )
    @invocation_options
    @click.pass_obj
    def add(invocation: Invocation, /, *, name: str, scopes: tuple[str, ...]) -> None:
        """Make a token, and show it: this once, for only a hash of it is kept."""
        answer = invocation.call(role, "token_add", name=name, scopes=list(scopes))
        show(invocation, answer, shown.made)

    @token.command(name="list")
    @invocation_options
    @click.pass_obj
    def list_tokens(invocation: Invocation) -> None:
        """List the tokens there are, and what each may be used for."""
        show(invocation, invocation.call(role, "tokens"), shown.listed)

    @token.command(name="revoke")
    @click.argument("name")
    @invocation_options
    @click.pass_obj
    def revoke(invocation: Invocation, /, *, name: str) -> None:
        """Refuse a token from now on."""
        show(invocation, invocation.call(role, "token_revoke", name=name), shown.revoked)

    return token
