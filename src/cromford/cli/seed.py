"""`seed`: the words that every key comes from, and the file they are in, alike for both roles.

The daemon must be stopped: a seed that is shown or made while it runs is a seed somebody may use
twice. Words and passphrases never stand on a command line, where other users could read them.
"""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cromford.cli.configuration.settings import flag_of
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import NamedPath
from cromford.cli.shown.output import cell, facts, show

_FILE = NamedPath(dir_okay=False, path_type=Path)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    type=_FILE,
    help="A file with the passphrase of the seed file on its first line.  "
    "[default: the configuration's, or asked for]",
)


def seed_group(role: str) -> click.Group:
    """Return the group `seed` of a role."""
    group = click.Group(name="seed", help="The words that every key comes from. Stop the daemon.")
    for command in (_show(role), _restore(role), _encrypt(role), _passphrase(role)):
        group.add_command(command)
    return group


def _show(role: str) -> click.Command:
    @click.command(name="show")
    @_passphrase_option
    @_yes_option
    @invocation_options
    @click.pass_obj
    def show_seed(invocation: Invocation, /, *, passphrase_file: Path | None, yes: bool) -> None:
        """Show the words of the seed on stdout, after asking. Whoever sees them has every key.

        They are not shown beside a journal that belongs to another seed.
        """
        from cromford.cli import seed_home  # noqa: PLC0415 - keys and journals; see there

        home = seed_home.seed_home(invocation, role, {})
        answer = seed_home.shown(home, passphrase_file=passphrase_file, yes=yes)
        show(invocation, answer, print_phrase)

    return show_seed


def _restore(role: str) -> click.Command:
    @click.command()
    @click.option(
        "--phrase-file",
        metavar="FILE",
        type=_FILE,
        help="A file with the words.  [default: asked for, or read from stdin]",
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
        """Make the seed file from words, where there is none.

        A journal that is there has to belong to the seed of these words. The words are asked for
        without showing them, or read from stdin or a file; never from the command line. Nothing is
        written unless all of them are right.
        """
        from cromford.cli import seed_home  # noqa: PLC0415 - keys and journals; see there

        home = seed_home.seed_home(invocation, role, flags)
        answer = seed_home.restored(
            home, phrase_file=phrase_file, passphrase_file=passphrase_file, yes=yes
        )
        show(invocation, answer, print_written)

    return restore


def _encrypt(role: str) -> click.Command:
    @click.command()
    @click.option(
        "--passphrase-file",
        metavar="FILE",
        type=_FILE,
        help="A file with the passphrase to encrypt with on its first line.  "
        "[default: the configuration's, or asked for]",
    )
    @invocation_options
    @click.pass_obj
    def encrypt(invocation: Invocation, /, *, passphrase_file: Path | None) -> None:
        """Encrypt a seed file that is not. Who forgets the passphrase needs the words.

        Copies of the file that were made before stay as they are.
        """
        from cromford.cli import seed_home  # noqa: PLC0415 - keys and journals; see there

        home = seed_home.seed_home(invocation, role, {})
        answer = seed_home.encrypted(home, passphrase_file=passphrase_file)
        show(invocation, answer, print_written)

    return encrypt


def _passphrase(role: str) -> click.Command:
    @click.command()
    @_passphrase_option
    @click.option(
        "--new-passphrase-file",
        metavar="FILE",
        type=_FILE,
        help="A file with the new passphrase on its first line.  [default: asked for]",
    )
    @invocation_options
    @click.pass_obj
    def passphrase(
        invocation: Invocation, /, *, passphrase_file: Path | None, new_passphrase_file: Path | None
    ) -> None:
        """Change the passphrase of an encrypted seed file.

        Copies of the file that were made before open with the old one.
        """
        from cromford.cli import seed_home  # noqa: PLC0415 - keys and journals; see there

        home = seed_home.seed_home(invocation, role, {})
        answer = seed_home.passphrase_changed(
            home, passphrase_file=passphrase_file, new_passphrase_file=new_passphrase_file
        )
        show(invocation, answer, print_written)

    return passphrase


def print_phrase(console: Console, answer: dict[str, Any]) -> None:
    """Print the words alone, on one line, so that they can be written down or piped."""
    console.print(cell(answer["phrase"]), soft_wrap=True)


def print_written(console: Console, written: dict[str, Any]) -> None:
    """Print where the seed is, and what to know about it."""
    encrypted = "under the passphrase" if written["is_encrypted"] else "not encrypted"
    rows: list[tuple[str, object]] = [("seed", f"{written['seed_file']} ({encrypted})")]
    if "fingerprint" in written:
        rows.append(("fingerprint", written["fingerprint"]))
    facts(console, rows)
    for warning in written["warnings"]:
        console.print(cell(f"WARNING: {warning}", "bold yellow"))
