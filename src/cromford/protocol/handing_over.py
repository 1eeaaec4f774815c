"""Which factory hears of keys that a client hands over: the LSP's table of this part."""

from functools import partial

from cromford import effects as fx
from cromford.protocol import addressing
from cromford.protocol import events as ev
from cromford.protocol.delivery import Round
from cromford.protocol.handover import lsp as handover
from cromford.protocol.journal.entries import FUNDED
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def take(round_: Round, event: ev.HandoverEvent) -> None:
    """Let a factory take what a client offers, and what became of it."""
    if isinstance(event, ev.KeysOffered):
        _on_offered(round_, event)
        return
    turn = addressing.named(round_, event.asked.attempt_id)
    if turn is not None:
        round_.try_in(turn, partial(_answer, turn, event))


def _on_offered(round_: Round, event: ev.KeysOffered) -> None:
    """Let a factory hear its client; whoever merely knows its name wakes no factory."""
    entry = round_.house_now().entries.get(event.attempt_id)
    is_its = entry is not None and entry.status == FUNDED and event.node_id in entry.node_ids
    turn = addressing.named(round_, event.attempt_id) if is_its else None
    if turn is not None and round_.try_in(turn, partial(handover.on_keys_offered, turn, event)):
        return
    round_.house.ask(fx.DropOffered(offered=event.offered))
    refusal = handover.LATER if is_its else handover.NO_SEAT
    answer = m.KeyTaken(attempt_id=event.attempt_id, refusal=refusal)
    round_.house.send(event.node_id, answer)


def _answer(turn: Turn[Factory], event: ev.KeysKept | ev.KeysNotKept | ev.KeysLookedUp) -> None:
    match event:
        case ev.KeysKept():
            handover.on_keys_kept(turn, event)
        case ev.KeysNotKept():
            handover.on_keys_not_kept(turn, event)
        case ev.KeysLookedUp():
            handover.on_keys_looked_up(turn, event)
