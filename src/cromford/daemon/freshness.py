"""Is what we know of the chain of this moment? A condition that must hold now, not once.

Height is the only clock of the protocol, and a clock that stands still is worse than none: an HTLC
expires whether or not our node tells us. While the chain is stale no new risk is taken.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cromford.answers.chain import StaleKind
from cromford.ports import BlocksPruned, ChainStatus, ChainUnavailable

SILENCE_SECONDS_MAX: Final = 120  # Four calls that run into their timeout.
# One withheld block must not pause everybody; three are no accident.
LAG_BLOCKS_MAX: Final = 2
LAG_SECONDS_MAX: Final = 600
# Two hours without a block happen every three years, four hours do not happen.
TIP_AGE_SECONDS_MAX: Final = 4 * 3600
CLOCK_OFF_SECONDS_MAX: Final = 2 * 3600  # Core: MAX_FUTURE_BLOCK_TIME. No node takes a later block.


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Why the chain is not fresh, and since when.

    Attributes:
        kind: The cause in one word, the same for as long as it lasts.
        since: Seconds since 1970, UTC.
        reason: The cause in a sentence. Like `kind` it does not change by the hour alone.
    """

    kind: StaleKind
    since: float
    reason: str

    def __str__(self) -> str:
        """Return why, and since when."""
        return f"{self.reason} (since {_when(self.since)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """What the node said last, and when. All times are seconds since 1970, UTC.

    Attributes:
        has_real_time: Whether blocks are stamped when they are mined: not so on regtest.
        started_at: From when on the node was asked.
        heard_at: When it last answered all it was asked.
        status: What it said then.
        lagging_since: From when on blocks were missing, without a moment in which none was.
        missed: What was not answered since.
        missed_at: When that began.
    """

    has_real_time: bool
    started_at: float
    heard_at: float | None = None
    status: ChainStatus | None = None
    lagging_since: float | None = None
    missed: ChainUnavailable | None = None
    missed_at: float | None = None

    @property
    def header_height(self) -> int:
        """The highest header the node knows; -1 before it was heard."""
        heard = -1 if self.status is None else self.status.header_height
        told = self.missed.header_height if isinstance(self.missed, BlocksPruned) else -1
        return max(heard, told)

    @property
    def was_asked(self) -> bool:
        """Whether the node was asked anything yet, answered or not."""
        return self.heard_at is not None or self.missed is not None

    def is_answering(self, *, now: float) -> bool:
        """Say whether the node is there: nothing is unanswered, and it was heard just now."""
        return self.missed is None and self.heard_at is not None and self._unheard(now) is None

    def after_answer(self, status: ChainStatus, *, own_height: int, now: float) -> "Freshness":
        """Return it after the node answered all it was asked; `own_height` is the role's tip."""
        since = now if self.lagging_since is None else self.lagging_since
        return replace(
            self,
            heard_at=now,
            status=status,
            lagging_since=since if _lag_blocks(status, own_height) else None,
            missed=None,
            missed_at=None,
        )

    def after_silence(self, missed: ChainUnavailable, *, now: float) -> "Freshness":
        """Return it after the node left something unanswered."""
        since = now if self.missed_at is None else self.missed_at
        return replace(self, missed=missed, missed_at=since)

    def after_block(self, *, own_height: int) -> "Freshness":
        """Return it after the role has seen a block."""
        if self.status is None or _lag_blocks(self.status, own_height):
            return self
        return replace(self, lagging_since=None)

    def stale(self, *, own_height: int, now: float) -> Stale | None:
        """Return why the chain is stale at this moment, or None: it is fresh."""
        return self._unheard(now) or self._behind(own_height, now) or self._out_of_time(now)

    def hides_blocks(self, *, now: float) -> bool:
        """Say whether blocks are known to exist that our node does not show, and will not soon.

        Pruned ones never come; others, whose headers it has had for ten minutes, not in a moment as
        those do that are only still to be read.
        """
        if isinstance(self.missed, BlocksPruned):
            return True
        if self.status is None or self.lagging_since is None:
            return False
        is_long = abs(now - self.lagging_since) > LAG_SECONDS_MAX
        return is_long and self.status.tip.height < self.status.header_height

    def _unheard(self, now: float) -> Stale | None:
        if isinstance(self.missed, BlocksPruned) and self.missed_at is not None:
            return Stale(kind="blocks_pruned", since=self.missed_at, reason=str(self.missed))
        why = "" if self.missed is None else f": {self.missed}"
        if self.heard_at is None:
            reason = f"the node has not answered since the start{why}"
            return Stale(kind="node_silent", since=self.started_at, reason=reason)
        # A clock that is set back must not make a silence shorter.
        if abs(now - self.heard_at) > SILENCE_SECONDS_MAX:
            reason = f"the node has not answered since {_when(self.heard_at)}{why}"
            return Stale(kind="node_silent", since=self.heard_at, reason=reason)
        return None

    def _behind(self, own_height: int, now: float) -> Stale | None:
        if self.status is None or self.heard_at is None:
            return None
        since = self.heard_at if self.lagging_since is None else self.lagging_since
        if self.has_real_time and self.status.is_initial_download:
            reason = "the node is still loading the chain (initial block download)"
            return Stale(kind="initial_download", since=since, reason=reason)
        lag_blocks = _lag_blocks(self.status, own_height)
        is_long = self.lagging_since is not None and abs(now - self.lagging_since) > LAG_SECONDS_MAX
        if lag_blocks > LAG_BLOCKS_MAX or (lag_blocks and is_long):
            reason = (
                f"blocks are missing: the node has {self.status.tip.height} and knows the headers "
                f"of {self.status.header_height}, of which {own_height} were read"
            )
            return Stale(kind="blocks_missing", since=since, reason=reason)
        return None

    def _out_of_time(self, now: float) -> Stale | None:
        if self.status is None or not self.has_real_time:
            return None
        tip_time = self.status.tip_time
        if tip_time - now > CLOCK_OFF_SECONDS_MAX:
            reason = (
                f"the clock of this computer is off: block {self.status.tip.height} is stamped "
                f"{_when(tip_time)}, more than two hours later than this clock says"
            )
            return Stale(kind="clock_off", since=self.heard_at or self.started_at, reason=reason)
        if now - tip_time > TIP_AGE_SECONDS_MAX:
            reason = (
                f"the newest block, {self.status.tip.height}, is of {_when(tip_time)}: the node "
                "has no connection to the network, or the clock of this computer is off"
            )
            return Stale(kind="tip_old", since=tip_time + TIP_AGE_SECONDS_MAX, reason=reason)
        return None


def _lag_blocks(status: ChainStatus, own_height: int) -> int:
    """Return how many blocks are missing between what is known to exist and what was read.

    A node whose tip is below ours has lost blocks that we have seen: those are missing too.
    """
    return max(status.header_height, own_height) - min(status.tip.height, own_height)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
