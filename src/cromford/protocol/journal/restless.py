"""Which factories in memory a block asks: those in which something may be due, and no others.

Where clients are connected and nothing is under way, a factory stays in memory and is at rest until
a height. Whatever happens in it, or to whom, ends its rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from immutables import Map

from cromford.changed import changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Restless:
    """Factories by number.

    Attributes:
        asked: Those that every block asks.
        due: By height, those that were at rest until then; they may have gone, or be asked by now.
        height: Of the last block.
    """

    asked: Map[int, None] = field(default_factory=Map)
    due: Map[int, frozenset[int]] = field(default_factory=Map)
    height: int = -1

    def with_one(self, number: int) -> "Restless":
        """Return it with a factory that the next block asks."""
        return self if number in self.asked else changed(self, asked=self.asked.set(number, None))

    def without_one(self, number: int) -> "Restless":
        """Return it without a factory that is not in memory any more."""
        return changed(self, asked=self.asked.delete(number)) if number in self.asked else self

    def with_rest(self, number: int, until_height: int) -> "Restless":
        """Return it with a factory that no block asks before a height."""
        resting = self.due.get(until_height, frozenset()) | {number}
        return changed(self.without_one(number), due=self.due.set(until_height, resting))

    def at(self, height: int) -> "Restless":
        """Return it as a block at this height finds it: whose rest ends is asked."""
        passed = range(self.height + 1, height + 1)
        ended = [h for h in (passed if len(passed) < len(self.due) else self.due) if h <= height]
        asked, due = self.asked, self.due
        for one in ended:
            asked = asked.update(dict.fromkeys(due.get(one, frozenset())))
            due = due.delete(one) if one in due else due
        return changed(self, asked=asked, due=due, height=height)


def all_restless(numbers: Iterable[int]) -> Restless:
    """Return it as a start finds it: nobody is at rest before a block has asked."""
    return Restless(asked=Map(dict.fromkeys(numbers)))
