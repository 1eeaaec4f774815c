"""What every command is told alike: how to answer, and where its daemon lives."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cromford.cli.failures import EXIT_INTERRUPTED, CommandFailed, expanded
from cromford.cli.named import NamedPath
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient, is_made_once
from cromford.daemon.api.operations import OPERATIONS

if TYPE_CHECKING:
    from cromford.cli.configuration.settings import Settings

HOME: Final = Path("~/.cromford")
DATADIR_ENV: Final = "CROMFORD_DATADIR"
CONFIG_ENV: Final = "CROMFORD_CONFIG"
JSON_ENV: Final = "CROMFORD_JSON"
CONFIG_NAME: Final = "config.toml"
NETWORKS: Final = ("regtest", "signet", "testnet4", "mainnet")
_NO: Final = frozenset({"", "0", "false", "no", "off"})

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(slots=True, kw_only=True)
class Invocation:
    """One run of the command: filled from the options, wherever on the line they stand.

    `typed` are those of them that stand on the line, and not in the environment.
    """

    is_json: bool = False
    datadir: Path | None = None
    config: Path | None = None
    network: str | None = None
    typed: set[str] = field(default_factory=set)

    def note(self, option: str) -> None:
        """Note an option that may stand before each word of the command, and behind it.

        Raises:
            click.UsageError: If it stood somewhere else on the line.
        """
        if option in self.typed:
            raise click.UsageError(f"{option}: expected once, received at two places of the line")
        self.typed.add(option)

    def refuse(self, *options: str) -> None:
        """Refuse options that were typed before a command which has no use for them.

        Raises:
            click.UsageError: Naming the first.
        """
        for option in options:
            if option in self.typed:
                raise click.UsageError(f"{option}: this command has no use for it")

    def datadir_of(self, role: str) -> Path:
        """Return the data directory of a role: the one that was named, or its default."""
        return expanded(self.datadir or HOME / role)

    def home_of(self, role: str) -> Path:
        """Return the directory of a role's network, in its data directory.

        Raises:
            CommandFailed: If the configuration, which may name the network, cannot be read.
        """
        # Read even where the network was typed: a variable that nobody knows is never passed over.
        network = str(self.settings_of(role, {})["chain.network"])
        return self.datadir_of(role) / network

    def config_of(self, role: str) -> Path | None:
        """Return the configuration file of a role: the one that was named, or its own if any."""
        if self.config is not None:
            return expanded(self.config)
        own = self.datadir_of(role) / CONFIG_NAME
        # A link that leads nowhere is a file that is missing, and no daemon without one.
        return own if own.is_symlink() or own.exists() else None

    def settings_of(self, role: str, flags: Mapping[str, Any]) -> "Settings":
        """Return the value of every key of the configuration.

        Raises:
            CommandFailed: If the file or the environment has something that cannot be.
        """
        # Most commands are a question to a daemon, and need none of this.
        from cromford.cli.configuration import settings  # noqa: PLC0415 - see above

        path = self.config_of(role)
        return settings.resolve(
            flags={"chain_network": self.network, **flags},
            environment=os.environ,
            in_file={} if path is None else settings.read_file(path),
        )

    def call(self, role: str, method: str, /, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer of the role's daemon; parameters that are None are left out.

        Raises:
            ApiFailure: If there is no daemon, or it refused.
            CommandFailed: If the configuration, which may name the network, cannot be read; or if
                somebody interrupts what may be carried out all the same.
        """
        given = {name: value for name, value in params.items() if value is not None}
        client = ApiClient(self.home_of(role) / SOCKET_NAME, role=role)
        try:
            return client.call(method, **given)
        except KeyboardInterrupt as error:
            if OPERATIONS[method].verb == "GET":
                raise  # Nothing was asked for but an answer.
            raise _interrupted(is_made_once=is_made_once(method, given)) from error


def _interrupted(*, is_made_once: bool) -> CommandFailed:
    again = "look before asking again"
    if is_made_once:
        again = "ask again, with the same: it is not made a second time"
    return CommandFailed(
        "interrupted",
        "interrupted before the daemon answered",
        retryable=is_made_once,
        remediation=f"What was asked for may be carried out all the same: {again}.",
        exit_code=EXIT_INTERRUPTED,
    )


def asks_for_json(args: Sequence[str]) -> bool:
    """Say whether the answer shall be JSON, before the line is parsed: its errors are JSON too."""
    return "--json" in args or os.environ.get(JSON_ENV, "").lower() not in _NO


def invocation_options(command: _Command) -> _Command:
    """Add what is known before and after a command: `--datadir`, `--network`, `--json` and so on.

    The environment is read once, at the top: below it would come before what was typed there.
    """
    return network_option(config_option(datadir_option(json_option(command))))


def json_option(command: _Command) -> _Command:
    """Add `--json`. `asks_for_json` reads it; here it is only allowed and explained."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        help="Answer with one JSON document on stdout; errors are JSON on stderr.",
    )(command)


def datadir_option(command: _Command) -> _Command:
    """Add `--datadir`."""
    return click.option(
        "--datadir",
        type=NamedPath(file_okay=False, path_type=Path),
        expose_value=False,
        callback=_take_datadir,
        help=f"Where the daemon keeps its data.  [default: {HOME}/ROLE: lsp, client or agent]",
    )(command)


def config_option(command: _Command) -> _Command:
    """Add `--config`."""
    return click.option(
        "--config",
        metavar="FILE",
        type=NamedPath(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_take_config,
        help=f"The configuration.  [default: {CONFIG_NAME} in the data directory, if there is one]",
    )(command)


def network_option(command: _Command) -> _Command:
    """Add `--network`."""
    return click.option(
        "--network",
        metavar=f"[{'|'.join(NETWORKS)}]",
        expose_value=False,
        callback=_take_network,
        help="The Bitcoin network.  [default: regtest]",
    )(command)


def take_environment(invocation: Invocation) -> None:
    """Fill an invocation with what the environment says, before the line is parsed."""
    if datadir := os.environ.get(DATADIR_ENV):
        invocation.datadir = Path(datadir)
    if config := os.environ.get(CONFIG_ENV):
        invocation.config = Path(config)


def _take_datadir(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        invocation = _invocation_of(ctx)
        invocation.datadir = value
        invocation.note("--datadir")


def _take_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        invocation = _invocation_of(ctx)
        invocation.config = value
        invocation.note("--config")


def _take_network(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if value not in NETWORKS:
        raise click.BadParameter(f"expected one of {', '.join(NETWORKS)}, received {value!r}")
    invocation = _invocation_of(ctx)
    invocation.network = value
    invocation.note("--network")


def _invocation_of(ctx: click.Context) -> Invocation:
    invocation = ctx.find_object(Invocation)
    if invocation is None:
        raise AssertionError("a command runs in an invocation")
    return invocation
