"""How long a peer stays out that a decision failed for: longer each time, and never for good.

It need not be the peer's fault: the bug is ours. But whoever meets it again and again costs a
connection and a traceback each time.
"""

from dataclasses import dataclass
from typing import Final

from cromford.recent import Recent

PAUSE_FIRST_SECONDS: Final = 1.0
# An HTLC leaves hours to answer it: ten minutes endanger nothing.
PAUSE_MAX_SECONDS: Final = 600.0
FORGOTTEN_SECONDS: Final = 3600.0  # After so long without another one, the first pause is due.
PEERS_MAX: Final = 1024  # Names cost nothing: of more, those that offended first go.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offence:
    pause_seconds: float
    time: float


class Offences:
    """When each peer's last connection ended that way, for a limited number of peers."""

    def __init__(self) -> None:
        self._last = Recent[bytes, _Offence](PEERS_MAX)

    def note(self, node_id: bytes, *, now: float) -> float:
        """Take one, and return for how many seconds the peer stays out."""
        last = self._last.get(node_id)
        seconds = PAUSE_FIRST_SECONDS
        if last is not None and now - last.time < FORGOTTEN_SECONDS:
            seconds = min(2 * last.pause_seconds, PAUSE_MAX_SECONDS)
        self._last.note(node_id, _Offence(pause_seconds=seconds, time=now))
        return seconds

    def keeps_out(self, node_id: bytes, *, now: float) -> bool:
        """Say whether a peer has to wait before it is served again."""
        last = self._last.get(node_id)
        return last is not None and now - last.time < last.pause_seconds
