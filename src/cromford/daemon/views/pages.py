"""Pages of long lists: a part of what there is, and where the next one begins.

An answer looks at a bounded number of entries, whatever there is and whatever it is asked for. So a
page may hold fewer than were asked for, or none, and still not be the last.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

E = TypeVar("E")
P = TypeVar("P")
LOOKED_AT_MAX: Final = 1_000  # Entries that one answer looks at; to load a factory counts as some.


class Spot(NamedTuple, Generic[P, E]):
    """One place of a list that was looked at.

    Attributes:
        place: From where to go on behind it.
        entry: What is there; None for nothing.
        cost: As how many looks it counts.
    """

    place: P
    entry: E | None
    cost: int = 1


@dataclass(frozen=True, slots=True)
class ListPage(Generic[P, E]):
    """What is shown, and from where to go on; None where nothing follows."""

    entries: list[E]
    following: P | None


def page_of(
    spots: Iterable[Spot[P, E]], *, limit: int, wants: Callable[[E], bool] = lambda _entry: True
) -> ListPage[P, E]:
    """Return a page.

    Args:
        spots: The list from where the page begins; no more of it is looked at than is needed.
        limit: How many entries it holds at most; above 0.
        wants: Which entries are asked for.
    """
    shown: list[E] = []
    last: P | None = None
    n_looks = 0
    for spot in spots:
        if spot.entry is not None and wants(spot.entry):
            if len(shown) == limit:
                return ListPage(shown, last)
            shown.append(spot.entry)
        last = spot.place
        n_looks += spot.cost
        if n_looks >= LOOKED_AT_MAX:
            return ListPage(shown, last)
    return ListPage(shown, None)
