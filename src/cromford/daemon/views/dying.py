"""Where a factory stands in its life, and what will happen, as both operators read it."""

from collections.abc import Mapping
from typing import Any, Final

from cromford.answers.factories import FactoryPeriod, MovingOut, StepWhenDying
from cromford.daemon.views.words import period_word
from cromford.factory.lifetime import Lifetime, Period
from cromford.protocol.dying.outlook import outlook_of
from cromford.protocol.dying_steps import begin_height, close_end_height
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.policy import DyingStep, LspPolicy

ENDING: Final = frozenset({Period.DYING, Period.LATE, Period.EXPIRED})

# What is known of a factory whose terms are not known yet, or whose label is older than this.
UNKNOWN: Final[FactoryPeriod] = {
    "period": None,
    "dying_height": None,
    "blocks_to_next_period": None,
}
_MEANINGS: Final = {
    DyingStep.MOVE: "the next factory is built for those of its clients who wait",
    DyingStep.CLOSE: "a cooperative close of what is left is asked for",
    DyingStep.SWEEP: "what nobody claimed is swept",
}


def show_period(lifetime: Lifetime, height: int, *, is_funded: bool) -> FactoryPeriod:
    """Return which period a factory is in at a height, and for how many blocks."""
    change = lifetime.next_change(height)
    return {
        "period": period_word(lifetime.period_at(height, is_funded=is_funded)),
        "dying_height": lifetime.dying_height,
        "blocks_to_next_period": None if change is None else change - height,
    }


def period_of_shown(shown: Mapping[str, Any], height: int, *, is_funded: bool) -> FactoryPeriod:
    """Return the same of a factory that sleeps, by the heights in its label."""
    if shown.get("dying_height") is None:
        return UNKNOWN
    lifetime = Lifetime(
        dying_height=shown["dying_height"],
        exit_deadline_height=shown["exit_deadline_height"],
        expiry_height=shown["expiry_height"],
    )
    return show_period(lifetime, height, is_funded=is_funded)


def show_steps(policy: LspPolicy, lifetime: Lifetime, height: int) -> list[StepWhenDying]:
    """Return what an LSP does about a factory that dies, in the order of its policy.

    And what it does not: a step that has no time, and a sweep that is not in the policy.
    """
    steps = [_show_step(policy, lifetime, step, height) for step in policy.dying_policy]
    if DyingStep.SWEEP not in policy.dying_policy:
        told = "nothing is swept after the expiry: `sweep` is not in `dying_policy`"
        steps.append({"step": "none", "from_height": None, "to_height": None, "what": told})
    return steps


def _show_step(
    policy: LspPolicy, lifetime: Lifetime, step: DyingStep, height: int
) -> StepWhenDying:
    begins, ends = begin_height(policy, lifetime, step), None
    if step is DyingStep.MOVE:
        ends = lifetime.exit_deadline_height - 1
    elif step is DyingStep.CLOSE:
        ends = close_end_height(lifetime)
    what = _MEANINGS[step]
    if begins is not None and ends is not None and begins > ends:
        what = "no close is asked for: a day before the exit deadline it is too late to begin one"
        return {"step": step.value, "from_height": None, "to_height": None, "what": what}
    if ends is not None and height > ends:
        what = f"over: {what}"
    return {"step": step.value, "from_height": begins, "to_height": ends, "what": what}


def show_moving(state: ClientState, attempt: ClientAttempt) -> MovingOut | None:
    """Return how far a client has moved out of a factory that dies; None before it does."""
    outlook = outlook_of(state, attempt)
    if outlook is None:
        return None
    target = outlook.to_attempt_id
    return {
        "status": outlook.status,
        "why": outlook.why,
        "to_factory_id": None if target is None else target.hex(),
        "moved_msat": outlook.moved_msat,
        "left_msat": outlook.left_msat,
    }
