"""Factories that are not in memory: what is known of one, and what they come to together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from immutables import Map


@dataclass(frozen=True, slots=True, kw_only=True)
class Asleep:
    """A factory in which nothing happens until a height, and that is not in memory.

    Besides that height there is what is added up over all factories: `totals`, of its channels, by
    name, and `locked_sat`, what of ours is in it; and `taken`, its mail's cursors, so that nobody
    reads it to learn that it knows a letter. `expiry_height` is its own; 0 if unknown.
    """

    wake_height: int
    status: str
    earned_msat: int
    n_finished: int
    locked_sat: int
    totals: Map[str, int]
    taken: Map[str, int]
    period: str = ""
    expiry_height: int = 0

    @property
    def outlasts(self) -> bool:
        """Whether it sleeps beyond its expiry: nothing happens in it any more."""
        return 0 < self.expiry_height < self.wake_height


Finder = Callable[[int], Asleep | None]
Due = Callable[[int], Iterable[int]]


def nobody(_number: int) -> None:
    """Say of a factory that it does not sleep."""


def never(_height: int) -> Iterable[int]:
    """Say that nobody wakes at a height."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """The sums over all factories that sleep; `statuses` and `periods` are how many have each."""

    n: int = 0
    earned_msat: int = 0
    n_finished: int = 0
    locked_sat: int = 0
    totals: Map[str, int] = field(default_factory=Map)
    statuses: Map[str, int] = field(default_factory=Map)
    periods: Map[str, int] = field(default_factory=Map)

    def with_one(self, one: Asleep) -> "Resting":
        """Return the sums with one factory more."""
        return self._changed(one, 1)

    def without_one(self, one: Asleep) -> "Resting":
        """Return the sums without a factory that was in them."""
        return self._changed(one, -1)

    def _changed(self, one: Asleep, sign: int) -> "Resting":
        return Resting(
            n=self.n + sign,
            earned_msat=self.earned_msat + sign * one.earned_msat,
            n_finished=self.n_finished + sign * one.n_finished,
            locked_sat=self.locked_sat + sign * one.locked_sat,
            totals=_added(self.totals, {name: sign * sum_ for name, sum_ in one.totals.items()}),
            statuses=_added(self.statuses, {one.status: sign}),
            periods=_added(self.periods, {one.period: sign}),
        )


def _added(sums: Map[str, int], more: dict[str, int]) -> Map[str, int]:
    """Return sums by name with more added; what comes to nothing has no name."""
    for name, amount in more.items():
        total = sums.get(name, 0) + amount
        if total:
            sums = sums.set(name, total)
        elif name in sums:
            sums = sums.delete(name)
    return sums
