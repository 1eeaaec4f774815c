"""A high-water mark proves that an LSP's restored store lost nothing: every stream hears of it."""

from functools import partial

from cromford import effects as fx
from cromford.protocol.delivery import Round
from cromford.protocol.journal.records import MarkLifted
from cromford.protocol.restored import BEGIN_ANEW


def on_proven(round_: Round) -> None:
    """Take the marks off; the clients begin with new connections.

    A marked factory does not sleep. One that a bug had stopped hears of it the next time.
    """
    marked = [turn for turn in round_.factories() if turn.state.is_marked]
    is_unproven = round_.house.state.restored.is_unproven
    if is_unproven:
        round_.house.remember(MarkLifted())
    for turn in marked:
        round_.try_in(turn, partial(turn.remember, MarkLifted()))
    if not marked and not is_unproven:
        return
    for node_id in sorted(round_.house.state.connected):
        round_.house.ask(fx.Disconnect(node_id=node_id, reason=BEGIN_ANEW, is_ours=True))
