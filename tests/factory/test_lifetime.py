"""Where a factory stands in its life, at each height at which that changes."""

import pytest
from tests.factory import oracle

from cromford.factory.kinds import VertexKind
from cromford.factory.lifetime import Lifetime, Period, lifetime_of

LIFE = Lifetime(dying_height=1_000, exit_deadline_height=1_432, expiry_height=2_020)


@pytest.mark.parametrize(
    ("height", "period", "next_change"),
    [
        (0, Period.ACTIVE, 1_000),
        (999, Period.ACTIVE, 1_000),
        (1_000, Period.DYING, 1_432),
        (1_431, Period.DYING, 1_432),
        (1_432, Period.LATE, 2_020),
        (2_019, Period.LATE, 2_020),
        (2_020, Period.EXPIRED, None),
        (2_021, Period.EXPIRED, None),
    ],
)
def test_each_period_begins_at_its_height(
    height: int, period: Period, next_change: int | None
) -> None:
    assert LIFE.period_at(height) is period
    assert LIFE.next_change(height) == next_change
    assert LIFE.is_dying_at(height) is (period is Period.DYING)


@pytest.mark.parametrize(
    ("height", "period"),
    [(0, Period.WAITING), (1_432, Period.WAITING), (2_019, Period.WAITING), (2_020, "expired")],
)
def test_one_that_is_not_funded_waits_and_expires_all_the_same(
    height: int, period: Period | str
) -> None:
    found = LIFE.period_at(height, is_funded=False)
    assert period in {found, found.label}


@pytest.mark.parametrize(
    ("percent", "height"), [(0, 1_000), (1, 1_005), (25, 1_108), (50, 1_216), (100, 1_432)]
)
def test_a_share_of_the_dying_period_is_rounded_up(percent: int, height: int) -> None:
    assert LIFE.dying_blocks == 432
    assert LIFE.share_height(percent) == height


@pytest.mark.parametrize(
    ("kinds", "exit_blocks"),
    [((VertexKind.DW,), 450), ((VertexKind.STATIC, VertexKind.DW), 456)],
)
def test_terms_say_when_a_path_dies(kinds: tuple[VertexKind, ...], exit_blocks: int) -> None:
    terms = oracle.terms_of((100_000, 100_000), (50_000,), expiry_height=9_000)
    life = lifetime_of(terms, kinds)
    assert life.expiry_height == terms.expiry_height
    assert life.exit_deadline_height == terms.expiry_height - exit_blocks - 144
    assert life.dying_height == life.exit_deadline_height - terms.dying_blocks


def test_the_periods_are_in_the_order_of_time_and_have_names() -> None:
    assert [period.label for period in sorted(Period)] == [
        "waiting",
        "active",
        "dying",
        "late",
        "expired",
    ]


@pytest.mark.parametrize(
    ("height", "told", "period"),
    [
        (999, Period.WAITING, None),
        (999, Period.ACTIVE, None),
        (1_000, Period.WAITING, Period.DYING),
        (1_000, Period.ACTIVE, Period.DYING),
        (1_000, Period.DYING, None),
        (1_000, Period.LATE, None),
        (1_432, Period.DYING, Period.LATE),
        (2_020, Period.DYING, Period.EXPIRED),
        (2_020, Period.EXPIRED, None),
    ],
)
def test_a_period_is_told_once_from_dying_on_and_none_that_is_earlier(
    height: int, told: Period, period: Period | None
) -> None:
    assert LIFE.untold_at(height, told) is period
