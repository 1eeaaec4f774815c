"""`cromford demo`: a factory on this machine, built before your eyes by separate processes."""

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.status import Status

from cromford.bitcoin.network import REGTEST
from cromford.cli.configuration.kinds import FEERATE, Choice, NodeUrl, NodeUser, Option
from cromford.cli.configuration.run_options import (
    chain_options,
    fee_policy_of,
    tree_feerate_sat_per_kw,
    vertex_kind_of,
)
from cromford.cli.failures import CommandFailed, printable
from cromford.cli.invocation import Invocation, json_option
from cromford.cli.named import NamedPath
from cromford.cli.shown import demo_result
from cromford.cli.shown.output import cell, show, stderr_console
from cromford.daemon.options import ChainOptions
from cromford.demo.failure import DemoFailed
from cromford.demo.run import run_demo
from cromford.demo.settings import (
    CAPACITY_MAX_SAT,
    CAPACITY_MIN_SAT,
    CLIENTS_MAX,
    MAX_EXIT_DELAY_MAX,
    PAYMENTS_MAX,
    SEED_MAX,
    STATES_MAX,
    STEP_BLOCKS_MAX,
    DemoSettings,
)
from cromford.demo.steps import Progress
from cromford.factory.kinds import PICTURE_CLIENTS_MAX, VertexKind
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
    "--inner",
    type=Option(Choice(tuple(kind.label for kind in VertexKind))),
    help="What every vertex above the leaves is: states with a delay, or one transaction without.  "
    f"[default: dw up to {PICTURE_CLIENTS_MAX} clients, static beyond]",
)
@click.option(
    "--max-exit-delay-blocks",
    type=click.IntRange(1, MAX_EXIT_DELAY_MAX),
    default=_DEFAULT.max_exit_delay_blocks,
    show_default=True,
    help="Of delay on the longest way out; decides how deep a tree of dw levels may be.",
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
    "--capacity-sat",
    type=click.IntRange(CAPACITY_MIN_SAT, CAPACITY_MAX_SAT),
    default=_DEFAULT.capacity_sat,
    show_default=True,
    help="Of each channel.",
)
@click.option(
    "--feerate-sat-per-vb",
    type=Option(FEERATE),
    metavar=FEERATE.metavar,
    help="Of the tree.  [default: 2]",
)
@click.option(
    "--fee-policy",
    type=Option(Choice(tuple(policy.label for policy in FeePolicy))),
    default=_DEFAULT.fee_policy.label,
    show_default=True,
    help="How tree transactions pay: their own fee, or a child's.",
)
@click.option(
    "--payments",
    type=click.IntRange(0, PAYMENTS_MAX),
    help="Between clients, after the LSP's first; 0: none at all.  [default: 2 per client, or 4]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEED_MAX),
    help="Repeat a choice of payers, payees and amounts.  [default: a new one, which is shown]",
)
@click.option(
    "--keep",
    metavar="DIR",
    type=NamedPath(file_okay=False, path_type=Path),
    help="Keep data directories, logs and export.json there; a new or empty directory.",
)
@click.option(
    "--exit",
    "exit_client",
    metavar="CLIENT",
    type=click.IntRange(min=1),
    help="Let this client, counted from 1, leave alone, through all delays, to its own wallet.",
)
@click.option(
    "--chain-url",
    type=Option(NodeUrl()),
    metavar="URL",
    help="Use this Bitcoin Core on regtest instead of the embedded node.",
)
@click.option(
    "--chain-cookie",
    type=NamedPath(dir_okay=False, path_type=Path),
    help="Its cookie file.  [default: that of bitcoind's default data directory]",
)
@click.option(
    "--chain-user",
    type=Option(NodeUser()),
    help="A user of the node, instead of a cookie.",
)
@click.option(
    "--chain-password-file",
    type=NamedPath(dir_okay=False, path_type=Path),
    help="A file with the user's password on its first line.",
)
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    /,
    *,
    clients: int,
    arity: int,
    inner: str | None,
    max_exit_delay_blocks: int,
    step_blocks: int,
    states: int,
    capacity_sat: int,
    feerate_sat_per_vb: Decimal | None,
    fee_policy: str,
    payments: int | None,
    seed: int | None,
    keep: Path | None,
    exit_client: int | None,
    **chain: Any,  # noqa: ANN401 - the options of `_chain_of`
) -> None:
    """Build a factory on this machine, pay in it, and show it.

    Starts an embedded regtest node, an LSP and its clients, each a process with a directory of its
    own. They gather, build the tree, sign it, fund it and wait for confirmations. Then the LSP pays
    a few clients, and the clients pay one another, which takes no transaction. Everything is
    stopped at the end, and removed unless --keep says where to. Never for real money.

    With --chain-url a Bitcoin Core of yours on regtest takes the embedded node's place: blocks are
    mined on it, to addresses of the demo, and it is left running.
    """
    invocation.refuse("--datadir", "--config", "--network")
    policy = fee_policy_of(fee_policy)
    tree_feerate_sat_per_kw(policy, feerate_sat_per_vb)
    settings = DemoSettings(
        n_clients=clients,
        leaf_arity=arity,
        inner_kind=None if inner is None else vertex_kind_of(inner),
        max_exit_delay_blocks=max_exit_delay_blocks,
        step_blocks=step_blocks,
        states=states,
        capacity_sat=capacity_sat,
        feerate=feerate_sat_per_vb,
        fee_policy=policy,
        n_payments=payments,
        seed=seed,
        keep=keep,
        exit_client=exit_client,
        chain=_chain_of(**chain),
    )
    show(invocation, _run(invocation, settings), demo_result.result)


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


def _run(invocation: Invocation, settings: DemoSettings) -> Document:
    try:
        if invocation.is_json:
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
