"""`cromford client`: run a client, join a factory, pay and be paid, verify it, leave it."""

import time
from pathlib import Path
from typing import Any, Final

import click

from cromford.bitcoin.network import MAINNET
from cromford.cli import exit_package
from cromford.cli.asking import confirm, stale_option, warned_of_stale
from cromford.cli.backup import backup_group
from cromford.cli.configuration.run_options import MAINNET_WARNING, client_options
from cromford.cli.configuration.settings import flags_of
from cromford.cli.events import events_command
from cromford.cli.failures import EXIT_FAILED, CommandFailed
from cromford.cli.hanging_up import log_level_again
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.invoices import decode_command, invoices_group
from cromford.cli.market import buy_liquidity
from cromford.cli.payments import (
    balance_command,
    client_pay_command,
    invoice_command,
    payments_group,
)
from cromford.cli.picture_file import draw_factory, picture_options
from cromford.cli.rescan import rescan_command
from cromford.cli.seed import seed_group
from cromford.cli.shown import dying, exits, lists, payment_lists, tree
from cromford.cli.shown.output import show
from cromford.cli.stopping import stop_command
from cromford.cli.tokens import token_group
from cromford.cli.wallet import wallet_group
from cromford.cli.webhooks import webhook_group
from cromford.told import counted

ROLE: Final = "client"
JOIN_WAIT_SECONDS: Final = 3.0
JOIN_POLL_SECONDS: Final = 0.05
BRINGS_NOTHING: Final = (
    "WARNING: as things are, leaving brings nothing to your wallet: the balance is 0, or not worth "
    "its fee."
)
_UNDER_WAY: Final = frozenset({"building", "waiting_for_funding", "confirming"})


@click.group(name=ROLE)
def command() -> None:
    """Run a client: join a factory, pay, verify, leave."""


command.add_command(wallet_group(ROLE))
command.add_command(seed_group(ROLE))
command.add_command(backup_group(ROLE))
command.add_command(events_command(ROLE))
command.add_command(rescan_command(ROLE))
command.add_command(stop_command(ROLE))
command.add_command(token_group(ROLE))
command.add_command(webhook_group(ROLE))
command.add_command(invoice_command(ROLE))
command.add_command(invoices_group(ROLE))
command.add_command(decode_command(ROLE))
command.add_command(client_pay_command(ROLE))
command.add_command(payments_group(ROLE, payment_lists.payments))
command.add_command(balance_command(ROLE))
command.add_command(buy_liquidity)


@command.command()
@flags_of("client", "chain", "log", "metrics", "api", "seed", "backup")
@invocation_options
@click.pass_obj
def run(
    invocation: Invocation,
    /,
    **flags: Any,  # noqa: ANN401 - the options of `flags_of`
) -> None:
    """Run the client's daemon in the foreground. Its log goes to stderr.

    The first start makes a seed in the data directory, readable by you only. What no flag says is
    taken from the environment, then from the configuration: see `cromford config dump`.
    """
    options = client_options(invocation.settings_of(ROLE, flags), invocation.datadir_of(ROLE))
    if options.network == MAINNET:
        click.echo(MAINNET_WARNING, err=True)
    from cromford.cli import daemons  # noqa: PLC0415 - all of a daemon; no other command needs it

    with log_level_again(lambda: str(invocation.settings_of(ROLE, flags)["log.level"])):
        daemons.run_client(options)


@command.command()
@click.option(
    "--capacity-sat", type=click.IntRange(min=1), required=True, help="The channel you want."
)
@click.option(
    "--least-sat", type=click.IntRange(min=1), help="The least you take.  [default: the same]"
)
@invocation_options
@click.pass_obj
def join(invocation: Invocation, capacity_sat: int, least_sat: int | None) -> None:
    """Ask for a channel, and wait for a factory in the LSP's lobby."""
    if least_sat is not None and least_sat > capacity_sat:
        raise click.UsageError(f"--least-sat {least_sat} is above --capacity-sat {capacity_sat}")
    answer = invocation.call(ROLE, "join", capacity_sat=capacity_sat, capacity_least_sat=least_sat)
    if not answer["joined"]:
        answer = _await_the_lsp(invocation, answer)
    show(invocation, answer, lists.joined)


def _await_the_lsp(invocation: Invocation, answer: dict[str, Any]) -> dict[str, Any]:
    """Return what became of a wish, if the LSP answers soon: a refusal should not go unseen."""
    give_up = time.monotonic() + JOIN_WAIT_SECONDS
    while time.monotonic() < give_up:
        status = invocation.call(ROLE, "status")
        if status["refusal"]:
            raise CommandFailed(
                "join_refused",
                f"the LSP refused: {status['refusal']}",
                remediation="`cromford client status` shows what the LSP offers.",
            )
        if status["joined"] or not status["connected"]:
            return {"wish": status["wish"], "joined": status["joined"]}
        if _is_being_built(invocation):
            # An LSP with a schedule may take a client out of its lobby at once.
            return answer | {"joined": True, "is_building": True}
        time.sleep(JOIN_POLL_SECONDS)
    return answer


def _is_being_built(invocation: Invocation) -> bool:
    factories = invocation.call(ROLE, "factories")["factories"]
    return any(factory["status"] in _UNDER_WAY for factory in factories)


@command.command()
@invocation_options
@click.pass_obj
def leave(invocation: Invocation) -> None:
    """Take the wish back and leave the lobby. Factories that exist are left by `exit`.

    A client that was moving out of a factory that dies stays there from then on, until `move`.
    """
    show(invocation, invocation.call(ROLE, "leave"), lists.left)


@command.command()
@invocation_options
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show the daemon: its LSP, chain, wallet and wish."""
    show(invocation, invocation.call(ROLE, "status"), lists.client_status)


@command.command()
@invocation_options
@click.pass_obj
def factories(invocation: Invocation) -> None:
    """List the factories this client is or was in."""
    show(invocation, invocation.call(ROLE, "factories"), lists.client_factories)


_factory_argument = click.argument("factory_id", metavar="[ID]", required=False)


@command.command()
@_factory_argument
@picture_options
@invocation_options
@click.pass_obj
def factory(
    invocation: Invocation,
    factory_id: str | None,
    *,
    svg_file: Path | None,
    html_file: Path | None,
    overwrite: bool,
) -> None:
    """Show the client's own branch of a factory, by default of the newest; or draw it, too."""
    answer = invocation.call(ROLE, "factory", factory_id=factory_id)
    draw_factory(invocation, answer, svg_file=svg_file, html_file=html_file, overwrites=overwrite)
    show(invocation, answer, tree.branch)


@command.command()
@_factory_argument
@invocation_options
@click.pass_obj
def move(invocation: Invocation, factory_id: str | None) -> None:
    """Move out of a factory that dies: to the next one, with all of the balance.

    By default a client does so by itself; this is for one that was told to stay, by its policy or
    by `leave`. It costs no fee. `factories` shows how far it is.
    """
    show(invocation, invocation.call(ROLE, "move", factory_id=factory_id), dying.moving)


@command.command()
@_factory_argument
@invocation_options
@click.pass_obj
def verify(invocation: Invocation, factory_id: str | None) -> None:
    """Check a factory again, from the client's own store and its own chain.

    Ends with 0 if all of it holds. While nothing is wrong and something is awaited, the block of
    the funding or the last signatures, it ends with 1 and `verification_waits`.
    """
    answer = invocation.call(ROLE, "verify", factory_id=factory_id)
    show(invocation, answer, lists.verification)
    if answer["waits"]:
        awaited = [check["check"] for check in answer["checks"] if check["waits"]]
        raise CommandFailed(
            "verification_waits",
            f"nothing is wrong, and not all is there yet: {', '.join(awaited)}",
            retryable=True,
            remediation="Ask again later: `cromford client factories` shows how far it is.",
        )
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


exit_group.add_command(exit_package.export)
exit_group.add_command(exit_package.broadcast)


@exit_group.command()
@_factory_argument
@invocation_options
@click.pass_obj
def plan(invocation: Invocation, factory_id: str | None) -> None:
    """Show what leaving would take: transactions, fees, blocks, and what is next."""
    answer = invocation.call(ROLE, "exit_plan", factory_id=factory_id)
    show(invocation, answer, exits.exit_plan)


@exit_group.command()
@_factory_argument
@stale_option
@click.option("--yes", is_flag=True, help="Do not ask: what is published stays published.")
@invocation_options
@click.pass_obj
def start(
    invocation: Invocation,
    factory_id: str | None,
    *,
    publish_stale_commitment: bool,
    yes: bool,
) -> None:
    """Leave: publish the branch, step by step, as the chain allows.

    This cannot be taken back, and ends your channel. Everybody else keeps theirs and goes on
    paying, but what you share with them is on chain from then on, in the end the channels of your
    leaf. From a store that was restored only the way to your channel is published; then the LSP's
    commitment pays you.
    """
    stale = warned_of_stale(publish_stale_commitment)
    plan = invocation.call(ROLE, "exit_plan", factory_id=factory_id)
    brings_nothing = plan["channel"] is not None and plan["channel"]["exit_sat"] == 0
    if brings_nothing:
        click.echo(BRINGS_NOTHING, err=True)
    confirm(
        invocation,
        f"{_consequences(plan)} Publish the branch?",
        yes=yes,
        why=_consequences(plan) + (f" {BRINGS_NOTHING}" if brings_nothing else ""),
        remediation="Look at `cromford client exit plan`, then add --yes.",
    )
    answer = invocation.call(ROLE, "exit_start", factory_id=factory_id, **stale)
    show(invocation, answer, exits.exit_started)


@exit_group.command(name="status")
@_factory_argument
@invocation_options
@click.pass_obj
def exit_status(invocation: Invocation, factory_id: str | None) -> None:
    """Show how far an exit is: what waits for a block, what it pays, what it may still cost."""
    answer = invocation.call(ROLE, "exit_status", factory_id=factory_id)
    show(invocation, answer, exits.exit_status)


@exit_group.command()
@_factory_argument
@invocation_options
@click.pass_obj
def pause(invocation: Invocation, factory_id: str | None) -> None:
    """Let an exit rest: nothing new of it is published until `exit start` goes on with it.

    What is on chain stays there, and your channel stays closed. The daemon goes on by itself when
    the exit deadline comes, when an HTLC could be lost, and for a state whose clock runs.
    """
    answer = invocation.call(ROLE, "exit_pause", factory_id=factory_id)
    show(invocation, answer, exits.exit_paused)


def _consequences(plan: dict[str, Any]) -> str:
    """Return what an exit does to the one who leaves, and to the others."""
    go = counted(plan["n_transactions"], "transaction goes", "transactions go")
    return (
        "An exit cannot be taken back: your channel takes no payment any more, and "
        f"{go} on chain. The other clients keep their channels and go on paying, but leave by "
        "what is on chain then."
    )
