"""What a client remembers of its moving out of a factory: the fold of the records that say so."""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from immutables import Map

from cromford.protocol.journal import dying_records as dr

RETRY_BLOCKS: Final = 6  # About an hour: what refused a join, or a payment, may have changed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """How far a client has moved out of one factory.

    Attributes:
        choice: What its operator says; None leaves it to the policy.
        failed_height: Since when the newest try is refused or came back; None if it did not.
        refusal: Why the newest join was refused, or the factory that it led to; None if it was not.
        is_own_refusal: Whether it was we that refused: until a payment is on its way.
        payment: The hash of what is on its way, or was the last; None before the first.
        is_under_way: Whether that has neither arrived nor come back.
        hindrance: Why a channel did not carry the newest try; None once one did.
        moved_msat: What has arrived, in msat.
    """

    choice: bool | None = None
    failed_height: int | None = None
    refusal: str | None = None
    is_own_refusal: bool = False
    payment: bytes | None = None
    is_under_way: bool = False
    hindrance: str | None = None
    moved_msat: int = 0

    def may_try(self, height: int) -> bool:
        """Say whether the newest try that failed is long enough ago."""
        return self.failed_height is None or height >= self.failed_height + RETRY_BLOCKS


NOT_MOVING: Final = Moving()


def with_dying_record(
    moving: Map[bytes, Moving], record: dr.ClientDyingRecord, *, height: int
) -> Map[bytes, Moving]:
    """Return how far a client has moved out of each factory, after one record.

    Args:
        moving: As it was before.
        record: What is remembered.
        height: Of the chain's tip.
    """
    before = moving.get(record.attempt_id, NOT_MOVING)
    match record:
        case dr.MoveChosen(is_moving=is_moving):
            after = replace(_unrefused(before), choice=is_moving, failed_height=None)
        case dr.MoveStarted(payment_hash=payment_hash):
            begun = replace(before, payment=payment_hash, is_under_way=True, hindrance=None)
            after = _unrefused(begun)
        case dr.MoveHindered(reason=reason, is_refusal=True):
            after = replace(before, refusal=reason, is_own_refusal=True, failed_height=height)
        case dr.MoveHindered(reason=reason):
            after = replace(before, hindrance=reason)
        case dr.MoveEnded(is_moved=True, amount_msat=amount_msat):
            moved_msat = before.moved_msat + amount_msat
            after = replace(before, is_under_way=False, failed_height=None, moved_msat=moved_msat)
        case dr.MoveEnded():
            after = replace(before, is_under_way=False, failed_height=height)
        case _:
            assert_never(record)
    return moving.set(record.attempt_id, after)


def with_join_answer(
    moving: Map[bytes, Moving], attempt_id: bytes, *, refusal: str | None, height: int
) -> Map[bytes, Moving]:
    """Return how far a client has moved, after its wish to move out was answered in the lobby."""
    before = moving.get(attempt_id, NOT_MOVING)
    if refusal is not None:
        after = replace(_unrefused(before), refusal=refusal, failed_height=height)
    else:
        # What we refused we may refuse again: it is said until a factory is there.
        after = before if before.is_own_refusal else _unrefused(before)
        after = replace(after, failed_height=None)
    return moving.set(attempt_id, after)


def _unrefused(moving: Moving) -> Moving:
    return replace(moving, refusal=None, is_own_refusal=False)
