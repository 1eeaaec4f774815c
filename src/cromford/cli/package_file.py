"""An exit package in a file, read no further than a package can be long.

What reads one knows transactions and scripts: a command that needs none does not import it.
"""

from pathlib import Path

from cromford.cli.failures import EXIT_NOT_FOUND, EXIT_USAGE, CommandFailed


def package_bytes(path: Path) -> bytes:
    """Return what a file holds, and at most a byte more than a package may have.

    Raises:
        CommandFailed: If it cannot be read.
    """
    from cromford.watch.package_reading import PACKAGE_SIZE_MAX  # noqa: PLC0415 - see above

    try:
        with path.open("rb") as file:
            return file.read(PACKAGE_SIZE_MAX + 1)
    except FileNotFoundError as error:
        raise CommandFailed(
            "package_not_found", f"{path}: there is no such file", exit_code=EXIT_NOT_FOUND
        ) from error
    except OSError as error:
        raise CommandFailed("package_unreadable", f"{path}: {error.strerror}") from error


def package_text(path: Path) -> str:
    """Return a file for a daemon to check; here, only that it can be sent.

    Raises:
        CommandFailed: If it cannot be read, is too long, or is no text.
    """
    from cromford.watch.package_reading import (  # noqa: PLC0415 - see above
        PACKAGE_SIZE_MAX,
        InvalidPackage,
    )

    data = package_bytes(path)
    if len(data) > PACKAGE_SIZE_MAX:
        too_long = InvalidPackage("package", f"at most {PACKAGE_SIZE_MAX} bytes", "more")
        raise invalid_package(too_long)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        other = InvalidPackage("package", "UTF-8", f"another byte at {error.start}")
        raise invalid_package(other) from error


def invalid_package(error: Exception) -> CommandFailed:
    """Return how a file that is no package is refused."""
    return CommandFailed(
        "package_invalid",
        str(error),
        remediation="Take the file as `cromford client exit export` wrote it.",
        exit_code=EXIT_USAGE,
    )
