"""What is kept of names that cost nothing to make."""

from cromford.recent import Recent


def test_of_too_many_the_one_that_was_noted_first_is_forgotten() -> None:
    recent = Recent[str, int](2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        recent.note(key, value)
    assert list(recent.items()) == [("a", 3), ("c", 4)]
    assert ("b" in recent, recent.get("b"), recent.get("a"), len(recent)) == (False, None, 3, 2)
