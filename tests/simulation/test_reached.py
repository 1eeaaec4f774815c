"""What a run has to reach is known by name, and a run that misses some of it says so."""

from collections import Counter

from tests.simulation.must_reach import (
    CUTS,
    MAY_BE_MISSED,
    OUTCOMES,
    known,
    never_reached,
    unreached,
)


def test_whatever_may_be_missed_is_known() -> None:
    assert {*known()} >= MAY_BE_MISSED


def test_what_was_not_reached_is_named_and_what_may_be_missed_is_not() -> None:
    everything = Counter(
        [*known(), *(f"cut {one}" for one in CUTS), *(f"outcome {one}" for one in OUTCOMES)]
    )
    assert never_reached(everything) == unreached(everything) == []
    del everything["message CloseSign"], everything["cut SigningIntended"]
    for excused in MAY_BE_MISSED:
        del everything[excused]
    assert never_reached(everything) == ["cut SigningIntended", "message CloseSign"]
    assert unreached(everything) == sorted({*MAY_BE_MISSED, "message CloseSign"})
