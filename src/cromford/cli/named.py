"""Options that name something: what a script gives that never set its variable names nothing."""

import os

import click


class NamedPath(click.Path):
    """A path; an empty one would be the directory that a command happens to be started in."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Return the path that was typed."""
        if value == "":
            self.fail("expected a path, received ''", param, ctx)
        return super().convert(value, param, ctx)


class Id(click.ParamType[str]):
    """An id; an empty one would be none, and what it is to prevent, or to find, would not be."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id that was typed."""
        if value == "":
            self.fail("expected an id, received ''", param, ctx)
        return value
