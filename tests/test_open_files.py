"""How many files may be open: raised as far as the system lets us, never lowered."""

import resource

import pytest

from cromford.open_files import UNLIMITED, allow_open_files


class System:
    """A system with these limits, and perhaps one that its hard limit does not tell."""

    def __init__(self, soft: int, hard: int, *, most: int | None = None) -> None:
        self.limits = (soft, hard)
        self._most = most

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self._most is not None and limits[0] > self._most:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("system", "available", "soft"),
    [
        (System(1_024, 4_096), 3_000, 3_000),
        (System(1_024, UNLIMITED), 3_000, 3_000),
        (System(1_024, 2_048), 2_048, 2_048),
        (System(1_024, 1_024), 1_024, 1_024),
        (System(4_096, 4_096), 3_000, 4_096),
        (System(UNLIMITED, UNLIMITED), 3_000, UNLIMITED),
        (System(256, UNLIMITED, most=2_999), 256, 256),
    ],
    ids=lambda value: str(value.limits) if isinstance(value, System) else str(value),
)
def test_the_soft_limit_is_raised_to_what_is_needed_as_far_as_the_hard_one_allows(
    system: System, available: int, soft: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = system.limits[1]
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    assert allow_open_files(3_000) == available
    assert system.limits == (soft, hard)
