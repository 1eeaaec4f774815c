"""Asking for words and passphrases: never on a command line, and never echoed."""

import sys
from pathlib import Path
from typing import Final
from unicodedata import normalize

import click

from cromford.cli.asking import can_ask
from cromford.cli.failures import EXIT_USAGE, CommandFailed
from cromford.cli.invocation import Invocation
from cromford.daemon.home import PHRASE, read_named, without_mark
from cromford.daemon.seed_file import SEED_FILE, WrongPassphrase, is_encrypted

PHRASE_SIZE_MAX: Final = 1024  # 24 words of at most eight letters, many times over.


def asked_words(invocation: Invocation, phrase_file: Path | None) -> str:
    """Return the words that were given, in lower case with one space between them.

    However somebody, or an editor, wrote them (NFKD, as BIP 39 has it): the checksum tells whether
    they are right.

    Raises:
        UnreadableFile: If the file cannot be read.
    """
    if phrase_file is not None:
        text = read_named(phrase_file, PHRASE, n_chars_max=PHRASE_SIZE_MAX)
    elif can_ask(invocation):
        text = str(click.prompt("The words of the seed", hide_input=True, err=True))
    else:
        text = sys.stdin.read(PHRASE_SIZE_MAX)
    return " ".join(normalize("NFKD", without_mark(text)).lower().split())


def known_passphrase(invocation: Invocation, home: Path, given: str | None) -> str | None:
    """Return the passphrase that was given, or typed where the seed file needs one.

    Raises:
        WrongPassphrase: If it needs one and nobody can be asked.
        BadSeed: If the file cannot be read.
    """
    if given is not None or not is_encrypted(home):
        return given
    if not can_ask(invocation):
        raise WrongPassphrase(
            f"{home / SEED_FILE}: the seed is encrypted and no passphrase was given"
        )
    return str(click.prompt("Passphrase", hide_input=True, err=True))


def new_passphrase(invocation: Invocation, given: str | None, *, flag: str) -> str:
    """Return the passphrase that was given, or typed twice.

    Args:
        invocation: The run of the command.
        given: What a file said, or None.
        flag: The option that names such a file.

    Raises:
        CommandFailed: If there is none.
    """
    if given is None and can_ask(invocation):
        given = _typed_twice("The new passphrase")
    if not given:
        raise CommandFailed(
            "passphrase_missing",
            "a passphrase to encrypt the seed file with was expected, received none",
            remediation=f"Name a file with it on its first line: see {flag}.",
            exit_code=EXIT_USAGE,
        )
    return given


def wished_passphrase(invocation: Invocation) -> str | None:
    """Return the passphrase that a person wants for a new seed file, or None.

    Raises:
        CommandFailed: If it was mistyped.
    """
    if not can_ask(invocation):
        return None
    return _typed_twice("A passphrase to encrypt the seed file with, or nothing")


def _typed_twice(asked: str) -> str | None:
    given = str(click.prompt(asked, default="", show_default=False, hide_input=True, err=True))
    if not given:
        return None
    if click.prompt("The same again", hide_input=True, err=True) != given:
        raise CommandFailed(
            "passphrase_mismatch", "the two passphrases differ", exit_code=EXIT_USAGE
        )
    return given
