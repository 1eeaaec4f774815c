"""Going through a list in pages, while it grows and while entries of it begin anew."""

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cromford.protocol.journal.numbers import ListPlace, Numbers


def is_met(numbers: Numbers, place: ListPlace) -> Iterator[tuple[int, bytes]]:
    return ((number, name) for number, name, met in numbers.walk(place) if met)


@given(
    changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40),
    before=st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_each_entry_that_was_there_is_met_once_whatever_comes_meanwhile(
    changes: list[tuple[int, int]], before: list[int]
) -> None:
    """Between two steps of the walk, entries begin, for the first time or anew."""
    numbers, now, n = Numbers(), dict[bytes, int](), 0

    def begin(entry: int) -> None:
        nonlocal numbers, n
        name, n = bytes((entry,)), n + 1
        numbers = numbers.with_one(n, name, before=now.get(name))
        now[name] = n

    for entry in before:
        begin(entry)
    there = sorted(now, key=lambda name: -now[name])
    place, met, left = ListPlace(top=n, below=n + 1), list[bytes](), list(changes)
    while (step := next(is_met(numbers, place), None)) is not None:
        number, name = step
        met.append(name)
        place = ListPlace(place.top, number)
        for entry, n_more in left[:1]:
            for more in range(n_more):
                begin((entry + more) % 7)
        left = left[1:]
    assert met == there


def test_a_walk_looks_at_no_more_than_it_is_asked_for() -> None:
    looked_at: list[int] = []

    class Counting(dict[int, bytes]):
        def get(self, key: int, default: Any = None) -> Any:
            looked_at.append(key)
            return super().get(key, default)

    n = 1_000
    known: Any = Counting({number: b"%d" % number for number in range(1, n + 1)})
    walk = Numbers(hashes=known).walk(ListPlace(top=n, below=n + 1))
    assert [next(walk)[0] for _ in range(3)] == [1000, 999, 998]
    assert looked_at == [1000, 999, 998]
