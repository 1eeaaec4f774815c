"""Work that takes too long for the loop is done beside it, in a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from cromford.daemon.api.failures import ApiFailure

_Result = TypeVar("_Result")


async def beside(work: Callable[[], _Result]) -> _Result:
    """Return what some work gives that knows no state of the daemon's.

    Raises:
        ApiFailure: If the system allows no more threads now (`pids.max`, `ulimit -u`). CPython may
            have put the work where a thread that becomes free finds it.
    """
    try:
        begun = asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError as error:
        raise ApiFailure(
            "thread_unavailable",
            f"the system allows no more threads now: {error}",
            retryable=True,
            remediation="Try again; what was asked for may be done all the same. If that lasts, "
            "raise the limit of tasks (`TasksMax` of systemd, `pids.max`, `ulimit -u`).",
        ) from error
    return await begun
