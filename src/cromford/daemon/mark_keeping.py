"""What a daemon does as the place of its mark goes away, comes back, or proves something."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from cromford.daemon.marks import RETRY_SECONDS, Marks
from cromford.daemon.peers import Peers
from cromford.protocol import events as ev

MARKED_AGAIN: Final = "a mark can be written again: where the channels stand is told anew"

_log = logging.getLogger(__name__)


class MarkKeeping:
    """Tries a place again that is away, and tells the role what it has to know.

    Made in the daemon's loop.

    Args:
        marks: What writes the mark.
        peers: Whoever is connected.
        post: Takes an event.
        spawn: Runs a task of the daemon.
        settled: Returns once all that was decided by now is durable.
        cover: Tries to write the mark, and returns.
    """

    def __init__(
        self,
        marks: Marks,
        *,
        peers: Peers,
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        settled: Callable[[], Awaitable[None]],
        cover: Callable[[], Awaitable[None]],
    ) -> None:
        self._marks = marks
        self._peers = peers
        self._post = post
        self._spawn = spawn
        self._settled = settled
        self._cover = cover
        self._is_told = False
        self._loop = asyncio.get_running_loop()
        marks.changed = self._tell
        spawn(self._try_again())
        spawn(self._tell_proof())

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is gone, and its peers.
            self._loop.call_soon_threadsafe(self._on_changed)

    def _on_changed(self) -> None:
        if self._marks.unmarkable is not None:
            return
        # What was withheld is told again: the channels begin a connection anew.
        self._peers.disconnect_all(MARKED_AGAIN)
        self._post(ev.FactsChanged())
        self._spawn(self._tell_proof())

    async def _try_again(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if self._marks.unmarkable is not None:
                await self._cover()

    async def _tell_proof(self) -> None:
        """Let the role lift the marks of its channels; the store forgets them after that only.

        Once in each run: a factory that a bug had stopped did not hear of it in an earlier one.
        """
        if self._marks.is_proven and not self._is_told:
            self._is_told = True
            if self._marks.memo.source:
                _log.warning("store_proven reason=%s", "the mark proves that nothing was lost")
            self._post(ev.StoreProven())
            await self._settled()
            self._marks.proof_is_kept()
