"""Makes a failing world smaller, as long as it fails in the same way.

First whole hazards and acts go, then rounds, then clients, and then single faults and acts: halves
of what is left, then quarters, as delta debugging does.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.simulation.mixture import Mixture, faults_of
from tests.simulation.running import Played, played

TRIES_MAX: Final = 120


class Shrinking:
    """Shrinks one failure.

    Args:
        failed: The failure.
        play: Plays a mixture.
        tries_max: How many worlds are played at the most.

    Attributes:
        smallest: The smallest that failed in the same way so far.
        n_tries: How many worlds were played.
    """

    def __init__(
        self,
        failed: Played,
        *,
        play: Callable[[Mixture], Played] = played,
        tries_max: int = TRIES_MAX,
    ) -> None:
        self.smallest = failed
        self.n_tries = 0
        self._play = play
        self._tries_max = tries_max

    def shrink(self) -> Played:
        """Return the smallest world that is found to fail in the same way."""
        while any(self._takes(smaller) for smaller in self._coarser()):
            pass
        self._spare_faults()
        return self.smallest

    def _coarser(self) -> Iterator[Mixture]:
        """Yield the mixture without one thing each, what takes most away first."""
        mixture = self.smallest.mixture
        for n_rounds in dict.fromkeys((0, mixture.rounds // 2, mixture.rounds - 1)):
            if 0 <= n_rounds < mixture.rounds:
                yield replace(mixture, until=n_rounds)
        for feature in mixture.features:
            yield replace(mixture, without=mixture.without | {feature})
        if mixture.n_clients > 1:
            yield replace(mixture, n_clients=mixture.n_clients - 1)

    def _spare_faults(self) -> None:
        size = len(self.smallest.struck)
        while size:
            place = 0
            while place < len(self.smallest.struck):
                part = self.smallest.struck[place : place + size]
                mixture = self.smallest.mixture
                spared = mixture.spared | frozenset(faults_of(",".join(part)))
                if not self._takes(replace(mixture, spared=spared)):
                    place += size
            size //= 2

    def _takes(self, mixture: Mixture) -> bool:
        """Play a smaller mixture; say whether it fails in the same way, and is kept."""
        if self.n_tries >= self._tries_max:
            return False
        self.n_tries += 1
        found = self._play(mixture)
        if found.is_good or found.cause != self.smallest.cause:
            return False
        self.smallest = found
        return True
