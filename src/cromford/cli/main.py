"""The command `cromford`: its groups, imported only when one is asked for."""

import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import click

from cromford import __version__
from cromford.cli.failures import EXIT_FAILED, problem_of, report
from cromford.cli.invocation import Invocation, asks_for_json, invocation_options, take_environment
from cromford.cli.once import check_once

_STDERR: Final = 2  # The highest number of a standard stream.
_ENV_PREFIX: Final = "CROMFORD_"  # As all variables of the configuration begin.


class _Entry(NamedTuple):
    module: str
    summary: str


COMMANDS: Final = {
    "lsp": _Entry("cromford.cli.lsp", "Run an LSP: build factories, forward payments."),
    "client": _Entry("cromford.cli.client", "Run a client: join a factory, pay, verify, leave."),
    "agent": _Entry("cromford.cli.agent", "Run an exit agent: publish other people's exits."),
    "regtest": _Entry("cromford.cli.regtest", "Run a Bitcoin regtest node, never for real money."),
    "config": _Entry("cromford.cli.config", "Check and show the configuration."),
    "plan": _Entry("cromford.cli.plan", "Say what a factory costs, before it exists."),
    "demo": _Entry("cromford.cli.demo", "Build a factory on this machine and show it."),
}


class CromfordGroup(click.Group):
    """The top of the command line. It reports every error the same way."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry.module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:  # noqa: ANN401 - click's signature
        """Run a command line and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        extra |= {"standalone_mode": False, "prog_name": "cromford"}
        invocation = Invocation(is_json=asks_for_json(given))
        take_environment(invocation)
        _print_what_can_be()
        try:
            _check_words(given, os.environ)
            check_once(self, given, None)
            result = super().main(args=given, obj=invocation, **extra)
        except BrokenPipeError:
            _leave_a_closed_pipe()
        except (Exception, KeyboardInterrupt) as error:
            problem = problem_of(error)
            if problem is None:
                raise
            report(problem, is_json=invocation.is_json)
            if isinstance(error, OSError):
                _forget_output()
            sys.exit(problem.exit_code)
        # Outside its standalone mode click returns the code of --help and --version.
        sys.exit(result if isinstance(result, int) else 0)


def _check_words(given: Sequence[str], environment: Mapping[str, str]) -> None:
    """Check that all we are told is text: daemons are asked in UTF-8, and so are stores named.

    Raises:
        UsageError: Naming the word, or the variable.
    """
    for word in given:
        if not _is_text(word):
            raise click.UsageError(f"expected words in UTF-8, received {word!r}")
    for name, value in environment.items():
        if name.startswith(_ENV_PREFIX) and not _is_text(name + value):
            raise click.UsageError(f"{name!r}: expected a value in UTF-8")


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # What the system handed over as bytes that are no UTF-8.
        return False
    return True


def _print_what_can_be() -> None:
    """Let a terminal of another encoding than UTF-8 show `?` for what it has not."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _leave_a_closed_pipe() -> NoReturn:
    """Exit like any program whose pipe nobody reads: what is still buffered has no reader either.

    `cromford lsp events --follow | head` is nobody's mistake.
    """
    _forget_output()
    sys.exit(EXIT_FAILED)


def _forget_output() -> None:
    """Let what is still buffered go nowhere: to write it once more at the exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value or ctx.resilient_parsing:
        return
    invocation = ctx.find_object(Invocation)
    is_json = invocation is not None and invocation.is_json
    click.echo(f'{{"version": "{__version__}"}}' if is_json else f"cromford {__version__}")
    ctx.exit()


@click.group(
    cls=CromfordGroup,
    help="SuperScalar channel factories for Bitcoin: many users safely share one UTXO.",
    epilog="The environment can say CROMFORD_DATADIR, CROMFORD_CONFIG, CROMFORD_JSON, and every "
    "key of the configuration: see `cromford config dump`.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@invocation_options
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cromford() -> None:
    """Take the options that stand before a command; `Invocation` has them by now."""


def hold_standard_streams() -> None:
    """Let those that were closed before we began lead nowhere, and have their numbers.

    Else a journal's lock or a socket would get the number, and with it whatever anybody writes to
    that stream.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(opened)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - while we live
            setattr(sys, name, nowhere)


def main() -> NoReturn:
    """Run the command line of this process."""
    hold_standard_streams()
    cromford.main()
