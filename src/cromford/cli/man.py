"""Man pages, generated from the commands: `python -m cromford.cli.man DIR` writes them there.

One page for `cromford`, and one for each of its groups with all that stands below it. None is kept
in the repository: what is made from the program that it describes cannot be stale.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from cromford import __version__
from cromford.cli.main import cromford
from cromford.cli.reference import records, unwrapped

SECTION: Final = 1
WIDTH: Final = 78
ENVIRONMENT: Final = """\
CROMFORD_DATADIR, CROMFORD_CONFIG and CROMFORD_JSON stand for the options of these names. Every
key of the configuration has a variable of its own: `cromford config dump` names them. One that
begins with CROMFORD_ and means nothing is refused."""
EXIT_STATUS: Final = (
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "Wrong usage, or a configuration that cannot be."),
    ("3", "Not authenticated."),
    ("4", "Not found."),
    ("5", "Needs confirmation."),
)
FILES: Final = (
    ("~/.cromford/ROLE/", "The data directory of a role, unless --datadir names another."),
    ("~/.cromford/ROLE/config.toml", "Its configuration, unless --config names another."),
)


def pages() -> dict[str, str]:
    """Return every page, by the name of its file."""
    root = click.Context(cromford, info_name="cromford", **cromford.context_settings)
    groups = [_below(root, name) for name in cromford.list_commands(root)]
    names = [_name_of(context) for context in (root, *groups)]
    return {
        f"{_name_of(context)}.{SECTION}": "".join(_page(context, names))
        for context in (root, *groups)
    }


def _below(context: click.Context, name: str) -> click.Context:
    assert isinstance(context.command, click.Group)  # noqa: S101 - only groups have names below
    command = context.command.get_command(context, name)
    if command is None:
        raise AssertionError(f"{name} is listed and is not there")
    return click.Context(command, info_name=name, parent=context)


def _all_below(context: click.Context) -> Iterator[click.Context]:
    """Yield every visible command below a group, in the order of its help."""
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            child = _below(context, name)
            if not child.command.hidden:
                yield child
                yield from _all_below(child)


def _name_of(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _page(context: click.Context, names: list[str]) -> Iterator[str]:
    name, is_root = _name_of(context), context.parent is None
    yield f'.TH "{name.upper()}" "{SECTION}" "" "cromford {__version__}" "Cromford"\n'
    summary = context.command.get_short_help_str(limit=200).rstrip(".")
    yield f".SH NAME\n{_plain(name)} \\- {_plain(summary)}\n"
    yield f".SH SYNOPSIS\n{_usage(context)}"
    yield f".SH DESCRIPTION\n{_paragraphs(context.command.help or '')}"
    yield from _options(".SH OPTIONS", context)
    below = [] if is_root else list(_all_below(context))
    if is_root:
        yield ".SH COMMANDS\n"
        for child in (_below(context, one) for one in cromford.list_commands(context)):
            summary = child.command.get_short_help_str(limit=200)
            yield from _item(f"\\fB{_plain(child.command_path)}\\fR", summary)
    elif below:
        yield ".SH COMMANDS\n"
    for child in below:
        yield f".SS {_plain(child.command_path)}\n{_usage(child)}.PP\n"
        yield _paragraphs(child.command.help or "")
        yield from _options(None, child)
    yield f".SH ENVIRONMENT\n{_plain(' '.join(ENVIRONMENT.split()))}\n"
    yield ".SH FILES\n"
    for path, meaning in FILES:
        yield from _item(f"\\fI{_plain(path)}\\fR", meaning)
    yield ".SH EXIT STATUS\n"
    for code, meaning in EXIT_STATUS:
        yield from _item(f"\\fB{code}\\fR", meaning)
    others = [one for one in names if one != name]
    yield ".SH SEE ALSO\n" + " ,\n".join(f".BR {_plain(one)} ({SECTION})" for one in others) + "\n"


def _usage(context: click.Context) -> str:
    usage = " ".join(context.command.collect_usage_pieces(context))
    return f"\\fB{_plain(context.command_path)}\\fR {_plain(usage)}\n"


def _options(heading: str | None, context: click.Context) -> Iterator[str]:
    everywhere = [] if context.parent is None else records(context.find_root())
    found = [record for record in records(context) if record not in everywhere]
    if found and heading is not None:
        yield f"{heading}\n"
    for option, meaning in found:
        yield from _item(f"\\fB{_plain(option)}\\fR", meaning)


def _item(term: str, meaning: str) -> Iterator[str]:
    yield f".TP\n{term}\n{_plain(' '.join(meaning.split()))}\n"


def _paragraphs(described: str) -> str:
    text = unwrapped(described.replace("\b\n", "").strip())
    return "\n.PP\n".join(_plain(paragraph) for paragraph in text.split("\n\n")) + "\n"


def _plain(text: str) -> str:
    """Return text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    lines = textwrap.wrap(escaped, WIDTH, break_long_words=False, break_on_hyphens=False)
    # A line of text that begins with one of these is a request.
    return "\n".join(f"\\&{line}" if line[0] in ".'" else line for line in lines)


def write(directory: Path) -> None:
    """Write every page into a directory, which is made.

    Raises:
        OSError: If it cannot be.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (directory / name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cromford.cli.man DIR")
    write(Path(sys.argv[1]))
