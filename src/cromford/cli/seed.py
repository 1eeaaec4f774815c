"""`seed`: show and restore the words that every key comes from, alike for both roles.

The daemon must be stopped: a seed that is shown or made while it runs is a seed somebody may use
twice. Words and passphrases never stand on a command line, where other users could read them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from cromford.adapters.sqlite import JOURNAL_NAME, locked
from cromford.cli.asking import can_ask, confirm
from cromford.cli.configuration.run_options import allowed_network
from cromford.cli.configuration.settings import Settings, flag_of
from cromford.cli.failures import (
    EXIT_AUTHENTICATION,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    CommandFailed,
)
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown.lists import facts
from cromford.cli.shown.output import cell, show
from cromford.daemon.home import open_home, read_passphrase
from cromford.daemon.seed_file import (
    SEED_FILE,
    BadSeed,
    WrongPassphrase,
    check_phrase,
    read_phrase,
    write_phrase,
)
from cromford.ports import StoreFailed

PHRASE_SIZE_MAX: Final = 1024  # 24 words of at most eight letters, many times over.
AFTER_RESTORE: Final = (
    (
        "A seed alone cannot leave a factory: the signatures of a way out are in the journal that "
        "was lost with it, and no words bring them back."
    ),
    (
        "Begun anew, the wallet sees what it receives from now on. Coins it received earlier are "
        "still yours (BIP 86), but this version does not look for them: other wallet software "
        "does, with these words."
    ),
    "Never run two copies: if the old data directory still exists anywhere, use that one instead.",
)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the passphrase of the seed file on its first line.  "
    "[default: the configuration's, or asked for]",
)


def seed_group(role: str) -> click.Group:
    """Return the group `seed` of a role."""
    group = click.Group(name="seed", help="The words that every key comes from. Stop the daemon.")
    group.add_command(_show(role))
    group.add_command(_restore(role))
    return group


def _show(role: str) -> click.Command:
    @click.command(name="show")
    @_passphrase_option
    @_yes_option
    @invocation_options
    @click.pass_obj
    def show_seed(invocation: Invocation, /, *, passphrase_file: Path | None, yes: bool) -> None:
        """Show the words of the seed on stdout, after asking. Whoever sees them has every key."""
        settings = invocation.settings_of(role, {})
        home = invocation.home_of(role)
        if not (home / SEED_FILE).exists():
            raise CommandFailed(
                "seed_not_found",
                f"{home / SEED_FILE}: there is no seed",
                remediation="The daemon's first start makes one. See --datadir and --network.",
                exit_code=EXIT_NOT_FOUND,
            )
        with _daemon_stopped(role, home), _seed_failures():
            confirm(
                invocation,
                "Whoever sees the words has every key. Show them here?",
                yes=yes,
                why="whoever sees the words has every key",
                remediation="Add --yes, where nobody else sees the output.",
            )
            phrase = _read(invocation, home, _passphrase(settings, passphrase_file))
        show(invocation, {"phrase": phrase}, print_phrase)

    return show_seed


def _restore(role: str) -> click.Command:
    @click.command()
    @click.option(
        "--phrase-file",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A file with the words on one line.  [default: asked for, or read from stdin]",
    )
    @_passphrase_option
    @_yes_option
    @flag_of("chain.allow_mainnet")
    @invocation_options
    @click.pass_obj
    def restore(
        invocation: Invocation,
        /,
        *,
        phrase_file: Path | None,
        passphrase_file: Path | None,
        yes: bool,
        **flags: Any,  # noqa: ANN401 - the option of `flag_of`
    ) -> None:
        """Make the seed file from words, where there is neither a seed nor a journal.

        The words are asked for without showing them, or read from stdin or a file; never from the
        command line. Nothing is written unless all of them are right.
        """
        settings = invocation.settings_of(role, flags)
        network = allowed_network(settings)
        home = invocation.home_of(role)
        _check_empty(home)
        with _seed_failures():
            phrase = check_phrase(_phrase(invocation, phrase_file))
            passphrase = _passphrase(settings, passphrase_file)
            if passphrase is None and phrase_file is None and can_ask(invocation):
                passphrase = _new_passphrase()
            confirm(
                invocation,
                f"Make {home} the home of this seed?",
                yes=yes,
                why=f"this makes {home} the home of a seed",
                remediation="Add --yes.",
            )
            open_home(invocation.datadir_of(role), network)
            with _daemon_stopped(role, home):
                _check_empty(home)
                write_phrase(home, phrase, passphrase)
        restored = {
            "seed_file": str(home / SEED_FILE),
            "is_encrypted": passphrase is not None,
            "warnings": list(AFTER_RESTORE),
        }
        show(invocation, restored, print_restored)

    return restore


def _check_empty(home: Path) -> None:
    for name in (SEED_FILE, JOURNAL_NAME):
        if (home / name).exists():
            raise CommandFailed(
                "home_not_empty",
                f"{home / name} exists: a seed is restored only where there is no seed and no "
                "journal",
                remediation="Name an empty data directory: see --datadir.",
            )


@contextmanager
def _daemon_stopped(role: str, home: Path) -> Iterator[None]:
    """Keep the daemon from starting inside the block.

    Raises:
        CommandFailed: If it runs.
    """
    try:
        with locked(home):
            yield
    except StoreFailed as error:
        if not isinstance(error.__cause__, BlockingIOError):
            raise CommandFailed("datadir_unusable", str(error)) from error
        raise CommandFailed(
            "daemon_running",
            f"a daemon runs on {home}",
            retryable=True,
            remediation=f"Stop it first: cromford {role} stop",
        ) from error


@contextmanager
def _seed_failures() -> Iterator[None]:
    try:
        yield
    except WrongPassphrase as error:
        raise CommandFailed(
            "wrong_passphrase",
            str(error),
            remediation="Name the file with the passphrase: see --passphrase-file.",
            exit_code=EXIT_AUTHENTICATION,
        ) from error
    except BadSeed as error:
        raise CommandFailed("bad_seed", str(error), exit_code=EXIT_USAGE) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed("system", str(error)) from error


def _passphrase(settings: Settings, named: Path | None) -> str | None:
    return read_passphrase(named or settings["seed.passphrase_file"])


def _read(invocation: Invocation, home: Path, passphrase: str | None) -> str:
    try:
        return read_phrase(home, passphrase)
    except WrongPassphrase:
        if passphrase is not None or not can_ask(invocation):
            raise
        return read_phrase(home, click.prompt("Passphrase", hide_input=True, err=True))


def _phrase(invocation: Invocation, phrase_file: Path | None) -> str:
    """Return the words as they were given, less the one line end that a line ends with."""
    if phrase_file is not None:
        with phrase_file.open(encoding="utf-8") as file:
            text = file.read(PHRASE_SIZE_MAX)
    elif can_ask(invocation):
        text = str(click.prompt("The words of the seed", hide_input=True, err=True))
    else:
        text = sys.stdin.read(PHRASE_SIZE_MAX)
    return text.removesuffix("\n")


def _new_passphrase() -> str | None:
    """Return the passphrase that was typed twice, or None for no encryption.

    Raises:
        CommandFailed: If it was not the same both times.
    """
    asked = "A passphrase to encrypt the seed file with, or nothing"
    given = str(click.prompt(asked, default="", show_default=False, hide_input=True, err=True))
    if not given:
        return None
    if click.prompt("The same again", hide_input=True, err=True) != given:
        raise CommandFailed(
            "passphrase_mismatch", "the two passphrases differ", exit_code=EXIT_USAGE
        )
    return given


def print_phrase(console: Console, answer: dict[str, Any]) -> None:
    """Print the words alone, on one line, so that they can be written down or piped."""
    console.print(cell(answer["phrase"]), soft_wrap=True)


def print_restored(console: Console, restored: dict[str, Any]) -> None:
    """Print where the seed is, and what it cannot do."""
    encrypted = "under the passphrase" if restored["is_encrypted"] else "not encrypted"
    facts(console, [("seed", f"{restored['seed_file']} ({encrypted})")])
    for warning in restored["warnings"]:
        console.print(cell(f"WARNING: {warning}", "bold yellow"))
