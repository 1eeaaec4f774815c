"""Fresh keys and nonces for an attempt, made a channel at a time: others have turns meanwhile.

Those of a thousand clients take a second of CPU. Made at once, nobody's ping would be answered, and
no payment go on, until the last is there.
"""

import asyncio
from collections.abc import Callable

from cromford import effects as fx
from cromford.daemon.signing import attempt_prepared
from cromford.protocol import events as ev
from cromford.signing.signer import Signer


class AttemptKeys:
    """Makes the keys of one attempt after another, so that no more pools are held than for one.

    Args:
        signer: Has the secrets. Only the event loop asks it, as for everything else.
        draw: Returns 32 random bytes.
        post: Takes the event that answers.
    """

    def __init__(
        self, signer: Signer, *, draw: Callable[[], bytes], post: Callable[[ev.Event], None]
    ) -> None:
        self._signer = signer
        self._draw = draw
        self._post = post
        self._making = asyncio.Lock()

    async def prepare(self, asked: fx.PrepareAttempt) -> None:
        """Make what an attempt needs, and post it. What is not wanted any more is dropped then."""
        async with self._making:
            steps = attempt_prepared(self._signer, self._draw, asked)
            while True:
                try:
                    next(steps)
                except StopIteration as made:
                    self._post(made.value)
                    return
                await asyncio.sleep(0)
