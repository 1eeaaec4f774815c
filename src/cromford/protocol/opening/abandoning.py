"""A funding that is taken back by another spend of its coins: the factory is over for everybody."""

from typing import Final

from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_attempt import Funded, LspAttempt
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

DIED: Final = "a coin of the funding was spent by another transaction"


def end_if_dead(turn: Turn[Factory], attempt: LspAttempt, funded: Funded) -> None:
    """End a factory whose funding will not confirm, and tell everybody.

    Another spend of its coin is as deep as a funding has to be.
    """
    if funded.is_dead or turn.chain.rival_depth(attempt.funding_tx) < attempt.terms.min_depth:
        return
    turn.remember(op.FundingDied(attempt_id=attempt.attempt_id))
    for seat in attempt.seats:
        turn.send(seat.node_id, m.Abort(attempt_id=attempt.attempt_id, reason=DIED))
