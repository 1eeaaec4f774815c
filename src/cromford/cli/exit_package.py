"""`client exit export` and `broadcast`: an exit for somebody, or some other day, to publish."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from cromford.answers.packages import BroadcastPackage
from cromford.cli.asking import confirm
from cromford.cli.configuration.run_options import allowed_network, chain_of, signet_challenge
from cromford.cli.configuration.settings import flags_of
from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import NamedPath
from cromford.cli.package_file import invalid_package, package_bytes
from cromford.cli.shown import packages
from cromford.cli.shown.output import sat, show, stdout_console, write_json
from cromford.ports import ChainUnavailable
from cromford.told import counted

if TYPE_CHECKING:
    from cromford.watch.package import ExitPackage

ROLE: Final = "client"


@click.command()
@click.argument("factory_id", metavar="[ID]", required=False)
@invocation_options
@click.pass_obj
def export(invocation: Invocation, factory_id: str | None) -> None:
    """Write the way out as one JSON document, for an agent or another machine to publish.

    It holds the signed transactions down to the channel and no key. Whoever has it can start the
    exit any day, and sees its amounts; nobody can change where the money goes. Once the exit has
    been started it holds the commitment too: before, the next payment would revoke that.
    """
    write_json(invocation.call(ROLE, "exit_export", factory_id=factory_id))


@click.command()
@click.argument("file", type=NamedPath(dir_okay=False, path_type=Path))
@click.option("--watch", is_flag=True, help="Go on block by block until the channel is on chain.")
@click.option("--yes", is_flag=True, help="Do not ask: what is published stays published.")
@flags_of("chain")
@invocation_options
@click.pass_obj
def broadcast(
    invocation: Invocation,
    /,
    file: Path,
    *,
    watch: bool,
    yes: bool,
    **flags: Any,  # noqa: ANN401 - the options of `flags_of`
) -> None:
    """Leave by an exported package: FILE, and a node. No daemon, no data directory, no key.

    The package is checked, and what can be in the next block is published. It says what it did,
    what it waits for, and until which height; run it again then, from any half-published state, or
    let it go on with --watch. With --watch and --json each line is one JSON document.
    """
    from cromford.watch.package_reading import (  # noqa: PLC0415 - see `package_file`
        InvalidPackage,
        read_package,
    )

    if flags["chain_poll_seconds"] is not None and not watch:
        raise click.UsageError("--poll-seconds: only --watch has a use for it")
    values = invocation.settings_of(ROLE, flags)
    network = allowed_network(values)
    chain = chain_of(values, network)
    try:
        package = read_package(package_bytes(file), network)
    except InvalidPackage as error:
        raise invalid_package(error) from error
    _ask_first(invocation, package, yes=yes)
    from cromford.agent import broadcasting  # noqa: PLC0415 - a node's adapter; see `daemons`
    from cromford.cli import daemons  # noqa: PLC0415 - as a daemon's start

    async def publish() -> BroadcastPackage:
        challenge = signet_challenge(values, network)
        async with broadcasting.node_of(chain, network, signet_challenge=challenge) as node:
            if not watch:
                return await broadcasting.broadcast_once(node, package)
            return await broadcasting.broadcast_to_the_end(
                node,
                package,
                poll_seconds=float(values["chain.poll_seconds"]),
                told=lambda document: _tell(invocation, document),
            )

    try:
        with daemons.node_failures():
            document = asyncio.run(publish())
    except InvalidPackage as error:
        raise invalid_package(error) from error
    except ChainUnavailable as error:
        raise CommandFailed("chain_unavailable", str(error), retryable=True) from error
    if not watch:
        show(invocation, document, packages.broadcast)
    _check_end(document)


def _ask_first(invocation: Invocation, package: "ExitPackage", *, yes: bool) -> None:
    go = counted(len(package.steps), "transaction goes", "transactions go")
    told = f"{go} on chain, down to a channel of {sat(package.channel_txout.amount_sat)}"
    confirm(
        invocation,
        f"An exit cannot be taken back: {told}. Publish them?",
        yes=yes,
        why=f"an exit cannot be taken back: {told}",
        remediation="Add --yes.",
    )


def _tell(invocation: Invocation, document: BroadcastPackage) -> None:
    if invocation.is_json:
        click.echo(msgspec.json.encode(document))
    else:
        packages.progress(stdout_console(), document)


def _check_end(document: BroadcastPackage) -> None:
    """Fail where nothing was published that should have been.

    Raises:
        CommandFailed: Saying why.
    """
    if document["refused"] is not None:
        raise CommandFailed(
            "tx_refused",
            f"the node refused a transaction: {document['refused']}",
            retryable=True,
            remediation="If it pays too little for today's mempools, try again at a later block: "
            "nothing but its anchors raises its fee here.",
        )
    if document["status"] == "nothing_found":
        raise CommandFailed(
            "nothing_found",
            f"no output of the path is unspent at height {document['height']}: the funding is not "
            "confirmed, or the factory is over",
            retryable=True,
        )
