"""Checkpoints while the daemon runs: made in a thread, so that the loop goes on meanwhile."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cromford.daemon.streams import Stream
from cromford.ports import Checkpoint

_log = logging.getLogger(__name__)


class Checkpoints:
    """Takes the checkpoints that are due, one of a stream at a time.

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

    def look(self, stream: Stream[Any]) -> None:
        """Begin a checkpoint of a stream if one is due and none is being made."""
        if stream.is_due and stream.name not in self._busy:
            self._busy.add(stream.name)
            self._spawn(self._take(stream))

    async def _take(self, stream: Stream[Any]) -> None:
        try:
            checkpoint = await asyncio.to_thread(stream.begin_checkpoint())
        except Exception:  # noqa: BLE001 - a bug of ours; the records are there, the daemon stays
            _log.exception("checkpoint_failed stream=%s", stream.name)
            return
        finally:
            self._busy.discard(stream.name)
        await self._keep(checkpoint)
        stream.kept(checkpoint)
        _log.info(
            "checkpoint_taken stream=%s records=%d size=%d",
            stream.name,
            checkpoint.n,
            len(checkpoint.snapshot),
        )
