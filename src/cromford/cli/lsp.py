"""`cromford lsp`: run an LSP, see who waits, build factories, pay clients, export factories."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from cromford.bitcoin.network import MAINNET
from cromford.cli.asking import confirm, confirm_fee, stale_option, warned_of_stale
from cromford.cli.backup import backup_group
from cromford.cli.bans import bans_group
from cromford.cli.build_waiting import await_factory, built, built_before, wait_option
from cromford.cli.closing import close_command
from cromford.cli.configuration.run_options import MAINNET_WARNING, lsp_options
from cromford.cli.configuration.settings import flags_of
from cromford.cli.events import events_command
from cromford.cli.hanging_up import log_level_again
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.ladder import build_patiently, feerates_option, replace_command
from cromford.cli.market import ledger_command, price_command, set_price_command
from cromford.cli.named import Id
from cromford.cli.payments import (
    balances_command,
    forwards_group,
    lsp_pay_command,
    payments_group,
)
from cromford.cli.picture_file import (
    draw_factories,
    draw_factory,
    overwrite_option,
    picture_options,
    svg_option,
)
from cromford.cli.rescan import rescan_command
from cromford.cli.seed import seed_group
from cromford.cli.shown import exits, lists, payment_lists, tree
from cromford.cli.shown.output import sat, show, write_json
from cromford.cli.stopping import stop_command
from cromford.cli.tokens import token_group
from cromford.cli.wallet import digits, feerate_option, together_option, wallet_group
from cromford.cli.webhooks import webhook_group
from cromford.factory.terms import N_CLIENTS_MAX

ROLE: Final = "lsp"


@click.group(name=ROLE)
def command() -> None:
    """Run an LSP: build factories, forward payments."""


command.add_command(wallet_group(ROLE))
command.add_command(seed_group(ROLE))
command.add_command(backup_group(ROLE))
command.add_command(bans_group)
command.add_command(events_command(ROLE))
command.add_command(rescan_command(ROLE))
command.add_command(stop_command(ROLE))
command.add_command(token_group(ROLE))
command.add_command(webhook_group(ROLE))
command.add_command(lsp_pay_command(ROLE))
command.add_command(payments_group(ROLE, payment_lists.lsp_payments))
command.add_command(forwards_group(ROLE))
command.add_command(balances_command(ROLE))
command.add_command(close_command)
command.add_command(price_command)
command.add_command(set_price_command)
command.add_command(ledger_command)


@command.command()
@flags_of("lsp", "chain", "log", "metrics", "api", "seed", "backup")
@invocation_options
@click.pass_obj
def run(
    invocation: Invocation,
    /,
    **flags: Any,  # noqa: ANN401 - the options of `flags_of`
) -> None:
    """Run the LSP's daemon in the foreground. Its log goes to stderr.

    The first start makes a seed in the data directory, readable by you only. What no flag says is
    taken from the environment, then from the configuration: see `cromford config dump`.
    """
    options = lsp_options(invocation.settings_of(ROLE, flags), invocation.datadir_of(ROLE))
    if options.network == MAINNET:
        click.echo(MAINNET_WARNING, err=True)
    from cromford.cli import daemons  # noqa: PLC0415 - all of a daemon; no other command needs it

    with log_level_again(lambda: str(invocation.settings_of(ROLE, flags)["log.level"])):
        daemons.run_lsp(options)


@command.command()
@invocation_options
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show the daemon: its address, chain, wallet, connections."""
    show(invocation, invocation.call(ROLE, "status"), lists.lsp_status)


@command.command()
@invocation_options
@click.pass_obj
def lobby(invocation: Invocation) -> None:
    """Show who waits for a factory, and what clients connect to."""
    show(invocation, invocation.call(ROLE, "lobby"), lists.lobby)


@command.command()
@click.option(
    "--min",
    "min_clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    help="Fewer clients make no factory.  [default: the daemon's]",
)
@click.option(
    "--max",
    "max_clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    help="At most this many are taken.  [default: the daemon's]",
)
@feerates_option
@click.option(
    "--external-id",
    metavar="ID",
    type=Id(),
    help="An id of your own: asked for again with it, the factory is shown, and built once.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be built; build nothing.")
@wait_option
@invocation_options
@click.pass_obj
def build(
    invocation: Invocation,
    /,
    *,
    min_clients: int | None,
    max_clients: int | None,
    funding_feerates: list[str] | None,
    external_id: str | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Build a factory with those who wait, and say who sits where, and why.

    With a fee ladder, clients that joined with keys for fewer candidates join again by themselves;
    they are waited for.

    The answer comes when building begins. With --wait it comes when the factory's funding is signed
    and published, with the factory's id, or when nothing comes of it, with the reason. Without, the
    events after its `cursor` tell the same. Where the answer is lost, --external-id is for asking
    again: a build of which nothing came may be tried once more by its id.
    """
    if wait and dry_run:
        raise click.UsageError("--wait: with --dry-run there is nothing to wait for")
    if min_clients is not None and max_clients is not None and min_clients > max_clients:
        raise click.UsageError(f"--min {min_clients} is above --max {max_clients}")
    answer = build_patiently(
        invocation,
        min_clients=min_clients,
        max_clients=max_clients,
        funding_feerates_sat_per_vb=funding_feerates,
        external_id=external_id,
        dry_run=dry_run,
    )
    known = built_before(answer)
    if wait or known is not None:
        answer |= built(invocation, known or await_factory(invocation, answer["cursor"]))
    show(invocation, answer, lists.build)


@command.command()
@svg_option
@overwrite_option
@invocation_options
@click.pass_obj
def factories(invocation: Invocation, /, *, svg_file: Path | None, overwrite: bool) -> None:
    """List the factories, newest attempts included.

    --svg draws those that live on one time line: how long each has, and what is locked in it.
    """
    answer = invocation.call(ROLE, "factories")
    draw_factories(invocation, answer, svg_file=svg_file, overwrites=overwrite)
    show(invocation, answer, lists.lsp_factories)


@command.group()
def factory() -> None:
    """Look at one factory, or end it. ID is a factory id, or its beginning if that is unique."""


@factory.command(name="show")
@click.argument("factory_id", metavar="ID")
@picture_options
@invocation_options
@click.pass_obj
def show_factory(
    invocation: Invocation,
    factory_id: str,
    *,
    svg_file: Path | None,
    html_file: Path | None,
    overwrite: bool,
) -> None:
    """Show the tree, the ledger and the terms of a factory; with --svg or --html also as a picture.

    The picture holds what the answer says, and no more: it may be printed, mailed, put on a page.
    """
    answer = invocation.call(ROLE, "factory_show", factory_id=factory_id)
    draw_factory(invocation, answer, svg_file=svg_file, html_file=html_file, overwrites=overwrite)
    show(invocation, answer, tree.factory)


@factory.command()
@click.argument("factory_id", metavar="ID")
@invocation_options
@click.pass_obj
def export(invocation: Invocation, factory_id: str) -> None:
    """Write a factory as one JSON document, for anybody to verify with other software."""
    write_json(invocation.call(ROLE, "factory_export", factory_id=factory_id))


@factory.command(name="abandon")
@click.argument("factory_id", metavar="ID")
@feerate_option
@click.option("--dry-run", is_flag=True, help="Show what would be published; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask: everybody has to build again.")
@invocation_options
@click.pass_obj
def abandon_factory(
    invocation: Invocation,
    /,
    *,
    factory_id: str,
    feerate_sat_per_vb: Decimal | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Give up a factory whose funding the node refuses, or that is too late.

    The funding is handed to the node once more, and given up only if it is refused at this moment;
    one that no client would use any more is given up in any case, and published no more. A coin of
    it is paid back to the wallet: when that payment is as deep as a funding has to be, the factory
    is dead for everybody, and its other coins are free again. Until then the funding may confirm
    all the same, and the factory lives. Asked again with a higher feerate, the payment is replaced.

    Shows what it would publish, and asks first.
    """
    asked = {"factory_id": factory_id, "feerate_sat_per_vb": digits(feerate_sat_per_vb)}
    if not dry_run and not yes:
        planned = invocation.call(ROLE, "factory_abandon", **asked, dry_run=True)
        asked["feerate_sat_per_vb"] = str(planned["feerate_sat_per_vb"])
        told = f"{planned['reason']}; a coin is paid back for a fee of {sat(planned['fee_sat'])}"
        confirm(
            invocation,
            f"Why it is no use to wait: {told}. Give the factory up?",
            yes=False,
            why=f"a factory that is given up is built again by all its clients: {told}",
            remediation="Look at it with --dry-run, then add --yes.",
        )
    answer = invocation.call(ROLE, "factory_abandon", **asked, dry_run=dry_run)
    show(invocation, answer, lists.abandoned_factory)


@factory.command(name="bump")
@click.argument("factory_id", metavar="ID")
@together_option
@click.option("--dry-run", is_flag=True, help="Show what it would cost; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask: a fee that is paid stays paid.")
@invocation_options
@click.pass_obj
def bump_factory(
    invocation: Invocation,
    /,
    *,
    factory_id: str,
    feerate_sat_per_vb: Decimal | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Let the funding of a factory pay more, by a child of its change (CPFP).

    The txid stays, so every signature stays valid. The child pays so much that both together have
    the feerate, out of the change, and where that is too small out of other free coins. Asked again
    with a higher feerate, the child is replaced. It is published again at each block until the
    funding is in one; a factory that is given up takes it with it.

    Shows what it would pay, and asks first.
    """
    asked = {"factory_id": factory_id, "feerate_sat_per_vb": digits(feerate_sat_per_vb)}
    if not dry_run and not yes:
        planned = invocation.call(ROLE, "factory_bump", **asked, dry_run=True)
        asked["feerate_sat_per_vb"] = str(planned["feerate_sat_per_vb"])
        feerate = f"{planned['feerate_sat_per_vb']} sat/vB"
        told = f"a child pays {sat(planned['fee_sat'])}, so that both together pay {feerate}"
        confirm_fee(invocation, told)
    answer = invocation.call(ROLE, "factory_bump", **asked, dry_run=dry_run)
    show(invocation, answer, lists.bumped_factory)


factory.add_command(replace_command)


@command.command(name="exit")
@click.argument("factory_id", metavar="FACTORY")
@click.argument("client", metavar="CLIENT", type=click.IntRange(min=1))
@stale_option
@click.option("--yes", is_flag=True, help="Do not ask: what is published stays published.")
@invocation_options
@click.pass_obj
def exit_command(
    invocation: Invocation,
    factory_id: str,
    client: int,
    *,
    publish_stale_commitment: bool,
    yes: bool,
) -> None:
    """Bring a client's channel on chain: for one that is gone for good, or lost its state.

    CLIENT is its number in the factory, as `cromford lsp factory show` lists it. The path from the
    root down to the channel is published, step by step, then the LSP's commitment; both sides are
    paid by it. It cannot be taken back, and it is not only this client's: the path is part of
    everybody's way out, and the clients of the same leaf find their channels on chain too.
    """
    stale = warned_of_stale(publish_stale_commitment)
    confirm(
        invocation,
        f"The path down to client {client}'s channel goes on chain. The channel is over; clients "
        "of the same leaf find theirs on chain too, and the path stays part of everybody's way "
        "out. This cannot be taken back. Publish it?",
        yes=yes,
        why="an exit cannot be taken back, and the path it publishes is other clients' too",
        remediation="Look at `cromford lsp factory show`, then add --yes.",
    )
    answer = invocation.call(ROLE, "exit_start", factory_id=factory_id, client=client, **stale)
    show(invocation, answer, exits.exit_started)
