"""`cromford regtest`: a Bitcoin regtest node in the foreground, for trying and testing."""

from pathlib import Path
from typing import Final

import click

from cromford.cli.failures import CommandFailed, expanded
from cromford.cli.invocation import HOME, Invocation, json_option
from cromford.cli.named import NamedPath
from cromford.cli.shown import lists
from cromford.cli.shown.output import show

PORT_DEFAULT: Final = 18443  # Bitcoin Core's own on regtest.
PORT_MAX: Final = 0xFFFF


@click.command(name="regtest")
@click.option(
    "--datadir",
    type=NamedPath(file_okay=False, path_type=Path),
    help=f"Where the cookie and the blocks are kept.  [default: {HOME}/regtest-node]",
)
@click.option(
    "--port",
    type=click.IntRange(0, PORT_MAX),
    default=PORT_DEFAULT,
    show_default=True,
    help="The TCP port on 127.0.0.1; 0 takes any that is free.",
)
@json_option
@click.pass_obj
def command(invocation: Invocation, datadir: Path | None, port: int) -> None:
    """Run a Bitcoin regtest node, never for real money.

    It answers Bitcoin Core's JSON-RPC, with a cookie, on 127.0.0.1. Blocks are validated by Core's
    own consensus code. It has no peers and no wallet, and its coins are worth nothing.

    Once it answers, it says where on stdout. Stop it with Ctrl-C.
    """
    invocation.refuse("--config", "--network")
    # The consensus library takes a while to load, and only this command needs it.
    from cromford.regtest import node  # noqa: PLC0415 - see above
    from cromford.regtest.journal import DatadirBusy  # noqa: PLC0415 - see above
    from cromford.regtest.kernel import KernelUnavailable  # noqa: PLC0415 - see above
    from cromford.regtest.server import ServerFailed  # noqa: PLC0415 - see above

    def started(running: node.RegtestNode) -> None:
        where = {
            "url": running.url,
            "cookie_file": str(running.cookie_file),
            "warning": node.NEVER_FOR_REAL_MONEY,
        }
        show(invocation, where, lists.regtest_started)

    place = datadir
    if place is None and "--datadir" in invocation.typed:
        place = invocation.datadir
    try:
        node.run(
            expanded(place or HOME / "regtest-node").absolute(),
            port=port,
            on_started=started,
        )
    except (DatadirBusy, ServerFailed, KernelUnavailable) as error:
        raise CommandFailed("regtest_failed", str(error)) from error
