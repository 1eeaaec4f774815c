"""What both daemons are started with: the chain, how often to look at it, and how much to log."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW
from cromford.bitcoin.network import NETWORKS, REGTEST, Network
from cromford.cli.session import Session
from cromford.daemon.logs import LOG_FORMATS, LOG_LEVELS
from cromford.daemon.options import LOG_FORMAT, LOG_LEVEL, POLL_SECONDS, ChainOptions
from cromford.factory.terms import FeePolicy

BITCOIND_HOME: Final = Path("~/.bitcoin")
COOKIE_NAME: Final = ".cookie"
PORT_MAX: Final = 0xFFFF
SAT_PER_KW_OF_SAT_PER_VB: Final = 250  # One virtual byte is four weight units.
FEERATE_MAX_SAT_PER_VB: Final = 1000
FEERATE_DEFAULT_SAT_PER_VB: Final = Decimal(2)
POLL_SECONDS_MIN: Final = 0.02
POLL_SECONDS_MAX: Final = 600.0

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Feerate(click.ParamType[Decimal]):
    """A feerate in sat/vB: a number of at least the minimum relay feerate, or 0."""

    name = "sat/vB"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        """Return the number as it was written."""
        try:
            feerate = Decimal(str(value))
        except ArithmeticError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not feerate.is_finite():
            self.fail(f"{value!r} is not a number", param, ctx)
        lowest = Decimal(MIN_RELAY_SAT_PER_KW) / SAT_PER_KW_OF_SAT_PER_VB
        if feerate != 0 and not lowest <= feerate <= FEERATE_MAX_SAT_PER_VB:
            self.fail(f"expected {lowest}..{FEERATE_MAX_SAT_PER_VB}, received {value}", param, ctx)
        return feerate


def sat_per_kw(feerate_sat_per_vb: Decimal) -> int:
    """Return a feerate in sat per 1000 weight units, rounded."""
    return round(feerate_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB)


def tree_feerate_sat_per_kw(policy: FeePolicy, feerate: Decimal | None) -> int:
    """Return the feerate of the tree: the default of its policy, if none was asked for.

    Raises:
        click.UsageError: If the policy cannot have the feerate.
    """
    if policy is FeePolicy.EPHEMERAL:
        if feerate:
            raise click.UsageError(
                f"--feerate: expected 0 with --fee-policy ephemeral, received {feerate}"
            )
        return 0
    if feerate is not None and feerate == 0:
        raise click.UsageError("--feerate: expected above 0 with --fee-policy endogenous")
    return sat_per_kw(FEERATE_DEFAULT_SAT_PER_VB if feerate is None else feerate)


FEE_POLICY: Final = click.Choice([policy.label for policy in FeePolicy])


def fee_policy_of(label: str) -> FeePolicy:
    """Return the policy of a name that `FEE_POLICY` let through."""
    return FeePolicy[label.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """The part of the command line that both daemons share."""

    chain_url: str | None
    chain_cookie: Path | None
    chain_user: str | None
    chain_password_file: Path | None
    seed_passphrase_file: Path | None
    poll_seconds: float
    log_level: str
    log_format: str
    metrics_port: int | None

    def chain(self, network: Network) -> ChainOptions:
        """Return where the chain is, with the defaults of bitcoind on this machine.

        Raises:
            click.UsageError: If the credentials are half given, or twice.
        """
        cookie = self.chain_cookie
        if cookie is None and self.chain_user is None and self.chain_password_file is None:
            cookie = BITCOIND_HOME / network.core_name / COOKIE_NAME
        try:
            return ChainOptions(
                url=self.chain_url or f"http://127.0.0.1:{network.rpc_port}",
                cookie_file=None if cookie is None else cookie.expanduser().absolute(),
                user=self.chain_user,
                password_file=self.chain_password_file,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def daemon_options(command: _Command) -> _Command:
    """Add the options of `DaemonOptions`; read them with `take_daemon_options`."""
    path = click.Path(dir_okay=False, path_type=Path)
    options = (
        click.option(
            "--chain-url",
            envvar="CROMFORD_CHAIN_URL",
            help="Bitcoin Core's JSON-RPC.  [default: http://127.0.0.1 and the network's port]",
        ),
        click.option(
            "--chain-cookie",
            envvar="CROMFORD_CHAIN_COOKIE",
            type=path,
            help="Its cookie file.  [default: that of bitcoind's default data directory]",
        ),
        click.option(
            "--chain-user", envvar="CROMFORD_CHAIN_USER", help="A user, instead of a cookie."
        ),
        click.option(
            "--chain-password-file",
            envvar="CROMFORD_CHAIN_PASSWORD_FILE",
            type=path,
            help="A file with the user's password on its first line.",
        ),
        click.option(
            "--seed-passphrase-file",
            envvar="CROMFORD_SEED_PASSPHRASE_FILE",
            type=path,
            help="A file with the passphrase that encrypts the seed file, on its first line.",
        ),
        click.option(
            "--poll-seconds",
            type=click.FloatRange(POLL_SECONDS_MIN, POLL_SECONDS_MAX),
            default=POLL_SECONDS,
            show_default=True,
            help="How often to look for new blocks.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            default=LOG_LEVEL,
            show_default=True,
            help="How much to write to stderr.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            default=LOG_FORMAT,
            show_default=True,
            help="Lines of text, or of JSON.",
        ),
        click.option(
            "--metrics-port",
            type=click.IntRange(0, PORT_MAX),
            help="Serve Prometheus metrics on 127.0.0.1 and this port.  [default: none are served]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def take_daemon_options(given: dict[str, Any]) -> DaemonOptions:
    """Remove the shared options from a command's parameters and return them."""
    return DaemonOptions(**{name: given.pop(name) for name in DaemonOptions.__slots__})


def network_of(session: Session) -> Network:
    """Return the network that was asked for."""
    return NETWORKS.get(session.network, REGTEST)
