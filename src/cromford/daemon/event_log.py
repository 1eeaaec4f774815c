"""What happened, in order, as people and programs read it: a view of the journal.

Every record has a number for ever, so a reader that remembers the last number it saw misses
nothing and sees nothing twice. Signatures, nonces and keys stay in the journal, and so do
preimages, payment secrets and the invoices that hold them.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any, Final

import msgspec

from cromford.bitcoin.tx import Txid
from cromford.protocol.journal.records import AnyRecord

EVENTS_KEPT_MAX: Final = 10_000  # Older ones are still in the journal, and told after a restart.
EVENTS_PER_ANSWER_MAX: Final = 1_000
_TOLD: Final = frozenset(
    {
        "aborted", "amount_msat", "attempt", "attempt_id", "capacity_least_sat", "capacity_sat",
        "change", "channel_id", "client", "culprits", "expires_at", "factory_pubkey", "fee_msat",
        "height", "htlc_id", "is_behind", "is_fault", "is_moving", "max_clients", "min_clients",
        "name", "network", "node_id", "node_ids", "out_channel_id", "out_htlc_id", "payee",
        "payment_hash", "reason", "reasons", "refusal", "role", "transactions", "txid",
    }
)  # fmt: skip


class EventLog:
    """The newest events, numbered from 1 in the order of the journal."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT_MAX)
        self._n_seen = 0
        self._news = asyncio.Event()
        self._is_closed = False

    @property
    def n_seen(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._n_seen

    def observe(self, record: AnyRecord) -> int:
        """Take one durable record, and return its number."""
        self._n_seen += 1
        told = {
            name: str(Txid(value)) if name == "txid" else _plain(value)
            for name, value in msgspec.structs.asdict(record).items()
            if name in _TOLD
        }
        event = type(record).__struct_config__.tag
        self._events.append({"number": self._n_seen, "event": event, **told})
        self._news.set()
        return self._n_seen

    def close(self) -> None:
        """End every wait, and let none begin: the daemon stops."""
        self._is_closed = True
        self._news.set()

    def after(self, number: int, *, limit: int = EVENTS_PER_ANSWER_MAX) -> list[dict[str, Any]]:
        """Return the events after a number, oldest first."""
        newer = [event for event in self._events if event["number"] > number]
        return newer[: min(limit, EVENTS_PER_ANSWER_MAX)]

    async def wait_after(self, number: int, *, seconds: float) -> list[dict[str, Any]]:
        """Return the events after a number, waiting for one if there is none yet."""
        return self.after(number) if await self.wait_beyond(number, seconds=seconds) else []

    async def wait_beyond(self, number: int, *, seconds: float) -> bool:
        """Wait for an event with a greater number, and say whether there is one."""
        if self._n_seen <= number and not self._is_closed:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout=seconds)
        return self._n_seen > number


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
