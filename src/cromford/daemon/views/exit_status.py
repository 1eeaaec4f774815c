"""How far an exit is, as a client's operator reads it: what waits, and what it may still cost."""

from collections.abc import Callable

from cromford.answers.exits import ExitProgress, WaitingTransaction
from cromford.bitcoin.tx import OutPoint
from cromford.daemon.views.exit import exit_plan
from cromford.factory.exit_path import exit_path
from cromford.protocol.exiting.client import in_hand
from cromford.protocol.exiting.confirming import budget_left_sat, children_cost_sat, purses_of
from cromford.protocol.exiting.poisons import held_poisons
from cromford.protocol.exiting.through import is_through
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.watch.feerates import OwnFees

Seen = Callable[[OutPoint], WaitingTransaction | None]


def exit_status(
    state: ClientState, attempt: ClientAttempt, fees: OwnFees, seen: Seen
) -> ExitProgress:
    """Return how far an exit is.

    Args:
        state: The client's.
        attempt: The factory that is left.
        fees: What our node says.
        seen: Returns what the node's mempool has of what we publish to spend an outpoint.
    """
    holding = in_hand(state, attempt)
    plan = exit_plan(state, attempt, fees)
    outpoints = [step.tx.inputs[0].outpoint for step in exit_path(holding.signed)]
    outpoints.append(attempt.branch_on(state.chain).channel_outpoint)
    outpoints += [one.spends for one in held_poisons(attempt, state.chain)]
    waiting = [
        one
        for outpoint in outpoints
        if outpoint not in state.chain.spends and (one := seen(outpoint)) is not None
    ]
    is_over = is_through(state, attempt)
    purses = purses_of(holding, state.chain)
    return {
        "factory_id": plan["factory_id"],
        "exiting": attempt.is_exiting,
        "over": is_over,
        "paused": attempt.is_paused,
        "steps": [
            {
                "name": step["name"],
                "txid": step["txid"],
                "status": step["status"],
                "height": step["height"],
            }
            for step in plan["steps"]
        ],
        "due": plan["due"],
        "superseded": plan["superseded"],
        "waiting": waiting,
        "stake_sat": 0 if is_over else holding.stake.amount_sat,
        "end_height": None if is_over else holding.stake.end_height,
        "children_cost_sat": children_cost_sat(purses, state.chain),
        "budget_left_sat": 0 if is_over else budget_left_sat(holding, state.chain),
        "coins": [
            {"outpoint": str(coin.outpoint), "amount_sat": coin.txout.amount_sat}
            for outpoint in sorted(purses)
            for coin in purses[outpoint].coins
        ],
        "next": plan["next"],
    }
