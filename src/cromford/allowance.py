"""What somebody may use up: it fills again with time, and a debt has to be waited out.

Nothing here reads a clock: the caller says what time it is, in seconds.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from cromford.recent import Recent

INSTANT_SECONDS: Final = 1e-6  # Less is no wait, but what rounding left.


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How much at once, and how much for ever: `burst` units, and `per_second` after them."""

    burst: float
    per_second: float


class Allowance:
    """What is left to one user, in the units of its rate."""

    def __init__(self, rate: Rate, *, now: float) -> None:
        self._rate = rate
        self._left = rate.burst
        self._at = now

    def left(self, now: float) -> float:
        """Return what is left; below zero is a debt."""
        refilled = self._left + (now - self._at) * self._rate.per_second
        self._left, self._at = min(self._rate.burst, refilled), now
        return self._left

    def charge(self, cost: float, *, now: float) -> None:
        """Take units, into debt if need be. A negative cost gives units back."""
        self._left = min(self._rate.burst, self.left(now) - cost)

    def spend(self, cost: float, *, now: float) -> bool:
        """Take units if there are as many, and say whether there were."""
        if self.left(now) < cost:
            return False
        self.charge(cost, now=now)
        return True

    def wait_seconds(self, now: float) -> float:
        """Return how long a debt has to be waited out; 0 if there is none."""
        seconds = -self.left(now) / self._rate.per_second
        return seconds if seconds >= INSTANT_SECONDS else 0.0

    def is_full(self, now: float) -> bool:
        """Say whether all of it is there, as if nothing had ever been used."""
        return self.left(now) >= self._rate.burst


class Allowances:
    """One allowance for each user, for a limited number of them.

    Args:
        rate: Of each.
        users_max: Names cost nothing: of more, those that were seen longest ago are forgotten.
    """

    def __init__(self, rate: Rate, *, users_max: int) -> None:
        self._rate = rate
        self._of = Recent[Hashable, Allowance](users_max)

    def of(self, user: Hashable, *, now: float) -> Allowance:
        """Return a user's allowance; a new user's is full."""
        found = self._of.get(user) or Allowance(self._rate, now=now)
        self._of.note(user, found)
        return found

    def __len__(self) -> int:
        return len(self._of)
