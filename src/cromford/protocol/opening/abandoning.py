"""A funding that is taken back by another spend of its coins: the factory is over for everybody."""

from typing import Final

from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_attempt import Funded, LspAttempt
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

DIED: Final = "a coin of the funding was spent by another transaction"
DISPLACED: Final = "another candidate of the funding confirmed than the one that channels are in"


def end_if_dead(turn: Turn[Factory], attempt: LspAttempt, funded: Funded) -> None:
    """End a factory whose funding will not confirm, and tell everybody.

    Another spend of its coin is as deep as a funding has to be.
    """
    if funded.is_dead or not attempt.is_overtaken(turn.chain):
        return
    rung = attempt.rung_in(turn.chain)
    turn.remember(op.FundingDied(attempt_id=attempt.attempt_id, rung=rung))
    reason = DIED if rung is None else DISPLACED
    for seat in attempt.seats:
        turn.send(seat.node_id, m.Abort(attempt_id=attempt.attempt_id, reason=reason))
