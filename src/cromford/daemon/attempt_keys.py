"""Fresh keys and nonces for an attempt, made a channel at a time: others have turns meanwhile.

Those of a thousand clients take a second of CPU. Made at once, nobody's ping would be answered, and
no payment go on, until the last is there. Where there is no room for them, the attempt waits: what
has the room, closes and advances, ends by its own deadline.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from cromford import effects as fx
from cromford.daemon.signing import attempt_prepared
from cromford.protocol import events as ev
from cromford.signing.nonces import NoPoolFree
from cromford.signing.signer import Signer

NO_ROOM_SECONDS: Final = 1.0  # Until room for its nonces is looked for again.

_log = logging.getLogger(__name__)


class AttemptKeys:
    """Makes the keys of one attempt after another, so that no more pools are held than for one.

    Args:
        signer: Has the secrets. Only the event loop asks it, as for everything else.
        draw: Returns 32 random bytes.
        post: Takes the event that answers.
        pause: Waits for some seconds.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        draw: Callable[[], bytes],
        post: Callable[[ev.Event], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._signer = signer
        self._draw = draw
        self._post = post
        self._pause = pause
        self._making = asyncio.Lock()

    async def prepare(self, asked: fx.PrepareAttempt) -> None:
        """Make what an attempt needs, and post it. What is not wanted any more is dropped then."""
        async with self._making:
            while (prepared := await self._try(asked)) is None:
                await self._pause(NO_ROOM_SECONDS)
            self._post(prepared)

    async def _try(self, asked: fx.PrepareAttempt) -> ev.AttemptPrepared | None:
        """Return what an attempt needs; None if there is no room for it now."""
        try:
            for prepared in attempt_prepared(self._signer, self._draw, asked):
                if prepared is not None:
                    return prepared
                await asyncio.sleep(0)
        except NoPoolFree as lacking:
            _log.warning("no_room_for_nonces attempt=%d reason=%s", asked.attempt, lacking)
        return None
