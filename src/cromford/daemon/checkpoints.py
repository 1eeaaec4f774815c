"""Checkpoints while the daemon runs: made in a thread, so that the loop goes on meanwhile."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Any, Final

from cromford.daemon.driver import Driver
from cromford.ports import Checkpoint

# Those in which nothing happens leave memory with the next blocks, and no block waits for many.
QUIET_PER_BLOCK: Final = 32

_log = logging.getLogger(__name__)


class Checkpoints:
    """Takes the checkpoints that are due, one of a stream at a time; lets quiet streams sleep.

    Args:
        spawn: Runs a task of the daemon; its failure, a journal that cannot be written, ends it.
        keep: Puts a checkpoint in its place, after the records that it stands for.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        keep: Callable[[Checkpoint], Awaitable[None]],
    ) -> None:
        self._spawn = spawn
        self._keep = keep
        self._busy: set[str] = set()

    def look(self, driver: Driver[Any]) -> None:
        """Begin a checkpoint of each stream of which one is due and none is being made."""
        for name in driver.due_checkpoints():
            self._begin(driver, name)

    def rest(self, driver: Driver[Any]) -> None:
        """Let streams go from memory in which nothing happens, once a checkpoint says it all."""
        for name in [*islice(driver.quiet(), QUIET_PER_BLOCK)]:
            if name not in self._busy and not driver.put_to_sleep(name):
                self._begin(driver, name, sleeps=True)

    def _begin(self, driver: Driver[Any], name: str, *, sleeps: bool = False) -> None:
        if name not in self._busy:
            self._busy.add(name)
            self._spawn(self._take(driver, name, sleeps=sleeps))

    async def _take(self, driver: Driver[Any], name: str, *, sleeps: bool) -> None:
        try:
            await self._make(driver, name)
        finally:
            self._busy.discard(name)
        if sleeps and driver.put_to_sleep(name):
            _log.info("stream_asleep stream=%s", name)

    async def _make(self, driver: Driver[Any], name: str) -> None:
        try:
            checkpoint = await asyncio.to_thread(driver.begin_checkpoint(name))
        except Exception:  # noqa: BLE001 - a bug of ours; the records are there, the daemon stays
            _log.exception("checkpoint_failed stream=%s", name)
            return
        await self._keep(checkpoint)
        driver.kept(checkpoint)
        _log.info(
            "checkpoint_taken stream=%s records=%d size=%d",
            name,
            checkpoint.n,
            len(checkpoint.snapshot),
        )
