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
        refusal: Why the newest join was refused; None if it was not.
        payment: The hash of what is on its way, or was the last; None before the first.
        is_under_way: Whether that has neither arrived nor come back.
        hindrance: Why a channel did not carry the newest try; None once one did.
        moved_msat: What has arrived, in msat.
    """

    choice: bool | None = None
    failed_height: int | None = None
    refusal: str | None = None
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
            after = replace(before, choice=is_moving, failed_height=None, refusal=None)
        case dr.MoveStarted(payment_hash=payment_hash):
            after = replace(before, payment=payment_hash, is_under_way=True, hindrance=None)
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
    failed_height = None if refusal is None else height
    after = replace(before, refusal=refusal, failed_height=failed_height)
    return moving.set(attempt_id, after)
