"""Where the house and its factories decide together about what is swept."""

from functools import partial
from typing import assert_never

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import sweeping
from cromford.protocol.delivery import Round
from cromford.protocol.exiting.lsp import sweep_again
from cromford.protocol.exiting.lsp_sweep import sweeps_due
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn


def ask_at_once(round_: Round) -> None:
    """Let the house ask once what spends all that can be taken of factories by this decision."""
    lookups = round_.taken_lookups()
    if lookups:
        round_.house.ask(sweeping.look_up_at_once(lookups))


def take(round_: Round, event: ev.JointSweepEvent) -> None:
    """Take what was asked about the mempool, or a signature."""
    match event:
        case ev.SpendersLookedUp():
            _sweep(round_, event)
        case ev.JointSweepSigned():
            sweeping.on_signed(round_.house, event)
        case _:
            assert_never(event)


def on_refused(round_: Round, event: ev.BroadcastRefused) -> None:
    """Ask again for what our node does not take together, if that is what it was."""
    for number in sweeping.on_refused(round_.house, event):
        turn = round_.factory(number)
        round_.try_in(turn, partial(sweep_again, turn))


def _sweep(round_: Round, event: ev.SpendersLookedUp) -> None:
    """Let the house take together what it can, and each factory the rest.

    By what is due now: a block may have come since the mempool was asked.
    """
    asked = set(event.asked.outpoints)
    due: list[fx.SignSweep] = []

    def add_due(turn: Turn[Factory]) -> None:
        sweeps = sweeps_due(turn.state, turn.facts.fees)
        due.extend(one for one in sweeps if one.spend.output.outpoint in asked)

    for number in event.asked.factories:
        turn = round_.factory(number)
        round_.try_in(turn, partial(add_due, turn))
    for alone in sweeping.join(round_.house, due, dict(event.spenders)):
        round_.factory(alone.key.attempt).ask(alone)
