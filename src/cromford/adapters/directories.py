"""Directories and names that survive a loss of power, and that only their owner reads."""

import os
from pathlib import Path
from typing import Final

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600  # A journal holds transactions that can be broadcast.


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durably; readable by the owner only.

    Raises:
        OSError: If one cannot be made.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Let a new name survive the loss of power, as its contents do."""
    directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads: durable before it takes the name, or not at all.

    Where the name is a link, the file that it leads to is replaced, and the link stays.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)  # A crash may have left one.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
