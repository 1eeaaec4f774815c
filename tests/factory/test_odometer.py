"""Which version of a state wins, and how many there are."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.factory.odometer import Odometer, OdometerExhausted

odometers = st.integers(2, 40).flatmap(
    lambda states: st.builds(
        Odometer,
        states_per_layer=st.just(states),
        step_blocks=st.integers(1, 0xFFFF // (states - 1)),
    )
)


@given(odometer=odometers, data=st.data())
def test_a_newer_reading_wins_the_first_race_in_which_it_differs(
    odometer: Odometer, data: st.DataObject
) -> None:
    """Publishing starts at layer 0, so the outermost difference decides which confirms."""
    digits = st.integers(0, odometer.states_per_layer - 1)
    old, new = sorted(
        data.draw(
            st.lists(
                st.lists(digits, min_size=3, max_size=3), min_size=2, max_size=2, unique_by=tuple
            )
        )
    )
    races = [
        (odometer.delay_blocks(a), odometer.delay_blocks(b)) for a, b in zip(old, new, strict=True)
    ]
    old_delay, new_delay = next((o, n) for o, n in races if o != n)
    assert old_delay - new_delay >= odometer.step_blocks


@given(odometer=odometers)
def test_delays_fall_by_one_step_to_zero(odometer: Odometer) -> None:
    delays = [odometer.delay_blocks(i) for i in range(odometer.states_per_layer)]
    assert delays[0] == odometer.delay_max_blocks <= 0xFFFF
    assert delays[-1] == 0
    assert {a - b for a, b in itertools.pairwise(delays)} == {odometer.step_blocks}


def test_the_default_odometer_waits_432_288_144_and_0_blocks() -> None:
    odometer = Odometer(states_per_layer=4, step_blocks=144)
    assert [odometer.delay_blocks(index) for index in range(4)] == [432, 288, 144, 0]


@given(odometer=odometers)
def test_advancing_counts_every_reading_once_like_an_odometer(odometer: Odometer) -> None:
    """Two layers: the inner one turns until it is used up, then the outer one turns it back."""
    reading: tuple[int, ...] = (0, 0)
    seen = [reading]
    while reading != (odometer.states_per_layer - 1,) * 2:
        try:
            reading = odometer.advanced(reading, 1)
        except OdometerExhausted:
            reading = odometer.advanced(reading, 0)
        seen.append(reading)
    assert seen == sorted(set(seen))
    assert len(seen) == odometer.states_per_layer**2
    for layer in (0, 1):
        with pytest.raises(OdometerExhausted, match="the last"):
            odometer.advanced(reading, layer)


@given(odometer=odometers)
def test_there_is_no_version_before_the_first_or_after_the_last(odometer: Odometer) -> None:
    for index in (-1, odometer.states_per_layer):
        with pytest.raises(ValueError, match=f"received {index}"):
            odometer.delay_blocks(index)
    with pytest.raises(OdometerExhausted):
        odometer.next_index(odometer.states_per_layer - 1)


@pytest.mark.parametrize(
    ("states_per_layer", "step_blocks", "field"),
    [
        (1, 144, "states_per_layer"),
        (0, 144, "states_per_layer"),
        (4, 0, "step_blocks"),
        (4, -1, "step_blocks"),
        (4, 21846, "step_blocks x"),
        (65537, 1, "step_blocks x"),
    ],
)
def test_an_odometer_that_cannot_turn_is_refused(
    states_per_layer: int, step_blocks: int, field: str
) -> None:
    with pytest.raises(ValueError, match=field):
        Odometer(states_per_layer=states_per_layer, step_blocks=step_blocks)
