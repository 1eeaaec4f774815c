"""What no thread was had for is refused, and not done once there is one."""

import asyncio
import threading

import pytest

from cromford.daemon.api.beside import beside
from cromford.daemon.api.failures import ApiFailure


def test_what_was_refused_is_not_done_by_the_next_thread_that_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    async def run() -> None:
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ApiFailure, match="can't start new thread") as failure:
                await beside(lambda: done.append("refused"))
        assert (failure.value.code, failure.value.retryable) == ("thread_unavailable", True)
        await beside(lambda: done.append("asked again"))

    asyncio.run(run())
    assert done == ["asked again"]


def test_what_the_work_raises_is_its_own() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(beside(fail))
