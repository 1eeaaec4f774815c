"""In which order entries of a book began: what lists are paged by, whatever the clock says.

A payment that failed and is begun anew is the same entry with a greater number. It keeps its place
among the older ones for whoever went through the list before: they meet it there, and once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from immutables import Map

from cromford.changed import changed


class ListPlace(NamedTuple):
    """Where a walk is: the number it looks at next and those below, of what began before it.

    Attributes:
        top: The greatest number when the walk began.
        below: Only lower numbers than this are left.
    """

    top: int
    below: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The payment hashes of entries by number, from 1 on.

    Attributes:
        hashes: By every number that an entry ever had.
        again: By a number that is no longer its entry's: the next that it had.
    """

    hashes: Map[int, bytes] = field(default_factory=Map)
    again: Map[int, int] = field(default_factory=Map)

    def with_one(self, number: int, payment_hash: bytes, *, before: int | None) -> "Numbers":
        """Return the numbers with one more.

        Args:
            number: The number.
            payment_hash: Whose it is.
            before: The number that the same entry had until now; None if it is new.
        """
        return changed(
            self,
            hashes=self.hashes.set(number, payment_hash),
            again=self.again if before is None else self.again.set(before, number),
        )

    def walk(self, place: ListPlace) -> Iterator[tuple[int, bytes, bool]]:
        """Yield numbers below a place, the greatest first, with their hashes.

        With each comes whether its entry is to be met there: one that was begun anew is where it
        was when the walk began. Each number costs two look-ups, and none is looked at before it is
        asked for.
        """
        for number in range(min(place.below - 1, place.top), 0, -1):
            payment_hash = self.hashes.get(number)
            if payment_hash is not None:
                yield number, payment_hash, self.again.get(number, place.top + 1) > place.top
