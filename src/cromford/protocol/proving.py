"""A high-water mark proves that an LSP's restored store lost nothing: every stream hears of it."""

from cromford import effects as fx
from cromford.protocol.delivery import Round
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.records import MarkLifted
from cromford.protocol.restored import BEGIN_ANEW
from cromford.protocol.turn import Turn


def on_proven(round_: Round) -> None:
    """Take the marks off, also of factories that sleep; the clients begin with new connections."""
    if not round_.house.state.restored.is_unproven:
        return
    round_.house.remember(MarkLifted())
    for number in sorted({*round_.before.asleep, *round_.before.factories}):
        turn = round_.factory(number)
        if turn.state.is_marked and round_.goes_on(turn.stream):
            round_.try_in(turn, lambda turn=turn: _lift(turn))  # type: ignore[misc]  # bound now
    for node_id in sorted(round_.house.state.connected):
        round_.house.ask(fx.Disconnect(node_id=node_id, reason=BEGIN_ANEW))


def _lift(turn: Turn[Factory]) -> None:
    turn.remember(MarkLifted())
