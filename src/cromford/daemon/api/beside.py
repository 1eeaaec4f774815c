"""Work that takes too long for the loop is done beside it, in a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from cromford.daemon.api.failures import ApiFailure

_Result = TypeVar("_Result")


async def beside(work: Callable[[], _Result]) -> _Result:
    """Return what some work gives that knows no state of the daemon's.

    Raises:
        ApiFailure: If the system allows no more threads now (`pids.max`, `ulimit -u`).
    """
    is_refused = False

    def unless_refused() -> _Result:
        # CPython leaves what no thread was had for where the next one that is free finds it.
        if is_refused:
            raise asyncio.CancelledError
        return work()

    try:
        begun = asyncio.get_running_loop().run_in_executor(None, unless_refused)
    except RuntimeError as error:
        is_refused = True
        raise ApiFailure(
            "thread_unavailable",
            f"the system allows no more threads now: {error}",
            retryable=True,
            remediation="Try again. If that lasts, raise the limit of tasks: `TasksMax` of "
            "systemd, `pids.max`, `ulimit -u`.",
        ) from error
    return await begun
