"""`cromford agent`: run an exit agent, hand it packages, take them back."""

from pathlib import Path
from typing import Any, Final

import click

from cromford.bitcoin.network import MAINNET
from cromford.cli.configuration.run_options import MAINNET_WARNING, agent_options
from cromford.cli.configuration.settings import flags_of
from cromford.cli.hanging_up import log_level_again
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import NamedPath
from cromford.cli.package_file import package_text
from cromford.cli.shown import packages
from cromford.cli.shown.output import show
from cromford.cli.stopping import stop_command

ROLE: Final = "agent"


@click.group(name=ROLE)
def command() -> None:
    """Run an exit agent: it publishes other people's exits at their deadlines.

    It holds no key and no coin. It helps as long as what the packages pay is enough for the node's
    mempool: nothing raises a fee.
    """


@command.command()
@flags_of("chain", "log", "agent")
@invocation_options
@click.pass_obj
def run(
    invocation: Invocation,
    /,
    **flags: Any,  # noqa: ANN401 - the options of `flags_of`
) -> None:
    """Run the agent's daemon in the foreground. Its log goes to stderr.

    What no flag says is taken from the environment, then from the configuration: see `cromford
    config dump`.
    """
    options = agent_options(invocation.settings_of(ROLE, flags), invocation.datadir_of(ROLE))
    if options.network == MAINNET:
        click.echo(MAINNET_WARNING, err=True)
    from cromford.cli import daemons  # noqa: PLC0415 - all of a daemon; no other command needs it

    with log_level_again(lambda: str(invocation.settings_of(ROLE, flags)["log.level"])):
        daemons.run_agent(options)


@command.command()
@click.argument("file", type=NamedPath(dir_okay=False, path_type=Path))
@invocation_options
@click.pass_obj
def add(invocation: Invocation, file: Path) -> None:
    """Hold a package: FILE, as `cromford client exit export` writes it.

    It is taken if its funding is confirmed and unspent, and every signature in it verifies. Whoever
    has a package can start that exit any day, and sees its amounts.
    """
    answer = invocation.call(ROLE, "add", package=package_text(file))
    show(invocation, answer, packages.added)


@command.command(name="list")
@invocation_options
@click.pass_obj
def list_packages(invocation: Invocation) -> None:
    """List the packages: the deadline of each, and what is done next."""
    show(invocation, invocation.call(ROLE, "list"), packages.held)


@command.command()
@click.argument("package_id", metavar="ID")
@invocation_options
@click.pass_obj
def withdraw(invocation: Invocation, package_id: str) -> None:
    """Give a package back: nothing of it is published from now on.

    ID is a package's id, or its beginning if that is unique. Only the agent's operator withdraws;
    whoever merely has a copy of the package does not. A client that moved its money asks for it, or
    it is brought on chain at the deadline.
    """
    answer = invocation.call(ROLE, "withdraw", package_id=package_id)
    show(invocation, answer, packages.withdrawn)


@command.command()
@invocation_options
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show the daemon: which kind of agent it is, its chain, and how much it holds."""
    show(invocation, invocation.call(ROLE, "status"), packages.agent_status)


command.add_command(stop_command(ROLE, consequence=" While it is down, nothing is published."))
