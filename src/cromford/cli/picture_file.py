"""A picture in a file: whole or not at all, and never over one that is there unasked."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cromford.adapters.directories import sync_directory
from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation
from cromford.cli.named import NamedPath

MODE: Final = 0o666  # Less the umask, as any file that is made to be shown.
Document = dict[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def picture_options(command: _Command) -> _Command:
    """Add `--svg`, `--html` and `--overwrite`."""
    return svg_option(html_option(overwrite_option(command)))


def svg_option(command: _Command) -> _Command:
    """Add `--svg`."""
    return click.option(
        "--svg",
        "svg_file",
        metavar="FILE",
        type=NamedPath(dir_okay=False, path_type=Path),
        help="Draw it into this file, as SVG.",
    )(command)


def html_option(command: _Command) -> _Command:
    """Add `--html`."""
    return click.option(
        "--html",
        "html_file",
        metavar="FILE",
        type=NamedPath(dir_okay=False, path_type=Path),
        help="The picture and all numbers as one page that needs nothing else, into this file.",
    )(command)


def overwrite_option(command: _Command) -> _Command:
    """Add `--overwrite`."""
    return click.option("--overwrite", is_flag=True, help="Replace a file that is there.")(command)


def draw_factory(
    invocation: Invocation,
    document: Document,
    *,
    svg_file: Path | None,
    html_file: Path | None,
    overwrites: bool,
) -> None:
    """Write what was asked for of a factory's document.

    Raises:
        CommandFailed: If a file is there already, or cannot be written.
        UsageError: If no file is named that could be replaced.
    """
    check_overwrite(svg_file, html_file, overwrites=overwrites)
    # Only these need it, and most answers are none.
    from cromford.picture.factory import factory_picture  # noqa: PLC0415 - see above
    from cromford.picture.page import factory_page  # noqa: PLC0415 - see above

    for path, draw in ((svg_file, factory_picture), (html_file, factory_page)):
        if path is not None:
            write_picture(invocation, path, draw(document), overwrites=overwrites)


def draw_factories(
    invocation: Invocation, document: Document, *, svg_file: Path | None, overwrites: bool
) -> None:
    """Write the time line of all factories, if that was asked for.

    Raises:
        CommandFailed: If the file is there already, or cannot be written.
        UsageError: If no file is named that could be replaced.
    """
    check_overwrite(svg_file, overwrites=overwrites)
    if svg_file is not None:
        from cromford.picture.factories import factories_picture  # noqa: PLC0415 - as above

        write_picture(invocation, svg_file, factories_picture(document), overwrites=overwrites)


def check_overwrite(*files: Path | None, overwrites: bool) -> None:
    """Check that what is to be replaced is named.

    Raises:
        UsageError: If none of the files is.
    """
    if overwrites and not any(files):
        raise click.UsageError("--overwrite: expected a file to draw into, received none")


def write_picture(invocation: Invocation, path: Path, text: str, *, overwrites: bool) -> None:
    """Write a picture durably, under a name that it gets when it is whole, and tell people so.

    Raises:
        CommandFailed: If the file is there already, or cannot be written.
    """
    try:
        _write(path, text.encode("utf-8"), overwrites=overwrites)
    except FileExistsError as error:
        raise CommandFailed(
            "file_exists",
            f"{path} exists",
            remediation="Name another file, or add --overwrite.",
        ) from error
    except OSError as error:
        raise CommandFailed("file_not_written", f"{path}: {error.strerror}") from error
    if not invocation.is_json:
        click.echo(f"written: {path}", err=True)


def _write(path: Path, data: bytes, *, overwrites: bool) -> None:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "expected a file, received a pipe or a device")
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        partial = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), MODE & ~_umask())
            os.fsync(file.fileno())
            if overwrites:
                partial.replace(path)
            else:
                path.hardlink_to(partial)  # Unlike a rename, it replaces nothing.
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
    sync_directory(path.parent)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
