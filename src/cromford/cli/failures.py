"""Errors: one line and what to do about it, or one JSON object, always on stderr.

Exit codes are stable: 0 done, 1 failed, 2 usage, 3 authentication, 4 not found, 5 needs
confirmation.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import msgspec

from cromford.daemon.api.failures import ApiFailure

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_AUTHENTICATION: Final = 3
EXIT_NOT_FOUND: Final = 4
EXIT_NEEDS_CONFIRMATION: Final = 5
EXIT_INTERRUPTED: Final = 130  # As a shell reports SIGINT.

# What the command line ends with, whatever the daemon suggests.
_EXIT_CODES: Final = {
    "invalid_param": EXIT_USAGE,
    "socket_unreachable": EXIT_AUTHENTICATION,
}


class CommandFailed(click.ClickException):
    """A command that could not do what was asked, with what the user can do about it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        remediation: str = "",
        retryable: bool = False,
        exit_code: int = EXIT_FAILED,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.remediation = remediation
        self.retryable = retryable
        self.ends_with = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as the user sees it."""

    code: str
    message: str
    retryable: bool = False
    remediation: str = ""
    exit_code: int = EXIT_FAILED
    help_text: str = ""  # Shown to people instead of the message.


def problem_of(error: BaseException) -> Problem | None:
    """Return how an error is shown, or None for a bug of ours.

    What the system refuses is none: whose a directory is, it says of any.
    """
    match error:
        case ApiFailure():
            return Problem(
                code=error.code,
                message=error.message,
                retryable=error.retryable,
                remediation=error.remediation,
                exit_code=_EXIT_CODES.get(error.code, error.exit_code),
            )
        case CommandFailed():
            return Problem(
                code=error.code,
                message=error.message,
                retryable=error.retryable,
                remediation=error.remediation,
                exit_code=error.ends_with,
            )
        case click.exceptions.NoArgsIsHelpError():
            # Its words are the whole help, which is no error: whoever types nothing asks for it.
            return Problem(
                code="usage",
                message="a command was expected, received none",
                remediation=f"See: {_path_of(error)} --help",
                exit_code=EXIT_USAGE,
                help_text=error.format_message(),
            )
        case click.UsageError():
            where = "" if error.ctx is None else f"See: {error.ctx.command_path} --help"
            return Problem(
                code="usage",
                message=error.format_message(),
                remediation=where,
                exit_code=EXIT_USAGE,
            )
        case click.ClickException():
            return Problem(code="failed", message=error.format_message())
        case click.Abort() | KeyboardInterrupt():
            return Problem(code="interrupted", message="interrupted", exit_code=EXIT_INTERRUPTED)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Problem(
                code="disk_full",
                message=str(error),
                retryable=True,
                remediation="Make room where the answer goes. What was asked for may have been "
                "done all the same: look before asking again.",
            )
        case OSError():
            is_anothers = error.errno in {errno.EACCES, errno.EPERM}
            return Problem(
                code="system",
                message=words_of(error),
                remediation="Run this as the user whose it is, or name another place."
                if is_anothers
                else "",
            )
        case UnicodeEncodeError(reason="surrogates not allowed"):
            # Words were looked at; the name of the current directory is the system's, too.
            return Problem(
                code="usage",
                message="the name of a directory: expected UTF-8",
                remediation="Run this in another directory, or name places by their whole path.",
                exit_code=EXIT_USAGE,
            )
        case _:
            return None


def expanded(path: Path) -> Path:
    """Return a path without the `~` that it may begin with.

    Raises:
        CommandFailed: If nobody of that name has a home, as in a container whose user is a number.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise CommandFailed(
            "home_unknown",
            f"{path}: there is no such home",
            remediation="Name places by their whole path, as in `--datadir /var/lib/cromford`.",
            exit_code=EXIT_USAGE,
        ) from error


def words_of(error: OSError) -> str:
    """Return what the system said, and about which file; its number helps nobody."""
    if error.strerror is None:
        return str(error) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _path_of(error: click.UsageError) -> str:
    return "cromford" if error.ctx is None else error.ctx.command_path


def report(problem: Problem, *, is_json: bool) -> None:
    """Write an error to stderr."""
    if is_json:
        document = {
            "code": problem.code,
            "message": problem.message.encode(errors="replace").decode(),
            "retryable": problem.retryable,
            "remediation": problem.remediation,
        }
        click.echo(msgspec.json.encode(document).decode(), err=True)
        return
    if problem.help_text:
        click.echo(problem.help_text, err=True)
        return
    click.echo(f"error: {printable(problem.message)}", err=True)
    if problem.remediation:
        click.echo(printable(problem.remediation), err=True)


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: a peer may have written it."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
