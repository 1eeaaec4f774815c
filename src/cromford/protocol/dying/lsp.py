"""An LSP's factory that dies: it says so, and asks for a close when its policy does."""

from collections.abc import Callable

from cromford.protocol.dying.telling import tell_period
from cromford.protocol.dying_steps import Closers, closers_at, is_close_due
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.watch.exit import swept_by


def on_block(turn: Turn[Factory], *, is_over: Callable[[Factory], bool]) -> Closers:
    """Tell of a factory that dies, as a block makes it so; return by whom some of it may be closed.

    What the policy asks for in vain is asked again some blocks later. What can be closed only now,
    because somebody came or a part before it is in a block, does not wait for that.

    Args:
        turn: The decision so far.
        is_over: Says whether nothing of a factory is left; it grows no older then.
    """
    state, height = turn.state, turn.height
    if not stands(state):
        return Closers.NOBODY
    is_asked = wants_close(state, height)
    is_untold = state.lifetime.untold_at(height, state.period) is not None
    if (is_asked or is_untold) and is_over(state):
        return Closers.NOBODY
    tell_period(turn, state.attempt.attempt_id, state.lifetime, state.period)
    if is_asked:
        turn.remember(dr.CloseWanted(attempt_id=state.attempt.attempt_id, height=height))
    return _closers(turn.state, height, is_asked=is_asked)


def closers_between(state: Factory) -> Closers:
    """Return by whom some of a factory may be closed where the policy does not ask for it anew."""
    if not stands(state):
        return Closers.NOBODY
    return _closers(state, state.chain.height, is_asked=False)


def _closers(state: Factory, height: int, *, is_asked: bool) -> Closers:
    return closers_at(
        state.config.policy,
        state.lifetime,
        is_asked=is_asked,
        has_failed=state.close_ended is not None,
        height=height,
    )


def wants_close(state: Factory, height: int) -> bool:
    """Say whether the policy asks for a cooperative close of what is left in a factory.

    Of one that stands and dies, from the height that the policy names until a day before the exit
    deadline, and again 36 blocks after it was asked for in vain. Who is there to sign is asked
    later, and so is what of the tree can still be closed.

    Args:
        state: The factory.
        height: Of the chain's tip.
    """
    return stands(state) and is_close_due(
        state.config.policy, state.lifetime, asked_height=state.close_height, height=height
    )


def stands(state: Factory) -> bool:
    """Say whether clients can have money in a factory: funded, ready, and not taken as a whole."""
    funded = None if state.begun is None else state.attempt.funded
    if funded is None or not funded.ready_sent or state.is_dead:
        return False
    if state.chain.depth(state.attempt.funding_tx.txid) == 0:
        return False
    if state.attempt.funding_outpoint not in state.chain.spends:
        return True
    return swept_by((state.attempt.tree.root_node,), state.chain.spends) is None
