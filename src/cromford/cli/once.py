"""An option that takes one value is given once: of two the later one would win in silence."""

from collections import Counter
from collections.abc import Sequence

import click


def check_once(command: click.Command, words: Sequence[str], parent: click.Context | None) -> None:
    """Check the options of a command, and of the one that is named behind them.

    What is no command line at all is left to who parses it.

    Args:
        command: The command.
        words: What follows its name.
        parent: Of the command that it is one of; None of the first.

    Raises:
        click.UsageError: Naming an option that was given more than once.
    """
    settings = command.context_settings
    ctx = click.Context(command, info_name=command.name, parent=parent, **settings)
    try:
        _, rest, order = command.make_parser(ctx).parse_args(list(words))
    except click.UsageError:
        return
    for param, times in Counter(order).items():
        if times > 1 and _takes_one_value(param):
            raise click.UsageError(f"{param.opts[0]}: expected once, received {times} times", ctx)
    if isinstance(command, click.Group) and rest:
        named = command.get_command(ctx, rest[0])
        if named is not None:
            check_once(named, rest[1:], ctx)


def _takes_one_value(param: click.Parameter) -> bool:
    """Say whether a later value takes the place of an earlier one, and they may differ."""
    if not isinstance(param, click.Option) or param.multiple or param.count:
        return False
    return not param.is_flag or bool(param.secondary_opts)
