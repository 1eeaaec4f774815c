"""What is added up over all factories of a house, so that nobody has to look at each of them."""

from dataclasses import dataclass, field, replace

from cromford.shelf import Shelf, key_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The sums over the factories of a house.

    Attributes:
        n_funded: How many were ever funded.
        lent_sat: The channels of those that were funded, not found dead, and have not expired,
            without those that were closed together, or are settled on chain.
        lent_until: What of that a height ends, also where it has passed: a block may be undone.
        dead: The attempts whose funding was found dead.
    """

    n_funded: int = 0
    lent_sat: int = 0
    lent_until: Shelf[int, int] = field(default_factory=Shelf)
    dead: frozenset[bytes] = frozenset()

    def funded(self, *, lent_sat: int, expiry_height: int, height: int) -> "Tally":
        """Return the sums after a factory was funded."""
        lending = self._lending(lent_sat, expiry_height, height)
        return replace(lending, n_funded=self.n_funded + 1)

    def died(self, attempt_id: bytes, *, lent_sat: int, expiry_height: int, height: int) -> "Tally":
        """Return the sums after a factory that was funded was found dead."""
        without = self.freed(lent_sat=lent_sat, expiry_height=expiry_height, height=height)
        return replace(without, dead=self.dead | {attempt_id})

    def freed(self, *, lent_sat: int, expiry_height: int, height: int) -> "Tally":
        """Return the sums after channels of a factory that was funded are over before its expiry.

        Args:
            lent_sat: What they came to.
            expiry_height: The factory's.
            height: The tip's.
        """
        return self._lending(-lent_sat, expiry_height, height)

    def grown(self, lent_sat: int, *, expiry_height: int, height: int) -> "Tally":
        """Return the sums after a channel of a factory that was funded holds more."""
        return self._lending(lent_sat, expiry_height, height)

    def at(self, *, height: int, before: int) -> "Tally":
        """Return the sums at another height than the one before."""
        low, high = sorted((height, before))
        ending_sat = sum(self._ending_sat(low, high))
        if not ending_sat:
            return self
        return replace(
            self, lent_sat=self.lent_sat + (-ending_sat if before < height else ending_sat)
        )

    def _lending(self, lent_sat: int, expiry_height: int, height: int) -> "Tally":
        until_sat = self.lent_until.get(expiry_height, 0) + lent_sat
        return replace(
            self,
            lent_sat=self.lent_sat + (lent_sat if height < expiry_height else 0),
            lent_until=self.lent_until.set(expiry_height, until_sat),
        )

    def _ending_sat(self, low: int, high: int) -> "list[int]":
        """Return what ends above one height, up to another."""
        if high == low + 1:
            return [self.lent_until.get(high, 0)]
        ending: list[int] = []
        for height, lent_sat in self.lent_until.walk(key_bytes(low + 1)):
            if height > high:
                break
            ending.append(lent_sat)
        return ending
