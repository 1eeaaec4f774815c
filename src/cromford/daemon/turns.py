"""Whose message is handled next: everybody's in turn, and those with channels before strangers.

Each peer asks for one turn at a time, and hears nothing more from its socket until it had it. So
the queue is a round of all peers that have said something, and whoever says more waits longer:
its messages stay in its own socket.
"""

import asyncio
from collections import deque
from typing import Final

# While somebody with a channel waits, a stranger has one turn in eight: late, but not never.
STRANGER_TURN_EVERY: Final = 8


class Turns:
    """Grants one turn in each round of the event loop, so that the loop stays everybody's."""

    def __init__(self) -> None:
        self._owners: deque[asyncio.Future[None]] = deque()
        self._strangers: deque[asyncio.Future[None]] = deque()
        self._n_granted = 0
        self._is_granting = False

    async def take(self, *, is_stranger: bool) -> None:
        """Return when it is the caller's turn; it does its work before it waits for anything.

        For those with channels that is at once, where nobody waits or had a turn in this round.
        """
        loop = asyncio.get_running_loop()
        is_free = not self._is_granting
        if is_free:
            self._is_granting = True
            loop.call_soon(self._grant)  # What comes meanwhile waits for the next round.
        if is_free and not is_stranger:
            self._n_granted += 1
            return
        turn = loop.create_future()
        (self._strangers if is_stranger else self._owners).append(turn)
        await turn

    def _grant(self) -> None:
        while (queue := self._next_queue()) is not None:
            turn = queue.popleft()
            if not turn.done():  # Who went away meanwhile needs no turn.
                self._n_granted += 1
                turn.set_result(None)
                break
        else:
            self._is_granting = False  # Nobody had a turn in this round.
            return
        asyncio.get_running_loop().call_soon(self._grant)

    def _next_queue(self) -> deque[asyncio.Future[None]] | None:
        is_for_strangers = self._n_granted % STRANGER_TURN_EVERY == STRANGER_TURN_EVERY - 1
        if self._strangers and (is_for_strangers or not self._owners):
            return self._strangers
        return self._owners or None
