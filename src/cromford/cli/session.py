"""What every command is told alike: how to answer, and where its daemon lives."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cromford.daemon.rpc import SOCKET_NAME, RpcClient

HOME: Final = Path("~/.cromford")
ENV_PREFIX: Final = "CROMFORD"
JSON_ENV: Final = f"{ENV_PREFIX}_JSON"
NETWORK_DEFAULT: Final = "regtest"
NETWORKS: Final = ("regtest", "signet", "testnet4")
MAINNET: Final = "mainnet"
_NO: Final = frozenset({"", "0", "false", "no", "off"})

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(slots=True, kw_only=True)
class Session:
    """One run of the command: filled from the options, wherever on the line they stand."""

    is_json: bool = False
    datadir: Path | None = None
    is_datadir_typed: bool = False
    network: str = NETWORK_DEFAULT

    def datadir_of(self, role: str) -> Path:
        """Return the data directory of a role: the one that was named, or its default."""
        return (self.datadir or HOME / role).expanduser()

    def call(self, role: str, method: str, /, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer of the role's daemon; parameters that are None are left out.

        Raises:
            RpcFailure: If there is no daemon, or it refused.
        """
        socket_path = self.datadir_of(role) / self.network / SOCKET_NAME
        given = {name: value for name, value in params.items() if value is not None}
        return RpcClient(socket_path).call(method, **given)


def asks_for_json(args: Sequence[str]) -> bool:
    """Say whether the answer shall be JSON, before the line is parsed: its errors are JSON too."""
    return "--json" in args or os.environ.get(JSON_ENV, "").lower() not in _NO


def session_options(command: _Command) -> _Command:
    """Add `--datadir`, `--network` and `--json`, which are known before and after a command."""
    return network_option(datadir_option(json_option(command)))


def json_option(command: _Command) -> _Command:
    """Add `--json`. `asks_for_json` reads it; here it is only allowed and explained."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        allow_from_autoenv=False,
        help="Answer with one JSON document on stdout; errors are JSON on stderr.",
    )(command)


def datadir_option(command: _Command) -> _Command:
    """Add `--datadir`."""
    return click.option(
        "--datadir",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        callback=_take_datadir,
        help=f"Where the daemon keeps its data.  [default: {HOME}/lsp or {HOME}/client]",
    )(command)


def network_option(command: _Command) -> _Command:
    """Add `--network`."""
    return click.option(
        "--network",
        metavar=f"[{'|'.join(NETWORKS)}]",
        expose_value=False,
        callback=_take_network,
        help=f"The Bitcoin network.  [default: {NETWORK_DEFAULT}]",
    )(command)


def _take_datadir(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    session = ctx.find_object(Session)
    if session is None:
        raise AssertionError(param)
    session.datadir = value
    source = ctx.get_parameter_source(param.name or "")
    session.is_datadir_typed = source is click.core.ParameterSource.COMMANDLINE


def _take_network(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if value in {MAINNET, "main", "bitcoin"}:
        raise click.BadParameter(
            "mainnet is refused for now: this version has had no outside review, and a factory "
            "cannot be closed cooperatively yet. Use regtest, signet or testnet4."
        )
    if value not in NETWORKS:
        raise click.BadParameter(f"expected one of {', '.join(NETWORKS)}, received {value!r}")
    session = ctx.find_object(Session)
    if session is None:
        raise AssertionError(param)
    session.network = value
