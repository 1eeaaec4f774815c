"""A store's directory in a place that others share: one process holds it, if there are locks."""

import fcntl
import os
from pathlib import Path
from typing import Final

from cromford.adapters.directories import FILE_MODE, make_directory

LOCK_NAME: Final = "in-use.lock"


class PlaceInUse(OSError):
    """Another process holds it."""


class HeldDirectory:
    """A directory in a place.

    Args:
        root: The place. It is not made: an empty one may be a file system that is not mounted.
        name: The directory's.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.path = root / name
        self._lock_fd = -1

    def hold(self) -> None:
        """Make the directory where it is missing, and hold it for this process.

        Raises:
            PlaceInUse: If another process does.
            OSError: If the place is not there, or cannot be written.
        """
        if not self.root.is_dir():
            what = "is no directory" if self.root.exists() else "is not there"
            raise FileNotFoundError(f"{self.root} {what}")
        make_directory(self.path)
        if self._lock_fd >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock_fd = os.open(self.path / LOCK_NAME, flags, FILE_MODE)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            raise PlaceInUse(f"{self.path} is in use by another process") from None
        except OSError:
            os.close(lock_fd)  # A place without locks.
        else:
            self._lock_fd = lock_fd

    def let_go(self) -> None:
        """Let another process have it."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
