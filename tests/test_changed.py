"""A value made of another is what `dataclasses.replace` makes of it."""

from abc import ABC
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.changed import changed, computed


@dataclass(frozen=True, slots=True, kw_only=True)
class InSlots:
    """A value whose fields are in slots."""

    left: int
    right: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A value of one field."""

    parts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A value that keeps what was computed of it."""

    left: int
    right: int = 0

    @cached_property
    def total(self) -> int:
        return self.left + self.right


@dataclass(frozen=True, kw_only=True)
class OfAKind(ABC):
    """A value of an abstract kind, whose base has empty slots."""

    left: int
    right: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """A value that checks itself."""

    left: int

    def __post_init__(self) -> None:
        if self.left < 0:
            raise ValueError("below zero")


KINDS = pytest.mark.parametrize("kind", [InSlots, Beside, OfAKind])
CHANGES = st.fixed_dictionaries({}, optional={"left": st.integers(), "right": st.integers()})


@KINDS
@given(before=st.tuples(st.integers(), st.integers()), changes=CHANGES)
def test_it_is_what_replace_returns_and_the_value_before_stays(
    kind: Any, before: tuple[int, int], changes: dict[str, int]
) -> None:
    value = kind(left=before[0], right=before[1])
    made = changed(value, **changes)
    assert made == replace(value, **changes)
    assert hash(made) == hash(replace(value, **changes))
    assert (value.left, value.right) == before


@given(before=st.lists(st.integers()).map(tuple), after=st.lists(st.integers()).map(tuple))
def test_the_one_field_of_a_value_is_not_taken_apart(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    value = Alone(parts=before)
    assert changed(value) == value
    assert changed(value, parts=after) == Alone(parts=after)


def test_what_was_computed_of_the_value_before_is_computed_anew() -> None:
    value = Beside(left=1, right=2)
    assert value.total == 3
    made = changed(value, right=5)
    assert made.total == 6
    assert value.total == 3


@KINDS
def test_a_field_that_there_is_not_is_named(kind: Any) -> None:
    bogus: Any = {"middle": 1, "left": 2}
    with pytest.raises(TypeError, match=f"{kind.__name__} has no middle"):
        changed(kind(left=1), **bogus)


def test_a_value_that_checks_itself_is_not_made_behind_its_back() -> None:
    with pytest.raises(TypeError, match="Checked checks its values"):
        changed(Checked(1), left=-1)


def test_whatever_a_value_keeps_beside_its_fields_is_left_behind_however_it_came_there() -> None:
    value = Beside(left=1)
    value.__dict__["noted"] = "of this very value"
    assert value.total == 1
    assert vars(changed(value, left=2)) == {"left": 2, "right": 0}


@dataclass(frozen=True)
class Counted:
    """A value that counts how often something is computed of it."""

    number: int
    asked: list[int]

    @computed
    def double(self) -> int:
        """Twice the number."""
        self.asked.append(self.number)
        return 2 * self.number


def test_what_is_computed_is_computed_once_and_anew_of_what_was_changed() -> None:
    asked: list[int] = []
    value = Counted(3, asked)
    assert [value.double, value.double] == [6, 6]
    after = changed(value, number=4)
    assert [after.double, value.double] == [8, 6]
    assert asked == [3, 4]
    assert Counted.double.__doc__ == "Twice the number."
