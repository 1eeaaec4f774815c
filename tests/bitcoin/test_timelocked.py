"""One key behind one timelock: the script's bytes, and what its spend must carry."""

import pytest

from cromford.bitcoin.timelocked import LockKind, Timelock

KEY = bytes(range(32))
AFTER = Timelock(kind=LockKind.AFTER, number=900_000)
OLDER = Timelock(kind=LockKind.OLDER, number=144)


@pytest.mark.parametrize(
    ("lock", "script", "miniscript", "nlocktime", "nsequence"),
    [
        (AFTER, f"20{KEY.hex()}ad03a0bb0db1", "after(900000)", 900_000, 0xFFFF_FFFE),
        (OLDER, f"20{KEY.hex()}ad029000b2", "older(144)", 0, 144),
    ],
)
def test_a_script_and_what_its_spend_carries(
    lock: Timelock, script: str, miniscript: str, nlocktime: int, nsequence: int
) -> None:
    assert lock.script(KEY).hex() == script
    assert lock.miniscript(KEY) == f"and_v(v:pk({KEY.hex()}),{miniscript})"
    assert (lock.nlocktime, lock.nsequence) == (nlocktime, nsequence)


@pytest.mark.parametrize(
    ("lock", "confirmed_height", "first"),
    [
        (AFTER, 100, 900_001),
        (AFTER, 900_000, 900_001),
        (AFTER, 900_001, 900_002),
        (OLDER, 100, 244),
        (Timelock(kind=LockKind.OLDER, number=0), 100, 101),
    ],
)
def test_the_first_block_of_a_spend(lock: Timelock, confirmed_height: int, first: int) -> None:
    assert lock.first_height(confirmed_height) == first


def test_a_relative_lock_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="received 65536"):
        _ = Timelock(kind=LockKind.OLDER, number=65_536).nsequence


@pytest.mark.parametrize("number", [-1, 1 << 39])
def test_a_number_that_no_script_reads_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"received {number}"):
        Timelock(kind=LockKind.AFTER, number=number).script(KEY)
