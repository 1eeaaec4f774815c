"""The moment of funding: what has to hold before the LSP signs, and what it publishes then."""

from collections.abc import Iterator

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol.journal.lsp_attempt import Acknowledging, Funded, LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.opening import abandoning
from cromford.protocol.turn import Turn


def fund_if_due(turn: Turn[LspState]) -> None:
    """Fund what everybody acknowledged, unless the chain is stale.

    By a clock that stands still a factory would be funded that its clients refuse as too late.
    """
    attempt = turn.state.open_attempt
    if attempt is None or not isinstance(attempt.stage, Acknowledging) or attempt.holdouts:
        return
    if turn.facts.is_fresh and is_fundable(turn.state, attempt):
        deadline = fx.AttemptDeadline(attempt_id=attempt.attempt_id)
        turn.ask(fx.ClearDeadline(deadline=deadline), fund(turn.state, attempt))


def is_fundable(state: LspState, attempt: LspAttempt) -> bool:
    """Say whether the wallet still has every coin of the funding: a reorg may take one away."""
    coins = [state.wallet.coins.get(tx_in.outpoint) for tx_in in attempt.funding_tx.inputs]
    return all(coin is not None and coin.spent_height is None for coin in coins)


def fund(state: LspState, attempt: LspAttempt) -> fx.SignFunding:
    """Return the effect that signs the funding transaction.

    Funding waits for every signature and every acknowledgement: once the coins sit in the
    funding output, a client without a signed path has only the LSP's goodwill, and the LSP
    only the expiry. Of a channel without a commitment of its own it could not even take its
    balance.

    Raises:
        AssertionError: If anything is missing. Never to be caught.
    """
    if not isinstance(attempt.stage, Acknowledging) or attempt.holdouts:
        raise AssertionError("funding before everybody holds an exit")
    below = attempt.stage.signed.below
    if len(below.commitment_signatures) != len(attempt.seats):
        raise AssertionError("funding before every own first commitment is held")
    coins = [state.wallet.coins[tx_in.outpoint] for tx_in in attempt.funding_tx.inputs]
    return fx.SignFunding(
        attempt_id=attempt.attempt_id,
        tx=attempt.funding_tx,
        prevouts=tuple(coin.txout for coin in coins),
        paths=tuple(coin.path for coin in coins),
    )


def funding_broadcast(tx: Tx) -> fx.Broadcast:
    """Return the effect that publishes a signed funding transaction."""
    return fx.Broadcast(name="funding", tx=tx)


def owed_of_funding(state: LspState, funded: Funded) -> Iterator[fx.Effect]:
    """Yield what is owed of a funding that is in no block: it, or what replaces it."""
    if funded.replacement is not None:
        yield from abandoning.owed(state, funded.replacement)
    elif not funded.is_dead:
        yield funding_broadcast(funded.funding_tx)
