"""The moment of funding: what has to hold before the LSP signs, and what it publishes then."""

from collections.abc import Iterator

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_attempt import Acknowledging, Funded
from cromford.protocol.turn import Turn


def fund_if_due(turn: Turn[Factory]) -> None:
    """Fund what everybody acknowledged, unless no risk may be taken.

    By a clock that stands still a factory would be funded that its clients refuse as too late.
    """
    attempt = turn.state.attempt
    if not isinstance(attempt.stage, Acknowledging) or attempt.has_holdouts:
        return
    if is_too_late(turn.state):
        return
    outpoints = [tx_in.outpoint for tx_in in attempt.funding_tx.inputs]
    # A reorganisation may have taken a coin away.
    if turn.facts.may_risk and turn.facts.directory.has_coins(outpoints):
        deadline = fx.AttemptDeadline(attempt_id=attempt.attempt_id)
        turn.ask(fx.ClearDeadline(deadline=deadline), fund(turn.state))


def fund(state: Factory) -> fx.SignFunding:
    """Return the effect that signs the funding transaction.

    Funding waits for every signature and every acknowledgement: once the coins sit in the
    funding output, a client without a signed path has only the LSP's goodwill, and the LSP
    only the expiry. Of a channel without a commitment of its own it could not even take its
    balance.

    Raises:
        AssertionError: If anything is missing. Never to be caught.
    """
    attempt = state.attempt
    if not isinstance(attempt.stage, Acknowledging) or attempt.has_holdouts:
        raise AssertionError("funding before everybody holds an exit")
    for one in attempt.ladder:
        signed = one.signed
        if signed is None or len(signed.below.commitment_signatures) != len(attempt.seats):
            raise AssertionError("funding before every own first commitment is held")
    return fx.SignFunding(
        attempt_id=attempt.attempt_id,
        tx=attempt.funding_tx,
        higher=tuple(one.blueprint.funding_tx for one in attempt.others),
        prevouts=tuple(coin.txout for coin in state.coins),
        paths=tuple(coin.path for coin in state.coins),
    )


def first_watch(state: Factory) -> xr.Watching:
    """Return what has to be watched before a funding is published: its coins, and its output.

    Of every candidate: whichever confirms, nothing that becomes of it is missed.
    """
    attempt = state.attempt
    outpoints = [
        *(tx_in.outpoint for tx_in in attempt.funding_tx.inputs),
        *(one.blueprint.funding_outpoint for one in attempt.ladder),
    ]
    return xr.Watching(
        height=state.chain.height,
        outpoints=tuple(sorted(outpoint.serialize() for outpoint in outpoints)),
    )


def owed_of_funding(state: Factory, funded: Funded) -> Iterator[fx.Effect]:
    """Yield what is owed of a funding that is in no block, unless it was given up, or is too late.

    Too late, it would lock our coins up until the expiry, in a factory that nobody uses.
    """
    is_wanted = funded.replacement is None and not funded.is_dead and not is_too_late(state)
    if is_wanted and state.is_watched:
        yield fx.Broadcast(name="funding", tx=funded.funding_tx)


def is_too_late(state: Factory) -> bool:
    """Say whether no client would use a factory any more whose funding the next block had.

    One that was live has clients with money in it, whenever its funding comes back.
    """
    attempt = state.attempt
    if state.chain.depth(attempt.funding_tx.txid) or (attempt.funded and attempt.funded.ready_sent):
        return False
    return state.chain.height >= attempt.blueprint.ready_height_max


def why_too_late(state: Factory) -> str:
    """Return why nobody would use a factory whose funding is in no block yet."""
    return (
        f"the funding is too late: no client uses the factory if it confirms above height "
        f"{state.attempt.blueprint.ready_height_max}, and the tip is at {state.chain.height}"
    )


def published_funding(state: Factory) -> Tx | None:
    """Return the signed funding transaction; None as long as nobody may hear of it."""
    funded = state.attempt.funded
    return None if funded is None or not state.is_watched else funded.funding_tx


def published_ladder(state: Factory) -> tuple[Tx, ...]:
    """Return each signed candidate, lowest feerate first; none as long as nobody may hear of it."""
    if not state.is_watched:
        return ()
    stages = (one.stage for one in state.attempt.ladder)
    return tuple(stage.funding_tx for stage in stages if isinstance(stage, Funded))
