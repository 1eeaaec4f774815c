"""`cromford client`: run a client, join a factory, verify it, leave it."""

import sys
import time
from decimal import Decimal
from typing import Any, Final

import click

from cromford.adapters.peer_address import PeerAddress, parse_peer_address
from cromford.cli import lists, tree_view
from cromford.cli.failures import EXIT_FAILED, EXIT_NEEDS_CONFIRMATION, CommandFailed
from cromford.cli.output import show
from cromford.cli.run_options import (
    Feerate,
    daemon_options,
    network_of,
    sat_per_kw,
    take_daemon_options,
)
from cromford.cli.session import Session, session_options
from cromford.daemon.options import ClientOptions
from cromford.protocol.policy import ClientPolicy

ROLE: Final = "client"
JOIN_WAIT_SECONDS: Final = 3.0
JOIN_POLL_SECONDS: Final = 0.05
_DEFAULT: Final = ClientPolicy()


@click.group(name=ROLE)
def command() -> None:
    """Run a client: join a factory, verify it, leave it."""


class Peer(click.ParamType[PeerAddress]):
    """The LSP's address, with the node id that it has to prove."""

    name = "NODEID@HOST:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> PeerAddress:
        """Return the address."""
        try:
            return parse_peer_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@command.command()
@click.option(
    "--lsp", type=Peer(), required=True, help="Whose client this is; `lsp lobby` prints it."
)
@click.option(
    "--max-exit-delay",
    type=click.IntRange(min=1),
    default=_DEFAULT.exit_delay_blocks_max,
    show_default=True,
    help="Terms with a longer way out are refused; in blocks.",
)
@click.option(
    "--max-feerate",
    type=Feerate(),
    default="100",
    show_default=True,
    help="Terms whose tree pays more are refused; in sat/vB.",
)
@daemon_options
@session_options
@click.pass_obj
def run(
    session: Session,
    /,
    lsp: PeerAddress,
    max_exit_delay: int,
    max_feerate: Decimal,
    **given: Any,  # noqa: ANN401 - the options of `daemon_options`
) -> None:
    """Run the client's daemon in the foreground. Its log goes to stderr.

    The first start makes a seed in the data directory, readable by you only.
    """
    shared = take_daemon_options(given)
    network = network_of(session)
    feerate_min, _ = _DEFAULT.tree_feerate_sat_per_kw
    feerate_max = max(feerate_min, sat_per_kw(max_feerate))
    options = ClientOptions(
        datadir=session.datadir_of(ROLE).absolute(),
        network=network,
        chain=shared.chain(network),
        lsp=lsp,
        policy=ClientPolicy(
            exit_delay_blocks_max=max_exit_delay,
            max_cltv_blocks=_cltv_blocks(max_exit_delay),
            tree_feerate_sat_per_kw=(feerate_min, feerate_max),
        ),
        poll_seconds=shared.poll_seconds,
        log_level=shared.log_level,
        log_format=shared.log_format,
        metrics_port=shared.metrics_port,
        seed_passphrase_file=shared.seed_passphrase_file,
    )
    from cromford.cli import daemons  # noqa: PLC0415 - all of a daemon; no other command needs it

    daemons.run_client(options)


def _cltv_blocks(max_exit_delay_blocks: int) -> tuple[int, int]:
    """Return how long payments may be in flight, where ways out may take so long.

    A payment outlasts an exit at its beginning and one at its end, so who accepts a longer way out
    accepts this too.
    """
    least, most = _DEFAULT.max_cltv_blocks
    return least, most + 2 * max(0, max_exit_delay_blocks - _DEFAULT.exit_delay_blocks_max)


@command.command()
@click.option(
    "--capacity", type=click.IntRange(min=1), required=True, help="The channel you want, in sat."
)
@click.option(
    "--least", type=click.IntRange(min=1), help="The least you take, in sat.  [default: the same]"
)
@session_options
@click.pass_obj
def join(session: Session, capacity: int, least: int | None) -> None:
    """Ask for a channel, and wait for a factory in the LSP's lobby."""
    if least is not None and least > capacity:
        raise click.UsageError(f"--least {least} is above --capacity {capacity}")
    answer = session.call(ROLE, "join", capacity_sat=capacity, capacity_least_sat=least)
    if not answer["joined"]:
        answer = _await_the_lsp(session, answer)
    show(session, answer, lists.joined)


def _await_the_lsp(session: Session, answer: dict[str, Any]) -> dict[str, Any]:
    """Return what became of a wish, if the LSP answers soon: a refusal should not go unseen."""
    give_up = time.monotonic() + JOIN_WAIT_SECONDS
    while time.monotonic() < give_up:
        status = session.call(ROLE, "status")
        if status["refusal"]:
            raise CommandFailed(
                "join_refused",
                f"the LSP refused: {status['refusal']}",
                remediation="`cromford client status` shows what the LSP offers.",
            )
        if status["joined"] or not status["connected"]:
            return {"wish": status["wish"], "joined": status["joined"]}
        time.sleep(JOIN_POLL_SECONDS)
    return answer


@command.command()
@session_options
@click.pass_obj
def leave(session: Session) -> None:
    """Take the wish back and leave the lobby. Factories that exist are left by `exit`."""
    show(session, session.call(ROLE, "leave"), lists.left)


@command.command()
@session_options
@click.pass_obj
def status(session: Session) -> None:
    """Show the daemon: its LSP, chain, wallet and wish."""
    show(session, session.call(ROLE, "status"), lists.client_status)


@command.command()
@session_options
@click.pass_obj
def address(session: Session) -> None:
    """Show a fresh address of the client's own wallet."""
    show(session, session.call(ROLE, "address"), lists.address)


@command.command()
@session_options
@click.pass_obj
def factories(session: Session) -> None:
    """List the factories this client is or was in."""
    show(session, session.call(ROLE, "factories"), lists.client_factories)


_factory_argument = click.argument("factory_id", metavar="[ID]", required=False)


@command.command()
@_factory_argument
@session_options
@click.pass_obj
def factory(session: Session, factory_id: str | None) -> None:
    """Show the client's own branch of a factory, by default of the newest."""
    answer = session.call(ROLE, "factory", factory_id=factory_id)
    show(session, answer, tree_view.branch)


@command.command()
@_factory_argument
@session_options
@click.pass_obj
def verify(session: Session, factory_id: str | None) -> None:
    """Check a factory again, from the client's own store and its own chain."""
    answer = session.call(ROLE, "verify", factory_id=factory_id)
    show(session, answer, lists.verification)
    if not answer["ok"]:
        failed = [check["check"] for check in answer["checks"] if not check["ok"]]
        raise CommandFailed(
            "verification_failed",
            f"not as agreed: {', '.join(failed)}",
            remediation="Do not rely on this factory; see the checks above.",
            exit_code=EXIT_FAILED,
        )


@command.group(name="exit")
def exit_group() -> None:
    """Leave a factory by publishing the client's own branch."""


@exit_group.command()
@_factory_argument
@session_options
@click.pass_obj
def plan(session: Session, factory_id: str | None) -> None:
    """Show what leaving would take: transactions, fees, blocks, and what is next."""
    answer = session.call(ROLE, "exit_plan", factory_id=factory_id)
    show(session, answer, lists.exit_plan)


@exit_group.command()
@_factory_argument
@click.option("--yes", is_flag=True, help="Do not ask: what is published stays published.")
@session_options
@click.pass_obj
def start(
    session: Session,
    factory_id: str | None,
    yes: bool,  # noqa: FBT001 - click passes every option by keyword
) -> None:
    """Leave: publish the branch, step by step, as the chain allows.

    This cannot be taken back, and every client above the leaf sees its part of the tree published.
    """
    if not yes:
        _confirm_exit(session)
    show(session, session.call(ROLE, "exit_start", factory_id=factory_id), lists.exit_started)


def _confirm_exit(session: Session) -> None:
    can_ask = sys.stdin.isatty() and sys.stderr.isatty() and not session.is_json
    if not can_ask:
        raise CommandFailed(
            "needs_confirmation",
            "an exit cannot be taken back once a transaction is published",
            remediation="Look at `cromford client exit plan`, then add --yes.",
            exit_code=EXIT_NEEDS_CONFIRMATION,
        )
    click.confirm("An exit cannot be taken back. Publish the branch?", abort=True, err=True)


@command.command()
@session_options
@click.pass_obj
def stop(session: Session) -> None:
    """Stop the daemon."""
    show(session, session.call(ROLE, "stop"), lists.stopping)
