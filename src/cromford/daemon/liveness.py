"""Whether a peer is there: a ping once it is silent, and the end if it says nothing to that."""

import asyncio
from collections.abc import Callable
from typing import Final

# In slices: a daemon that was busy for longer than one has not read yet what came meanwhile, and
# must not take its own pause for the peer's. Six slices are longer than any step of a ceremony.
SLICE_SECONDS: Final = 15.0
PING_AT_SLICE: Final = 2
GONE_AT_SLICE: Final = 6


class Liveness:
    """Listens for one peer.

    Args:
        ping: Sends a ping.
    """

    def __init__(self, ping: Callable[[], None]) -> None:
        self._ping = ping
        self._heard = asyncio.Event()

    def note(self) -> None:
        """Note that the peer said something: whatever it is, somebody sent it."""
        self._heard.set()

    async def gone(self) -> None:
        """Return once the peer says nothing, not even to a ping."""
        n_silent = 0
        while n_silent < GONE_AT_SLICE:
            n_silent = 0 if await self._is_heard() else n_silent + 1
            if n_silent == PING_AT_SLICE:
                self._ping()

    async def _is_heard(self) -> bool:
        self._heard.clear()
        try:
            async with asyncio.timeout(SLICE_SECONDS):
                await self._heard.wait()
        except TimeoutError:
            return False
        # One message is enough for a whole slice: a busy connection costs nothing.
        await asyncio.sleep(SLICE_SECONDS)
        return True
