"""docs/cli.md, generated from the commands themselves: `python -m cromford.cli.reference`."""

import sys
from collections.abc import Iterator
from typing import Final

import click

from cromford.cli.main import cromford

HEADING: Final = """# The command line

Generated from the commands by `python -m cromford.cli.reference > docs/cli.md`; a test keeps it so.

Results go to stdout, errors to stderr. With `--json` both are one JSON document, an error as
`{code, message, retryable, remediation}`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not
authenticated, 4 not found, 5 needs confirmation.

What a daemon is started with can also stand in the environment or in a file: each flag of `run`
says its default, and `cromford config dump` shows every key with a comment.

The options of `cromford` itself may stand before or after a command; they are not repeated below.
"""


def reference() -> str:
    """Return the whole page."""
    context = click.Context(cromford, info_name="cromford", **cromford.context_settings)
    return HEADING + "".join(_sections(context, cromford))


def _sections(context: click.Context, command: click.Command) -> Iterator[str]:
    yield _section(context, command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                nested = click.Context(child, info_name=name, parent=context)
                yield from _sections(nested, child)


def _section(context: click.Context, command: click.Command) -> str:
    everywhere = records(context.find_root())
    depth = context.command_path.count(" ") + 2
    lines = [f"\n{'#' * min(depth, 4)} `{context.command_path}`\n"]
    described = (command.help or "").replace("\b\n", "").strip()
    if described:
        lines.append(f"\n{unwrapped(described)}\n")
    usage = " ".join(command.collect_usage_pieces(context))
    lines.append(f"\n```\n{context.command_path} {usage}\n```\n")
    is_root = context.parent is None
    own = [record for record in records(context) if is_root or record not in everywhere]
    if own:
        lines.append("\n| option | meaning |\n|---|---|\n")
        lines += [f"| `{_cell(option)}` | {_cell(meaning)} |\n" for option, meaning in own]
    return "".join(lines)


def records(context: click.Context) -> list[tuple[str, str]]:
    """Return a command's options as its help has them: how each is typed, and what it means."""
    return [
        record
        for param in context.command.get_params(context)
        if isinstance(param, click.Option) and (record := param.get_help_record(context))
    ]


def unwrapped(text: str) -> str:
    """Return text with each paragraph on one line."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
