"""Saying once that a factory begins to die, is past its exit deadline, or expired."""

from cromford.factory.lifetime import Lifetime, Period
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.turn import ChainTurn


def tell_period(turn: ChainTurn, attempt_id: bytes, lifetime: Lifetime, told: Period) -> None:
    """Remember the period that a funded factory is in, if it is a later one than was told."""
    period = lifetime.untold_at(turn.height, told)
    if period is not None:
        turn.remember(
            dr.PeriodBegan(attempt_id=attempt_id, height=turn.height, period=period.label)
        )
