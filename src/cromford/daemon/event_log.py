"""What happened, in order, as people and programs read it: a view of the journal.

Every record has a number for ever, so a reader that remembers the last number it saw misses
nothing and sees nothing twice. Signatures, nonces and keys stay in the journal.
"""

import asyncio
from collections import deque
from typing import Any, Final

import msgspec

from cromford.protocol.records import AnyRecord

EVENTS_KEPT_MAX: Final = 10_000  # Older ones are still in the journal, and told after a restart.
EVENTS_PER_ANSWER_MAX: Final = 1_000
_TOLD: Final = frozenset(
    {
        "aborted", "attempt", "attempt_id", "capacity_least_sat", "capacity_sat", "change",
        "client", "culprits", "factory_pubkey", "height", "is_fault", "is_moving", "max_clients",
        "min_clients", "network", "node_id", "node_ids", "reason", "reasons", "refusal", "role",
    }
)  # fmt: skip


class EventLog:
    """The newest events, numbered from 1 in the order of the journal."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT_MAX)
        self._n_seen = 0
        self._news = asyncio.Event()

    def observe(self, record: AnyRecord) -> None:
        """Take one durable record."""
        self._n_seen += 1
        told = {
            name: _plain(value)
            for name, value in msgspec.structs.asdict(record).items()
            if name in _TOLD
        }
        event = type(record).__struct_config__.tag
        self._events.append({"number": self._n_seen, "event": event, **told})
        self._news.set()

    def after(self, number: int, *, limit: int = EVENTS_PER_ANSWER_MAX) -> list[dict[str, Any]]:
        """Return the events after a number, oldest first."""
        newer = [event for event in self._events if event["number"] > number]
        return newer[: min(limit, EVENTS_PER_ANSWER_MAX)]

    async def wait_after(self, number: int, *, seconds: float) -> list[dict[str, Any]]:
        """Return the events after a number, waiting for one if there is none yet."""
        if self._n_seen <= number:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout=seconds)
            except TimeoutError:
                return []
        return self.after(number)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
