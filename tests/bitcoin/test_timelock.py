"""Timelocks in blocks, and nothing that could be read as a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin import timelock


@given(delay_blocks=st.integers(0, 0xFFFF))
def test_a_delay_is_a_relative_timelock_in_blocks(delay_blocks: int) -> None:
    nsequence = timelock.nsequence_of_delay(delay_blocks)
    assert nsequence & timelock.DELAY_BLOCKS_MAX == delay_blocks
    assert not nsequence & timelock.NSEQUENCE_DISABLE_FLAG
    assert not nsequence & timelock.NSEQUENCE_TIME_FLAG


@pytest.mark.parametrize("delay_blocks", [-1, 0x1_0000, 1 << 22, 1 << 31])
def test_a_delay_that_would_mean_something_else_is_refused(delay_blocks: int) -> None:
    with pytest.raises(ValueError, match=str(delay_blocks)):
        timelock.nsequence_of_delay(delay_blocks)


@given(height=st.integers(1, 499_999_999))
def test_a_height_may_be_an_expiry(height: int) -> None:
    timelock.check_expiry_height(height)
    assert height < timelock.LOCKTIME_THRESHOLD


@pytest.mark.parametrize("height", [-1, 0, 500_000_000, 2**32])
def test_a_time_or_no_height_is_no_expiry(height: int) -> None:
    with pytest.raises(ValueError, match=f"received {height}"):
        timelock.check_expiry_height(height)


def test_final_disables_the_relative_timelock_and_the_others_do_too() -> None:
    for nsequence in (
        timelock.NSEQUENCE_FINAL,
        timelock.NSEQUENCE_LOCKTIME,
        timelock.NSEQUENCE_REPLACEABLE,
    ):
        assert nsequence & timelock.NSEQUENCE_DISABLE_FLAG
