"""Where a configuration value comes from: a flag, the environment, a TOML file, its default.

The first of them that has the key decides. Nothing unknown passes: a misspelt key that is ignored
would leave a daemon running with the default its operator meant to change.
"""

import difflib
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cromford.cli.configuration.key import ENV_PREFIX, Key, variable_of
from cromford.cli.configuration.keys import KEYS, SECTIONS
from cromford.cli.configuration.kinds import File, Flag, Option
from cromford.cli.configuration.renamed import RENAMED
from cromford.cli.failures import EXIT_NOT_FOUND, EXIT_USAGE, CommandFailed

# What the tests and benchmarks of the program are told, a number and two programs: whoever develops
# it has them set while using it.
OF_TESTS: Final = frozenset(f"{ENV_PREFIX}_{name}" for name in ("BITCOIND", "SEED", "C_BENCH"))
OF_EVERY_COMMAND: Final = frozenset(
    f"{ENV_PREFIX}_{name}" for name in ("DATADIR", "CONFIG", "JSON")
)
CONFIG_SIZE_MAX: Final = 1024 * 1024
COMMENT_WIDTH: Final = 96
_BY_PATH: Final = {key.path: key for key in KEYS}
_HEADING: Final = """\
# The configuration of Cromford: every key, its value, and what it is for.
#
# A flag on the command line comes before the environment, the environment before this file, and
# this file before the default. The environment names a key CROMFORD_<SECTION>_<KEY>. Paths are
# relative to this file. A key that is commented out is not set.
"""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Setting:
    """A key's value and where it comes from: flag, environment, file or default."""

    key: Key
    value: Any
    source: str


class Settings(Mapping[str, Any]):
    """The value of every key, by its path: `settings["lsp.listen"]`."""

    def __init__(self, found: Mapping[str, Setting]) -> None:
        self._found = found

    def __getitem__(self, path: str) -> Any:  # noqa: ANN401 - each key its own
        return self._found[path].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def all(self) -> tuple[Setting, ...]:
        """Return every setting, in the order of the file."""
        return tuple(self._found.values())


def resolve(
    *,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    in_file: Mapping[str, Any],
) -> Settings:
    """Return the value of every key.

    Args:
        flags: What was typed, by the key's `param`; None for a flag that was not.
        environment: The process's environment, or nothing.
        in_file: What `read_file` returned, or nothing.

    Raises:
        CommandFailed: If a variable of the environment has no value of its key, names a key as it
            was once called, or begins with our prefix and names no key.
    """
    check_environment(environment)
    return Settings({key.path: _find(key, flags, environment, in_file) for key in KEYS})


def check_environment(environment: Mapping[str, str]) -> None:
    """Check that all that the environment says to us is heard: a misspelt name changes nothing.

    Raises:
        CommandFailed: Naming the first variable with our prefix that means nothing, and the one
            that it resembles.
    """
    for old, new in RENAMED.items():
        if environment.get(variable_of(old)):
            raise _invalid(f"{variable_of(old)}: it is called {variable_of(new)} now")
    _check_variables_of_tests(environment)
    # Whoever sets CROMFORD_SEED_PASSPHRASE believes that the seed is encrypted.
    known = {*(key.variable for key in KEYS), *OF_EVERY_COMMAND, *OF_TESTS}
    for name in sorted(name for name, text in environment.items() if text and name not in known):
        if not name.startswith(f"{ENV_PREFIX}_"):
            continue
        for section in SECTIONS:
            prefix = f"{ENV_PREFIX}_{section}_".upper()
            if name.startswith(prefix):
                raise _invalid(f"{name}: {_unknown(section, name.removeprefix(prefix).lower())}")
        near = difflib.get_close_matches(name, sorted(known - OF_TESTS), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise _invalid(f"{name}: there is no such key{meant}")


def _check_variables_of_tests(environment: Mapping[str, str]) -> None:
    """Check that what is for the tests alone is not meant for a daemon; no value is repeated."""
    seed, bitcoind = f"{ENV_PREFIX}_SEED", f"{ENV_PREFIX}_BITCOIND"
    if not (environment.get(seed) or "0").strip().isdecimal():
        meant = "a seed is never taken from the environment, see `seed restore`"
        raise _invalid(f"{seed}: there is no such key; {meant}")
    if ":" in environment.get(bitcoind, ""):  # As in no path of a program, but of a node.
        meant = f"did you mean {variable_of('chain.url')}?"
        raise _invalid(f"{bitcoind}: there is no such key; {meant}")


def _find(
    key: Key,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    in_file: Mapping[str, Any],
) -> Setting:
    typed = flags.get(key.param)
    if typed is not None:
        return Setting(key, typed, "flag")
    text = environment.get(key.variable)
    if text:
        try:
            return Setting(key, key.kind.of_text(text), "environment")
        except ValueError as error:
            raise _invalid(f"{key.variable}: {error}") from error
    if key.path in in_file:
        return Setting(key, in_file[key.path], "file")
    return Setting(key, key.default, "default")


def read_file(path: Path) -> dict[str, Any]:
    """Return the values in a TOML file, by the paths of their keys.

    Raises:
        CommandFailed: If the file is missing, is no TOML, or has something that is no value of a
            known key: naming the key, what was expected, and what was received.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_SIZE_MAX + 1)
        if len(data) > CONFIG_SIZE_MAX:
            raise _invalid(f"{path}: expected at most {CONFIG_SIZE_MAX} bytes")
        sections = tomllib.loads(data.decode("utf-8-sig"), parse_float=_decimal)
    except FileNotFoundError as error:
        raise CommandFailed(
            "config_not_found", f"{path}: there is no such file", exit_code=EXIT_NOT_FOUND
        ) from error
    except OSError as error:
        raise CommandFailed("config_unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:
        # Both a TOML error and bytes that are no UTF-8 are one.
        raise _invalid(f"{path}: {error}") from error
    except RecursionError as error:
        raise _invalid(f"{path}: nested too deeply") from error
    return dict(_values(path, sections))


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError as error:
        raise ValueError(f"expected a number, received {text:.40}") from error


def _values(path: Path, sections: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, keys in sections.items():
        if section not in SECTIONS or not isinstance(keys, dict):
            expected = ", ".join(f"[{name}]" for name in SECTIONS)
            raise _invalid(f"{path}: {section}: expected one of the sections {expected}")
        for name, received in keys.items():
            key = _BY_PATH.get(f"{section}.{name}")
            if key is None:
                raise _invalid(f"{path}: {section}.{name}: {_unknown(section, name)}")
            try:
                value = key.kind.of_toml(received)
            except ValueError as error:
                raise _invalid(f"{path}: {key.path}: {error}") from error
            yield key.path, path.parent.absolute() / value if isinstance(key.kind, File) else value


def _unknown(section: str, name: str) -> str:
    if new := RENAMED.get(f"{section}.{name}"):
        return f"it is called {new} now"
    known = [key.name for key in KEYS if key.section == section]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"there is no such key{meant}"


def _invalid(message: str) -> CommandFailed:
    return CommandFailed(
        "config_invalid",
        message,
        remediation="`cromford config dump` shows every key and what it takes.",
        exit_code=EXIT_USAGE,
    )


def dump(settings: Settings) -> str:
    """Return a complete TOML file: every key, its value, and a comment that explains it."""
    lines = [_HEADING]
    for section, meaning in SECTIONS.items():
        lines += [f"\n# {meaning}\n[{section}]\n\n"]
        for setting in settings.all():
            if setting.key.section == section:
                lines += _dumped(setting)
    return "".join(lines).rstrip("\n") + "\n"


def _dumped(setting: Setting) -> Iterator[str]:
    key = setting.key
    told = f"{key.help} Default: {key.default_text}. Environment: {key.variable}"
    for line in textwrap.wrap(told, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}\n"
    if setting.value is None:
        yield f"#{key.name} =\n\n"
    else:
        yield f"{key.name} = {key.kind.to_toml(setting.value)}\n\n"


def flag_of(path: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds a key's flag to a command.

    Raises:
        ValueError: If the key has none.
    """
    key = _BY_PATH[path]
    if key.flag is None:
        raise ValueError(f"{path} has no flag")
    if isinstance(key.kind, Flag):
        return click.option(key.flag, key.param, is_flag=True, default=None, help=key.help)
    return click.option(
        key.flag,
        key.param,
        type=Option(key.kind),
        metavar=key.kind.metavar,
        help=f"{key.help}  [default: {key.default_text}]",
    )


def flags_of(*sections: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the flags of whole sections to a command."""
    paths = [
        key.path
        for section in sections
        for key in KEYS
        if key.section == section and key.flag is not None
    ]

    def decorate(command: _Command) -> _Command:
        for path in reversed(paths):
            command = flag_of(path)(command)
        return command

    return decorate
