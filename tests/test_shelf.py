"""A map above what is stored says the same as one in memory, whatever is stored meanwhile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.shelf import KEY_READERS, Shelf, key_bytes, with_shelves

KEYS = range(6)
STEPS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(KEYS), st.integers(0, 2)),
    st.tuples(st.just("delete"), st.sampled_from(KEYS), st.just(0)),
    st.tuples(st.sampled_from(["begin", "write", "keep"] * 2), st.just(0), st.just(0)),
)


class Table:
    """What is stored, and how often it was asked. Implements `shelf.Ground`."""

    def __init__(self, lying: dict[int, int]) -> None:
        self.lying = lying
        self.n_asked = 0

    def get(self, key: int) -> int | None:
        self.n_asked += 1
        return self.lying.get(key)

    def among(self, keys: Sequence[int]) -> Iterator[tuple[int, int]]:
        self.n_asked += 1
        return iter([(key, self.lying[key]) for key in keys if key in self.lying])

    def walk(self, start: bytes) -> Iterator[tuple[int, int]]:
        return iter(sorted(one for one in self.lying.items() if key_bytes(one[0]) >= start))

    def is_same(self, other: Any) -> bool:
        return other is self


def check_says(shelf: Shelf[int, int], expected: dict[int, int]) -> None:
    assert {key: shelf.get(key) for key in KEYS if key in shelf} == expected
    assert shelf.among(KEYS) == expected
    assert list(shelf.walk()) == sorted(expected.items())
    assert list(shelf.walk(key_bytes(3))) == sorted(e for e in expected.items() if e[0] >= 3)
    assert (len(shelf), list(shelf)) == (len(expected), sorted(expected))
    assert shelf == Shelf(expected)
    assert shelf == expected


@pytest.mark.sampled(0)
@settings(max_examples=500)
@given(steps=st.lists(STEPS, max_size=30))
def test_it_says_the_same_before_while_and_after_it_is_stored(
    steps: list[tuple[str, int, int]],
) -> None:
    lying: dict[int, int] = {}
    shelf: Shelf[int, int] = Shelf()
    written: Shelf[int, int] | None = None
    is_written = False
    expected: dict[int, int] = {}
    for what, key, value in steps:
        match what:
            case "set":
                shelf, expected = shelf.set(key, value), {**expected, key: value}
            case "delete":
                shelf = shelf.delete(key)
                expected.pop(key, None)
            case "begin" if written is None:
                written = shelf
            case "write" if written is not None and not is_written:
                is_written = True
                for changed, now in written.changed.items():
                    if now is None:
                        lying.pop(changed, None)
                    else:
                        lying[changed] = now
            case "keep" if written is not None and is_written:
                shelf, written, is_written = shelf.stored(written, Table(lying)), None, False
        check_says(shelf, expected)


def test_once_it_is_stored_nothing_of_it_is_in_memory_but_what_changed_since() -> None:
    written = Shelf({1: 10, 2: 20, 3: 30})
    later = written.set(2, 21).delete(3).set(4, 40)
    kept = later.stored(written, Table({1: 10, 2: 20, 3: 30}))
    assert dict(kept.changed) == {2: 21, 3: None, 4: 40}
    assert kept == {1: 10, 2: 21, 4: 40}


def test_what_changed_is_not_looked_up() -> None:
    table = Table({1: 10, 2: 20})
    shelf = Shelf({2: 21, 3: None}, table)
    assert (shelf.get(2), shelf.get(3), 3 in shelf, table.n_asked) == (21, None, False, 0)
    assert (shelf[1], table.n_asked) == (10, 1)
    assert (shelf.among([1, 2, 3]), table.n_asked) == ({1: 10, 2: 21}, 2)
    with pytest.raises(KeyError):
        shelf[3]


def test_a_value_that_was_changed_back_is_the_same() -> None:
    table = Table({1: 10})
    assert Shelf({1: 10}, table) == Shelf(None, table)
    assert Shelf({1: 11}, table) != Shelf(None, table)
    assert Shelf({1: None}, table) != Shelf(None, table)
    assert Shelf({1: 10}) != [(1, 10)]


@pytest.mark.parametrize(
    "keys",
    [
        [b"", b"\0", b"a", b"ab", b"b"],
        [0, 1, 255, 256, 2**40],
        ["chain", "factory:1", "factory:10", "house"],
        [Txid(bytes(32)), Txid(b"\1" * 32)],
        [OutPoint(txid=Txid(b"\1" * 32), vout=n) for n in (0, 1)],
    ],
)
def test_keys_are_found_again_by_their_bytes_and_keep_their_order(keys: list[Any]) -> None:
    read = KEY_READERS[type(keys[0]).__name__]
    assert [read(key_bytes(key)) for key in keys] == keys
    assert sorted(map(key_bytes, keys)) == [*map(key_bytes, keys)]


def test_it_shows_what_changed() -> None:
    assert repr(Shelf({1: 10})) == "Shelf({1: 10}, above None)"


def test_other_keys_are_refused() -> None:
    with pytest.raises(TypeError, match="a float is no key of a shelf"):
        key_bytes(1.0)


@dataclass(frozen=True)
class Room:
    inner: Shelf[int, int] = field(default_factory=Shelf)


@dataclass(frozen=True)
class House:
    number: int = 0
    outer: Shelf[int, int] = field(default_factory=Shelf)
    room: Room = field(default_factory=Room)


def test_each_shelf_of_a_value_has_a_name() -> None:
    names: list[str] = []

    def changed(name: str, shelf: Shelf[Any, Any]) -> Shelf[Any, Any]:
        names.append(name)
        return shelf.set(1, len(names))

    assert with_shelves(House(), changed) == House(outer=Shelf({1: 1}), room=Room(Shelf({1: 2})))
    assert names == ["House.outer", "Room.inner"]
    house = House()
    assert with_shelves(house, lambda _name, shelf: shelf) is house
