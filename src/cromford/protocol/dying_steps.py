"""When an LSP takes each step of its policy about a factory that dies: heights, nothing else."""

from enum import IntEnum
from typing import Final

from cromford.factory.lifetime import Lifetime
from cromford.protocol.policy import DyingStep, LspPolicy

# A close that waits in a mempool on the exit deadline would leave everybody too little to leave in.
CLOSE_MARGIN_BLOCKS: Final = 144
CLOSE_RETRY_BLOCKS: Final = 36  # Whoever refused, or was away, may be asked again after six hours.


class Closers(IntEnum):
    """Who may be needed for a close that the policy begins by itself."""

    NOBODY = 0  # none is begun
    LSP = 1  # the LSP alone: whoever is below the output moved out, and gave it its keys
    EVERYBODY = 2  # those who are here as well


def begin_height(policy: LspPolicy, lifetime: Lifetime, step: DyingStep) -> int | None:
    """Return from which height a step is taken; None if the policy does not have it.

    Of `move` and `close`, the first in the list begins with the dying period, and the other once
    `dying_step_percent` of it are over. `sweep` begins with the expiry.
    """
    if step not in policy.dying_policy:
        return None
    if step is DyingStep.SWEEP:
        return lifetime.expiry_height
    if policy.dying_policy[0] is step:
        return lifetime.dying_height
    return lifetime.share_height(policy.dying_step_percent)


def close_end_height(lifetime: Lifetime) -> int:
    """Return the last height at which a close may be signed: a day before the exit deadline."""
    return lifetime.exit_deadline_height - CLOSE_MARGIN_BLOCKS


def is_close_due(
    policy: LspPolicy, lifetime: Lifetime, *, asked_height: int | None, height: int
) -> bool:
    """Say whether the policy asks for a close of what is left in a factory at this height.

    Args:
        policy: The LSP's.
        lifetime: The factory's, by its slowest path.
        asked_height: When it was asked for the last time; None if never.
        height: Of the chain's tip.
    """
    begins = begin_height(policy, lifetime, DyingStep.CLOSE)
    if begins is None or not begins <= height <= close_end_height(lifetime):
        return False
    return asked_height is None or height >= asked_height + CLOSE_RETRY_BLOCKS


def closers_at(
    policy: LspPolicy, lifetime: Lifetime, *, is_asked: bool, has_failed: bool, height: int
) -> Closers:
    """Return who may be needed for a close that is begun at this height.

    Clients sign none later than a day before the exit deadline. Where the LSP signs for all of
    them nobody has to leave in time, and it needs no end. After a close that came to nothing none
    is begun until 36 blocks after it was asked for.

    Args:
        policy: The LSP's.
        lifetime: The factory's, by its slowest path.
        is_asked: Whether the policy asks for a close with this block (`is_close_due`).
        has_failed: Whether the last close of the factory came to nothing.
        height: Of the chain's tip.
    """
    begins = begin_height(policy, lifetime, DyingStep.CLOSE)
    if begins is None or height < begins:
        return Closers.NOBODY
    is_late = height > close_end_height(lifetime)
    is_again = (height - begins) % CLOSE_RETRY_BLOCKS == 0 if is_late else is_asked
    if has_failed and not is_again:
        return Closers.NOBODY
    return Closers.LSP if is_late else Closers.EVERYBODY


def next_close_height(
    policy: LspPolicy,
    lifetime: Lifetime,
    *,
    asked_height: int | None,
    has_failed: bool,
    height: int,
) -> int | None:
    """Return the first height above this one at which a close becomes possible, or is due again.

    Until then `closers_at` changes by no height to anybody else who could close it: only who is
    here decides. None if there is no such height.

    Args:
        policy: The LSP's.
        lifetime: The factory's, by its slowest path.
        asked_height: When it was asked for the last time; None if never. A reorganisation may have
            taken that height back.
        has_failed: Whether the last close of the factory came to nothing.
        height: Of the chain's tip.
    """
    begins = begin_height(policy, lifetime, DyingStep.CLOSE)
    if begins is None:
        return None
    if height < begins and not has_failed:
        return begins
    end = close_end_height(lifetime)
    again = begins if asked_height is None else asked_height + CLOSE_RETRY_BLOCKS
    due = max(begins, again, height + 1)
    if due <= end:
        return due
    if not has_failed:
        return None
    n_pauses = (max(height, end) - begins) // CLOSE_RETRY_BLOCKS + 1
    return begins + max(0, n_pauses) * CLOSE_RETRY_BLOCKS
