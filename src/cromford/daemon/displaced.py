"""Which peers' connections are displaced by newer ones of the same name, again and again."""

from typing import Final

from cromford.recent import Recent

# A line that broke without a word is displaced once, when its peer comes back. If it happens this
# often in ten minutes, two daemons have one name: copies of one data directory, each of which
# throws out the other.
DISPLACED_TO_TELL: Final = 5
WINDOW_SECONDS: Final = 600.0
PEERS_MAX: Final = 1024  # Names cost nothing: of more, those that were displaced first go.


class Displaced:
    """Remembers when connections were displaced, for a while, for a limited number of peers."""

    def __init__(self) -> None:
        self._times = Recent[bytes, tuple[float, ...]](PEERS_MAX)

    def note(self, node_id: bytes, *, now: float) -> bool:
        """Take one displacement; return whether this peer's have become too many to be chance."""
        times = (*(self._times.get(node_id) or ()), now)[-DISPLACED_TO_TELL:]
        self._times.note(node_id, times)
        return _is_contested(times, now)

    def contested(self, *, now: float) -> tuple[bytes, ...]:
        """Return the node ids that two daemons seem to have."""
        return tuple(i for i, times in self._times.items() if _is_contested(times, now))


def _is_contested(times: tuple[float, ...], now: float) -> bool:
    return len(times) == DISPLACED_TO_TELL and now - times[0] <= WINDOW_SECONDS
