"""How many files a process may have open at once, sockets among them.

Systems start a process with a soft limit, often 1,024, that it may raise itself up to a hard one.
"""

import resource
from typing import Final

UNLIMITED: Final = resource.RLIM_INFINITY
# What a process has open besides its connections, rounded up: its store with a replica and marks,
# calls at its node, its operator's connections, listening sockets, libraries.
OWN_FILES: Final = 256


class TooFewFiles(OSError):
    """The system lets this process open too few files to serve anybody."""

    def __init__(self, *, needed: int, available: int) -> None:
        super().__init__(f"open files: expected at least {needed}, received {available}")
        self.needed = needed
        self.available = available


def allow_open_files(needed: int) -> int:
    """Raise the soft limit of open files, if it is lower and the hard one allows it.

    Args:
        needed: How many are needed, `OWN_FILES` among them.

    Returns:
        How many may be open now, of those that are needed: fewer where the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == UNLIMITED or soft >= needed:
        return needed
    most = needed if hard == UNLIMITED else min(needed, hard)
    if most > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            return soft  # A kernel's own limit may be lower than the hard one says.
    return max(most, soft)
