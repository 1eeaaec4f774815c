"""`cromford demo`: a factory on this machine, built before your eyes by separate processes."""

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.status import Status

from cromford.bitcoin.network import REGTEST
from cromford.cli import tree_view
from cromford.cli.failures import CommandFailed, printable
from cromford.cli.kinds import FEERATE, Choice, Option
from cromford.cli.output import blocks, cell, expiry_text, sat, show, stderr_console, table
from cromford.cli.run_options import chain_options, fee_policy_of, tree_feerate_sat_per_kw
from cromford.cli.session import Session, json_option
from cromford.daemon.options import ChainOptions
from cromford.demo.failure import DemoFailed
from cromford.demo.run import run_demo
from cromford.demo.settings import (
    CAPACITY_MAX_SAT,
    CAPACITY_MIN_SAT,
    CLIENTS_MAX,
    MAX_EXIT_DELAY_MAX,
    STATES_MAX,
    STEP_BLOCKS_MAX,
    DemoSettings,
)
from cromford.demo.steps import Progress
from cromford.factory.terms import FeePolicy

STEP_NAME_WIDTH: Final = 8
_DEFAULT: Final = DemoSettings()
Document = dict[str, Any]


class Silent:
    """Progress for those who read one document at the end."""

    def begin(self, step: str) -> None:
        """Say nothing."""

    def update(self, detail: str) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""

    def end(self, outcome: str, seconds: float) -> None:
        """Say nothing."""


class Lines:
    """Progress as plain lines, where no terminal is."""

    def __init__(self) -> None:
        self._step = ""

    def begin(self, step: str) -> None:
        """Write that a step begins."""
        self._step = step
        click.echo(f"{step:<{STEP_NAME_WIDTH}}  ...", err=True)

    def update(self, detail: str) -> None:
        """Leave out what is over in a moment."""

    def note(self, line: str) -> None:
        """Write a line."""
        click.echo(f"{'':<{STEP_NAME_WIDTH}}  {printable(line)}", err=True)

    def end(self, outcome: str, seconds: float) -> None:
        """Write how the step ended."""
        told = f"{printable(outcome)} ({seconds:.1f} s)"
        click.echo(f"{self._step:<{STEP_NAME_WIDTH}}  {told}", err=True)


class Live:
    """Progress in a terminal: one line that moves, and what is worth keeping above it."""

    def __init__(self, status: Status, console: Console) -> None:
        self._status = status
        self._console = console
        self._step = ""

    def begin(self, step: str) -> None:
        """Show the step."""
        self._step = step
        self._status.update(cell(step, "bold"))

    def update(self, detail: str) -> None:
        """Show what it waits for."""
        line = cell(self._step, "bold")
        self._status.update(line.append_text(cell(f"  {detail}")))

    def note(self, line: str) -> None:
        """Keep a line."""
        self._console.print(cell(f"{'':<{STEP_NAME_WIDTH}}  {line}", "dim"), soft_wrap=True)

    def end(self, outcome: str, seconds: float) -> None:
        """Keep how the step ended."""
        line = cell(f"{self._step:<{STEP_NAME_WIDTH}}", "bold green")
        line.append_text(cell(f"  {outcome}"))
        self._console.print(line.append_text(cell(f" ({seconds:.1f} s)", "dim")), soft_wrap=True)


@click.command(name="demo")
@click.option(
    "--clients",
    type=click.IntRange(1, CLIENTS_MAX),
    default=_DEFAULT.n_clients,
    show_default=True,
    help="How many clients; each is a process.",
)
@click.option(
    "--arity",
    type=click.IntRange(1, CLIENTS_MAX),
    default=_DEFAULT.leaf_arity,
    show_default=True,
    help="Clients that share a leaf.",
)
@click.option(
    "--max-exit-delay",
    type=click.IntRange(1, MAX_EXIT_DELAY_MAX),
    default=_DEFAULT.max_exit_delay_blocks,
    show_default=True,
    help="Blocks of delay on the longest way out; decides how deep the tree may be.",
)
@click.option(
    "--step-blocks",
    type=click.IntRange(1, STEP_BLOCKS_MAX),
    default=_DEFAULT.step_blocks,
    show_default=True,
    help="Blocks between the delays of two states.",
)
@click.option(
    "--states",
    type=click.IntRange(2, STATES_MAX),
    default=_DEFAULT.states,
    show_default=True,
    help="States per layer.",
)
@click.option(
    "--capacity",
    type=click.IntRange(CAPACITY_MIN_SAT, CAPACITY_MAX_SAT),
    default=_DEFAULT.capacity_sat,
    show_default=True,
    help="Of each channel, in sat.",
)
@click.option("--feerate", type=Option(FEERATE), help="Of the tree, in sat/vB.  [default: 2]")
@click.option(
    "--fee-policy",
    type=Option(Choice(tuple(policy.label for policy in FeePolicy))),
    default=_DEFAULT.fee_policy.label,
    show_default=True,
    help="How tree transactions pay: their own fee, or a child's.",
)
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep data directories, logs and export.json there; a new or empty directory.",
)
@click.option(
    "--exit",
    "exit_client",
    metavar="CLIENT",
    type=click.IntRange(min=1),
    help="Let this client, counted from 1, leave alone through the real delays.",
)
@click.option(
    "--chain-url",
    metavar="URL",
    help="Use this Bitcoin Core on regtest instead of the embedded node.",
)
@click.option(
    "--chain-cookie",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its cookie file.  [default: that of bitcoind's default data directory]",
)
@click.option("--chain-user", help="A user of the node, instead of a cookie.")
@click.option(
    "--chain-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the user's password on its first line.",
)
@json_option
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    clients: int,
    arity: int,
    max_exit_delay: int,
    step_blocks: int,
    states: int,
    capacity: int,
    feerate: Decimal | None,
    fee_policy: str,
    keep: Path | None,
    exit_client: int | None,
    **chain: Any,  # noqa: ANN401 - the options of `_chain_of`
) -> None:
    """Build a factory on this machine and show it.

    Starts an embedded regtest node, an LSP and its clients, each a process with a directory of its
    own. They gather, build the tree, sign it, fund it and wait for confirmations. Everything is
    stopped at the end, and removed unless --keep says where to. Never for real money.

    With --chain-url a Bitcoin Core of yours on regtest takes the embedded node's place: blocks are
    mined on it, to addresses of the demo, and it is left running.
    """
    policy = fee_policy_of(fee_policy)
    tree_feerate_sat_per_kw(policy, feerate)
    settings = DemoSettings(
        n_clients=clients,
        leaf_arity=arity,
        max_exit_delay_blocks=max_exit_delay,
        step_blocks=step_blocks,
        states=states,
        capacity_sat=capacity,
        feerate=feerate,
        fee_policy=policy,
        keep=keep,
        exit_client=exit_client,
        chain=_chain_of(**chain),
    )
    show(session, _run(session, settings), result)


def _chain_of(
    chain_url: str | None,
    chain_cookie: Path | None,
    chain_user: str | None,
    chain_password_file: Path | None,
) -> ChainOptions | None:
    """Return the user's node, or None for the embedded one.

    Raises:
        click.UsageError: If the credentials are half given, or twice.
    """
    if not any((chain_url, chain_cookie, chain_user, chain_password_file)):
        return None
    return chain_options(
        REGTEST,
        url=chain_url,
        cookie=chain_cookie,
        user=chain_user,
        password_file=chain_password_file,
    )


def _run(session: Session, settings: DemoSettings) -> Document:
    try:
        if session.is_json:
            return run_demo(settings, Silent())
        if not sys.stderr.isatty():
            lines: Progress = Lines()
            return run_demo(settings, lines)
        console = stderr_console()
        with console.status("") as status:
            return run_demo(settings, Live(status, console))
    except DemoFailed as failed:
        raise CommandFailed(
            failed.code,
            failed.message,
            remediation=failed.remediation,
            exit_code=failed.exit_code,
        ) from failed


def result(console: Console, shown: Document) -> None:
    """Print what was built: the tree, who paid, every way out, and how to go on."""
    exported, summary = shown["factory"], shown["summary"]
    console.print()
    _heading(console, f"factory {exported['factory_id']}")
    told = cell(f"{summary['status']}, {summary['n_clients']} clients; ")
    console.print(told.append_text(expiry_text(summary)))
    console.print()
    tree_view.print_tree(console, exported)
    console.print()
    _heading(console, "Who paid what")
    tree_view.print_ledger(console, exported["ledger"])
    console.print()
    _heading(console, "Each client's way out, alone")
    for client in shown["clients"]:
        line = tree_view.exit_line(client["client"], client["exit_plan"])
        console.print(cell(line), soft_wrap=True)
    if shown["exit"] is not None:
        console.print()
        _print_exit(console, shown["exit"])
    console.print()
    _print_exploring(console, shown)


def _heading(console: Console, text: str) -> None:
    console.print(cell(text, "bold"), soft_wrap=True)


def _print_exit(console: Console, left: Document) -> None:
    _heading(console, f"Client {left['client']} left alone ({left['name']})")
    rows = table("transaction", "height", "delay", "txid")
    for tx in left["transactions"]:
        rows.add_row(
            cell(tx["name"]),
            cell(f"{tx['height']:,}"),
            cell(blocks(tx["delay_blocks"])),
            cell(tx["txid"]),
        )
    console.print(rows)
    channel = left["channel"]
    told = f"the node has its channel output: {sat(channel['amount_sat'])} at {channel['outpoint']}"
    console.print(cell(told), soft_wrap=True)
    console.print(cell(f"with the agreed script {channel['script_pubkey']}"), soft_wrap=True)


def _print_exploring(console: Console, shown: Document) -> None:
    took = f"{shown['seconds']:.1f} s"
    if shown["kept"] is None:
        console.print(f"Done in {took}. All processes are stopped, and their data is removed.")
        console.print("To look around afterwards: cromford demo --keep DIR")
        return
    console.print(f"Done in {took}. All processes are stopped.")
    told = f"Kept in {shown['kept']}: data directories, logs/, export.json."
    console.print(cell(told), soft_wrap=True)
    console.print("To start them again, each in a terminal of its own, and to look around:")
    for entry in shown["explore"]:
        console.print(cell(f"  # {entry['what']}", "dim"), soft_wrap=True)
        console.print(cell(f"  {entry['command']}"), soft_wrap=True)
