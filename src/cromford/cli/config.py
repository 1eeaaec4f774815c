"""`cromford config`: check the configuration, and show all of it."""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from cromford.cli.configuration.run_options import (
    allowed_api_listen,
    allowed_network,
    chain_of,
    checked_lsp_policy,
    client_policy,
    signet_challenge,
)
from cromford.cli.configuration.settings import Settings, dump, read_file, resolve
from cromford.cli.configuration.together import check_listeners
from cromford.cli.failures import EXIT_NOT_FOUND, EXIT_USAGE, CommandFailed, expanded
from cromford.cli.invocation import CONFIG_NAME, Invocation, invocation_options
from cromford.cli.named import NamedPath
from cromford.cli.shown.output import cell, show, write_json
from cromford.daemon.backup.places import PlaceRefused, check_places
from cromford.protocol.policy import UnsafePolicy, check_is_safe

ROLES: Final = ("lsp", "client")


@click.group(name="config")
def command() -> None:
    """Check and show the configuration.

    A flag comes before the environment, the environment before the file, the file before the
    default. The file is config.toml in the data directory, or the one that --config names.
    """


@command.command()
@click.argument(
    "file", metavar="[FILE]", required=False, type=NamedPath(dir_okay=False, path_type=Path)
)
@invocation_options
@click.pass_obj
def check(invocation: Invocation, file: Path | None) -> None:
    """Check a configuration file: every key, and whether they go together.

    What a daemon that is started with this file alone would be refused for is refused here, but for
    what its machine alone knows: its files and its ports, its seed and store, its node.
    """
    if file is not None and invocation.config is not None:
        raise click.UsageError("--config: expected none beside FILE, which says which")
    path = file or _file_of(invocation)
    if path is None:
        raise CommandFailed(
            "config_not_found",
            f"there is no {CONFIG_NAME}",
            remediation="Name it: cromford config check FILE",
            exit_code=EXIT_NOT_FOUND,
        )
    flags = {"chain_network": invocation.network}
    settings = resolve(flags=flags, environment={}, in_file=read_file(path))
    datadir = None if invocation.datadir is None else expanded(invocation.datadir)
    _check_together(settings, str(path), datadir=datadir)
    show(invocation, {"file": str(path), "ok": True}, _print_checked)


@command.command(name="dump")
@invocation_options
@click.pass_obj
def show_all(invocation: Invocation) -> None:
    """Show every key with its present value and a comment, as a complete TOML file."""
    path = _file_of(invocation)
    settings = resolve(
        flags={"chain_network": invocation.network},
        environment=os.environ,
        in_file={} if path is None else read_file(path),
    )
    if invocation.is_json:
        write_json(_document(settings))
    else:
        click.echo(dump(settings), nl=False)


def _file_of(invocation: Invocation) -> Path | None:
    """Return the file that was named, or the only one there is in a data directory."""
    if invocation.config is not None or invocation.datadir is not None:
        return invocation.config_of(ROLES[0])
    found = [path for role in ROLES if (path := invocation.config_of(role)) is not None]
    if len(found) > 1:
        raise CommandFailed(
            "config_ambiguous",
            f"there are two: {', '.join(map(str, found))}",
            remediation="Name one: see --config.",
            exit_code=EXIT_USAGE,
        )
    return found[0] if found else None


def _check_together(settings: Settings, where: str, *, datadir: Path | None) -> None:
    """Check all that both roles are refused for before they start.

    Raises:
        CommandFailed: Naming the file, and what does not go together in it.
    """
    try:
        network = allowed_network(settings)
        chain_of(settings, network)
        signet_challenge(settings, network)
        allowed_api_listen(settings)
        check_listeners(settings, "metrics.listen", "api.listen")
        checked_lsp_policy(settings)
        check_is_safe(client_policy(settings), network)
        check_places(
            datadir,
            backup_dir=settings["backup.dir"],
            mark_dir=settings["backup.mark_dir"],
        )
    except CommandFailed as error:
        raise CommandFailed(
            error.code,
            f"{where}: {error.message}",
            remediation=error.remediation,
            exit_code=error.ends_with,
        ) from error
    except (click.UsageError, UnsafePolicy, PlaceRefused) as error:
        told = f"client.{error}" if isinstance(error, UnsafePolicy) else _words_of(error)
        raise CommandFailed("config_invalid", f"{where}: {told}", exit_code=EXIT_USAGE) from error


def _words_of(error: Exception) -> str:
    return error.format_message() if isinstance(error, click.UsageError) else str(error)


def _document(settings: Settings) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for setting in settings.all():
        key, value = setting.key, setting.value
        shown = None if value is None else tomllib.loads(f"v = {key.kind.to_toml(value)}")["v"]
        sections.setdefault(key.section, {})[key.name] = {
            "value": shown,
            "source": setting.source,
            "help": key.help,
        }
    return sections


def _print_checked(console: Console, checked: dict[str, Any]) -> None:
    console.print(cell(f"{checked['file']}: as it should be"), soft_wrap=True)
