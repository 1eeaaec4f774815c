"""Where a process has what it allocates: in one heap, whichever thread asked for it.

The C library gives each thread a heap of its own, and what is freed there serves that thread alone.
A daemon's threads work in turns, so it would only keep more.
"""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # glibc, malloc.h.


def share_one_heap() -> bool:
    """Let threads that begin from now on use the first heap; do nothing with another C library.

    Returns:
        Whether they do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
