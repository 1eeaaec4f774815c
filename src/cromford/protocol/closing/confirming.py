"""A close that everybody signed is published until a block has it, or something else took its coin.

Asked at every block and at each start, alike for both roles. Where what waits pays too little, each
who is paid by the close may pay for it with a child of that very output: no coin is needed, and it
does not matter whose child it is.
"""

from collections.abc import Iterator, Mapping

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import Tx
from cromford.factory.close import CloseScope
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.close_scopes import client_scope, lsp_scope
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees, blocks_left
from cromford.watch.schedule import unhurried_budget_sat


def owed_by_client(state: ClientState, fees: OwnFees) -> tuple[fx.Broadcast, ...]:
    """Return what a client publishes of its closes now."""
    return tuple(_owed_by_client(state, fees))


def _owed_by_client(state: ClientState, fees: OwnFees) -> Iterator[fx.Broadcast]:
    for close in _waiting(state.closed, state.chain):
        for attempt in state.attempts.values():
            scope = client_scope(attempt, close.outpoint) if attempt.ready_sent else None
            if scope is None:
                continue
            link = state.book.links[attempt.setting.channel_id]
            yield close_broadcast(
                close,
                scope,
                fees=fees,
                own_script=attempt.join.payout_script,
                n_blocks=_blocks_until(link.remaining(state.chain).exit_deadline_height, state),
            )


def _blocks_until(deadline_height: int | None, state: ClientState) -> int:
    """Return how long a client may wait for a close: until it would have to leave, or a day."""
    if deadline_height is None:
        return SWEEP_BLOCKS
    left = blocks_left(deadline_height=deadline_height, height=state.chain.height)
    return min(left, SWEEP_BLOCKS)


def owed_by_factory(state: Factory, fees: OwnFees) -> tuple[fx.Broadcast, ...]:
    """Return what an LSP publishes of a factory's closes now: nothing of its own hurries."""
    return tuple(
        close_broadcast(
            close,
            lsp_scope(state.attempt, close.outpoint),
            fees=fees,
            own_script=state.attempt.payout_script,
            n_blocks=SWEEP_BLOCKS,
        )
        for close in _waiting(state.closed, state.chain)
    )


def _waiting(closed: Mapping[bytes, FinishedClose], chain: KnownChain) -> Iterator[FinishedClose]:
    return (close for _, close in sorted(closed.items()) if close.is_waiting(chain))


def close_broadcast(
    close: FinishedClose, scope: CloseScope, *, fees: OwnFees, own_script: bytes, n_blocks: int
) -> fx.Broadcast:
    """Return how a close is published: which of its transactions, and what may be done for it.

    The cheapest that pays a day's estimate, else the dearest. A child of its own output costs at
    most half of it, and no deadline makes it dearer: whoever would have to leave leaves. Against an
    exit's transaction that pays enough it goes without one: somebody pays for that to be first.

    Args:
        close: The close.
        scope: What it spends.
        fees: What our own node says.
        own_script: Where it pays us.
        n_blocks: Within how many blocks it should be in one.
    """
    tx = _option(close, scope, fees)
    payout_sat = sum(
        output.amount_sat for output in tx.outputs if output.script_pubkey == own_script
    )
    return fx.Broadcast(
        name=f"close {scope.name}",
        tx=tx,
        bumping=Bumping(
            fee_sat=_fee_sat(tx, scope),
            feerate_sat_per_kw=fees.believed_within(n_blocks),
            budget_sat=unhurried_budget_sat(payout_sat, fees),
            fees=fees,
            own_script=own_script if payout_sat else b"",
            twins=close.txids,
            spares_rivals=True,
        ),
    )


def _option(close: FinishedClose, scope: CloseScope, fees: OwnFees) -> Tx:
    for tx in close.txs:
        day_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=fees.within(SWEEP_BLOCKS))
        if _fee_sat(tx, scope) >= day_sat:
            return tx
    return close.txs[-1]


def _fee_sat(tx: Tx, scope: CloseScope) -> int:
    return scope.amount_sat - sum(output.amount_sat for output in tx.outputs)
