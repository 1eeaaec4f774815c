"""When an LSP does what its policy says about a factory that dies: every height, every policy."""

from dataclasses import replace
from itertools import chain, permutations

import pytest

from cromford.factory.lifetime import Lifetime
from cromford.protocol.dying_steps import (
    Closers,
    begin_height,
    closers_at,
    is_close_due,
    next_close_height,
)
from cromford.protocol.policy import (
    DyingStep,
    InvalidDyingPolicy,
    LspPolicy,
    check_dying_policy,
)

MOVE, CLOSE, SWEEP = DyingStep.MOVE, DyingStep.CLOSE, DyingStep.SWEEP
LIFE = Lifetime(dying_height=1_000, exit_deadline_height=1_432, expiry_height=2_020)
DEFAULT = LspPolicy()
LAST = 1_432 - 144


def policy_of(*steps: DyingStep) -> LspPolicy:
    return replace(DEFAULT, dying_policy=steps)


@pytest.mark.parametrize(
    ("steps", "begins"),
    [
        ((MOVE, CLOSE, SWEEP), (1_000, 1_216, 2_020)),
        ((CLOSE, MOVE, SWEEP), (1_216, 1_000, 2_020)),
        ((MOVE, CLOSE), (1_000, 1_216, None)),
        ((CLOSE, MOVE), (1_216, 1_000, None)),
        ((MOVE, SWEEP), (1_000, None, 2_020)),
        ((CLOSE, SWEEP), (None, 1_000, 2_020)),
        ((MOVE,), (1_000, None, None)),
        ((CLOSE,), (None, 1_000, None)),
        ((SWEEP,), (None, None, 2_020)),
    ],
)
def test_each_step_begins_at_its_height(
    steps: tuple[DyingStep, ...], begins: tuple[int | None, ...]
) -> None:
    policy = policy_of(*steps)
    assert tuple(begin_height(policy, LIFE, step) for step in (MOVE, CLOSE, SWEEP)) == begins


def test_every_list_of_steps_is_a_policy_or_refused_by_name() -> None:
    lists = list(chain.from_iterable(permutations(DyingStep, n) for n in range(4)))
    refused = [steps for steps in lists if not steps or SWEEP in steps[:-1]]
    assert len(lists) == 1 + 3 + 6 + 6
    assert len(lists) - len(refused) == 9, "those of the test above"
    for steps in lists:
        if steps not in refused:
            check_dying_policy(steps)
    for steps in refused:
        expected = "sweep last" if steps else "one or more of move, close, sweep"
        with pytest.raises(InvalidDyingPolicy, match=f"^expected {expected}, .*received"):
            check_dying_policy(steps)


def test_a_step_is_named_once() -> None:
    with pytest.raises(InvalidDyingPolicy, match="expected each step once, received move, move"):
        check_dying_policy((MOVE, MOVE))
    with pytest.raises(InvalidDyingPolicy, match="received nothing"):
        policy_of()


@pytest.mark.parametrize(
    ("height", "asked", "due"),
    [
        (1_215, None, False),
        (1_216, None, True),
        (LAST, None, True),
        (LAST + 1, None, False),
        (1_251, 1_216, False),
        (1_252, 1_216, True),
        (LAST, 1_252, True),
        (LAST, 1_253, False),
        (LAST + 1, 1_216, False),
    ],
)
def test_a_close_is_asked_for_in_its_time_and_not_too_often(
    height: int, asked: int | None, *, due: bool
) -> None:
    assert is_close_due(DEFAULT, LIFE, asked_height=asked, height=height) is due


def test_without_close_in_the_policy_none_is_ever_asked_for() -> None:
    policy = policy_of(MOVE, SWEEP)
    assert not any(
        is_close_due(policy, LIFE, asked_height=None, height=height) for height in range(990, 2_030)
    )
    assert next_close(policy, LIFE, None, 1_000) is None
    assert next_close(policy, LIFE, None, 1_000, has_failed=True) is None


def next_close(
    policy: LspPolicy, life: Lifetime, asked: int | None, height: int, *, has_failed: bool = False
) -> int | None:
    return next_close_height(policy, life, asked_height=asked, has_failed=has_failed, height=height)


def test_the_next_close_is_the_first_height_at_which_one_is_due() -> None:
    for asked in (None, 1_216, 1_250, LAST - 36, LAST):
        for height in range(asked or 1_200, 1_440):
            due = [
                later
                for later in range(height + 1, 1_440)
                if is_close_due(DEFAULT, LIFE, asked_height=asked, height=later)
            ]
            assert next_close(DEFAULT, LIFE, asked, height) == (due[0] if due else None)


@pytest.mark.parametrize("has_failed", [False, True])
@pytest.mark.parametrize("steps", [(MOVE, CLOSE, SWEEP), (CLOSE, SWEEP), (MOVE, CLOSE)])
@pytest.mark.parametrize("dying_blocks", [100, 200, 432])
def test_before_the_next_height_of_a_close_nobody_more_may_close_than_now(
    dying_blocks: int, steps: tuple[DyingStep, ...], *, has_failed: bool
) -> None:
    """Also where a reorganisation took back the height at which it was asked for."""
    end = 1_060 + dying_blocks
    life = replace(LIFE, exit_deadline_height=1_000 + dying_blocks, expiry_height=end)
    policy, heights = policy_of(*steps), range(990, end)
    for asked in (None, 1_000, 1_050, 1_216, LAST):
        due = {
            height: is_close_due(policy, life, asked_height=asked, height=height)
            for height in heights
        }
        now, then = (
            {
                height: closers_at(
                    policy,
                    life,
                    is_asked=counts and due[height],
                    has_failed=has_failed,
                    height=height,
                )
                for height in heights
            }
            for counts in (False, True)
        )
        for height in heights:
            following = next_close(policy, life, asked, height, has_failed=has_failed) or end
            between = range(height + 1, min(following, end))
            assert max((then[one] for one in between), default=0) <= now[height], (asked, height)
            assert not any(due[one] for one in between), (asked, height)
            assert following > height
            assert following >= end or then[following] is not Closers.NOBODY, (asked, height)


def test_where_the_dying_period_is_too_short_for_a_close_none_is_asked_for() -> None:
    short = Lifetime(dying_height=1_000, exit_deadline_height=1_143, expiry_height=1_700)
    policy = policy_of(CLOSE, SWEEP)
    assert not any(
        is_close_due(policy, short, asked_height=None, height=height) for height in range(1_700)
    )
    assert next_close(policy, short, None, 0) == 1_000, (
        "what all moved out of is closed all the same"
    )
    assert next_close(policy, short, None, 1_000) is None
    a_block_more = replace(short, exit_deadline_height=1_144)
    assert is_close_due(policy, a_block_more, asked_height=None, height=1_000)
    assert next_close(policy, a_block_more, None, 0) == 1_000
