"""Staying connected to one peer: when to try again, and when to suspect a copy of oneself."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cromford.ports import Connection, ConnectionLost

PAUSE_FIRST_SECONDS: Final = 0.5
PAUSE_MAX_SECONDS: Final = 30.0
# Pauses are spread, so that a crowd of clients does not come back in one moment.
SPREAD_LOW: Final = 0.5
SPREAD_HIGH: Final = 1.5
# Longer than the longest pause with its spread. Of two copies of one data directory each throws the
# other out when it comes back, so neither's connection lasts that long; nor does that of a peer
# that hangs up after each handshake, which both sides write to their journals. After anything
# shorter the next pause is longer.
STEADY_SECONDS: Final = 60.0
SHORT_TO_TELL: Final = 3  # In a row, that many short connections are no accident.

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the next pause is, and how many connections in a row were short."""

    pause_seconds: float = PAUSE_FIRST_SECONDS
    n_short: int = 0

    def after_silence(self) -> "Patience":
        """Return it after a peer could not be reached."""
        return Patience(self._longer(), self.n_short)

    def after_connection(self, lasted_seconds: float) -> "Patience":
        """Return it after a connection has ended."""
        if lasted_seconds >= STEADY_SECONDS:
            return Patience()
        return Patience(self._longer(), self.n_short + 1)

    def _longer(self) -> float:
        return min(2 * self.pause_seconds, PAUSE_MAX_SECONDS)


class Reconnecting:
    """Keeps one connection, and tries again with a growing pause.

    Args:
        dial: Returns a new connection; a `ConnectionLost` or an `OSError` is tried again.
        serve: Runs a connection until it ends.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Connection]],
        serve: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._dial = dial
        self._serve = serve
        self._patience = Patience()
        self._began: float | None = None

    @property
    def connections_are_short(self) -> bool:
        """Whether several in a row were, and the present one has not lasted yet."""
        is_steady = self._began is not None and _now() - self._began >= STEADY_SECONDS
        return self._patience.n_short >= SHORT_TO_TELL and not is_steady

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            try:
                connection = await self._dial()
            except (ConnectionLost, OSError) as error:
                _log.info("peer_unreachable reason=%s", error)
                self._patience = self._patience.after_silence()
            else:
                await self._run(connection)
            share = SPREAD_LOW + (SPREAD_HIGH - SPREAD_LOW) * secrets.randbelow(1000) / 1000
            await asyncio.sleep(self._patience.pause_seconds * share)

    async def _run(self, connection: Connection) -> None:
        began = self._began = _now()
        await self._serve(connection)
        self._began = None
        self._patience = self._patience.after_connection(_now() - began)
        if self.connections_are_short:
            _log.warning(
                "connections_are_short node_id=%s in_a_row=%d hint=%s",
                connection.node_id.hex(),
                self._patience.n_short,
                "a second copy of this data directory may run elsewhere",
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
