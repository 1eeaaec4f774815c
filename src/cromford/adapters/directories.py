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
