"""The LSP takes what is its own of a factory's tree: at the expiry, and L-stocks.

Asked at every block and at each start, it names the same transactions until they or their rivals
have confirmed. The coin arrives in the house's wallet, like that of an exit.
"""

from collections.abc import Iterator, Sequence

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.channels.close_rules import closed_by
from cromford.protocol.exiting.channel import ANY_FEES, RESOLVED_DEPTH
from cromford.protocol.exiting.lsp_race import of_state
from cromford.protocol.exiting.superseded import (
    stock_poisons_of,
    superseded_stocks,
)
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import DyingStep
from cromford.protocol.turn import Turn
from cromford.signing.keychain import FactoryKey
from cromford.watch.channel_exit import LeftBehind
from cromford.watch.exit import swept_by
from cromford.watch.feerates import OwnFees
from cromford.watch.lsp_sweep import (
    FactoryOnChain,
    LspOutput,
    PublishState,
    SweepTx,
    awaited,
    lsp_actions,
    lsp_outputs,
    not_worth_its_fee,
    taken,
)


def factory_on_chain(state: Factory, fees: OwnFees = ANY_FEES) -> FactoryOnChain:
    """Return a factory as the chain shows it: a leaf's older state where that one is in a block.

    Any fees will do where nothing is signed.
    """
    attempt, chain = state.attempt, state.chain
    return FactoryOnChain(
        tree=attempt.tree_on(chain),
        spends=chain.spends,
        heights=chain.confirmed,
        tip_height=chain.height,
        payout_script=attempt.payout_script,
        fees=fees,
    )


def sweep_actions(state: Factory, fees: OwnFees) -> tuple[SweepTx | PublishState, ...]:
    """Return what we take or publish now, of a factory's tree.

    Nothing of what a finished close spends: that one was agreed on, and pays the clients, too. Nor
    a state, of a restored store: what it has of the tree may be superseded, and whoever has a newer
    state has until the expiry to publish it.
    """
    if not _has_something(state):
        return ()
    closing = _closing(state)
    may_publish = not state.is_marked or state.chain.height >= state.attempt.terms.expiry_height
    return tuple(
        action
        for action in lsp_actions(factory_on_chain(state, fees))
        if (
            may_publish
            if isinstance(action, PublishState)
            else _takes(state, action.output) and action.output.outpoint not in closing
        )
    )


def effects_of(
    actions: Sequence[SweepTx | PublishState], state: Factory, fees: OwnFees
) -> tuple[fx.Effect, ...]:
    """Return what is to be asked or published for these actions.

    Before an output is taken the mempool is asked for others who spend it: then the house decides
    what of several factories goes together, and each of the rest alone.
    """
    outpoints = tuple(one.output.outpoint for one in actions if isinstance(one, SweepTx))
    lookups = (fx.LookUpSpenders(factories=(state.number,), outpoints=outpoints),)
    states = (
        _publishing(state, action, fees) for action in actions if isinstance(action, PublishState)
    )
    return (*(lookups if outpoints else ()), *states)


def sweeps_due(state: Factory, fees: OwnFees) -> tuple[fx.SignSweep, ...]:
    """Return what takes each output alone that is due now."""
    state = state.landed
    key = FactoryKey(attempt=state.attempt.key_attempt)
    return tuple(
        fx.SignSweep(key=key, spend=action)
        for action in sweep_actions(state, fees)
        if isinstance(action, SweepTx)
    )


def without_what_is_swept(
    effects: Sequence[fx.Effect], actions: Sequence[SweepTx | PublishState]
) -> tuple[fx.Effect, ...]:
    """Return these effects without transactions of the tree for which it is too late.

    Where we take an output, we do not publish the way into what it holds.
    """
    swept = {action.output.outpoint for action in actions if isinstance(action, SweepTx)}
    return tuple(
        effect
        for effect in effects
        if not (
            isinstance(effect, fx.Broadcast)
            and any(tx_in.outpoint in swept for tx_in in effect.tx.inputs)
        )
    )


def is_to_be_swept(state: Factory, client: int) -> bool:
    """Say whether the expiry has come before a client's branch: no exit reaches its channel."""
    if state.chain.height < state.attempt.terms.expiry_height:
        return False
    nodes = state.attempt.branch(client).nodes  # Every version of a state spends the same.
    branch = {node.tx.inputs[0].outpoint for node in nodes}
    return any(output.outpoint in branch for output in _awaited(state))


def awaited_outputs(state: Factory) -> tuple[LspOutput, ...]:
    """Return what of a factory's tree is ours and still to be taken, and that no close spends."""
    state = state.landed
    closing = _closing(state)
    return tuple(output for output in _awaited(state) if output.outpoint not in closing)


def _awaited(state: Factory) -> Iterator[LspOutput]:
    if _has_something(state):
        taken_by_us = awaited(factory_on_chain(state))
        yield from (output for output in taken_by_us if _takes(state, output))


def _closing(state: Factory) -> frozenset[OutPoint]:
    """Return what finished closes spend."""
    return frozenset(close.outpoint for close in state.closed.values())


def left_outputs(state: Factory, fees: OwnFees) -> tuple[LeftBehind, ...]:
    """Return what we could take now, and leave for its fee."""
    state = state.landed
    if not _has_something(state):
        return ()
    taken_by_us = {output.outpoint for output in awaited_outputs(state)}
    left = not_worth_its_fee(factory_on_chain(state, fees))
    return tuple(one for one in left if one.outpoint in taken_by_us)


def watched_outputs(state: Factory) -> frozenset[OutPoint]:
    """Return the outpoints that a sweep may spend, of what is in blocks, spent or not."""
    return frozenset(output.outpoint for output in lsp_outputs(factory_on_chain(state)))


def is_over(state: Factory) -> bool:
    """Say whether the tree has nothing left, neither ours nor a channel's.

    It was taken, closed, or went into its channels, which were spent in their turn.
    """
    if not _is_funding_spent(state):
        return False
    spends = state.chain.spends
    on_chain = factory_on_chain(state)
    if any(output.outpoint not in spends for output in lsp_outputs(on_chain)):
        return False
    channels = (
        state.funding_on_chain(client).outpoint for client in range(1, len(state.attempt.seats) + 1)
    )
    return not any(
        outpoint.txid in state.chain.confirmed and outpoint not in spends for outpoint in channels
    ) and not any(_unspent_kickoffs(on_chain))


def is_swept_for_good(state: Factory) -> bool:
    """Say whether something else than the root spent the funding's output, six blocks deep."""
    if not _is_funding_spent(state):
        return False
    sweep = swept_by((state.attempt.tree.root_node,), state.chain.spends)
    return sweep is not None and state.chain.depth(sweep.txid) >= RESOLVED_DEPTH


def is_in_channels(state: Factory) -> bool:
    """Say whether nothing was taken in place of the tree."""
    return not closes_in(state) and not any(
        output.is_expiring for output, _ in taken(factory_on_chain(state))
    )


def is_closed(state: Factory) -> bool:
    """Say whether all that was taken in place of the tree was taken by closes."""
    closes = closes_in(state)
    spenders = (spender for output, spender in taken(factory_on_chain(state)) if output.is_expiring)
    return bool(closes) and all(spender.txid in closes for spender in spenders)


def closes_in(state: Factory) -> frozenset[Txid]:
    """Return the closes of a factory that are in blocks."""
    closed = (closed_by(link, state.chain) for link in state.book.links.values())
    return frozenset(txid for txid in closed if txid is not None)


def tell_swept(turn: Turn[Factory]) -> None:
    """Remember what the newest block took of the tree, by transaction.

    A close takes nothing, and what a poison takes is the clients'.
    """
    state = turn.state.landed
    found: dict[bytes, list[LspOutput]] = {}
    not_ours = closes_in(state) | stock_poisons_of(state)
    for output, spender in taken(factory_on_chain(state)):
        if spender.txid not in not_ours and turn.chain.confirmed.get(spender.txid) == turn.height:
            found.setdefault(bytes(spender.txid), []).append(output)
    turn.remember(
        *(
            xr.OutputsSwept(
                attempt_id=state.attempt.attempt_id,
                height=turn.height,
                txid=txid,
                outputs=tuple(output.name for output in outputs),
                amount_sat=sum(output.prevout.amount_sat for output in outputs),
            )
            for txid, outputs in found.items()
        )
    )


def lost_by_sweep(state: Factory, link: Link) -> Iterator[cr.HtlcDecided]:
    """Yield that our HTLCs of a channel came back, once its branch is cut off six blocks deep.

    What they held is in the coin that the sweep made, and no client can claim it any more.
    """
    nodes = state.attempt.branch_on(link.client, state.chain).nodes
    sweep = swept_by(nodes, state.chain.spends)
    if sweep is None or state.chain.depth(sweep.txid) < RESOLVED_DEPTH:
        return
    for htlc in state.book.undecided(link):
        yield cr.HtlcDecided(channel_id=link.channel_id, htlc_id=htlc.htlc_id, preimage=None)


def _has_something(state: Factory) -> bool:
    """Say whether there can be anything of ours, without making the tree for it."""
    attempt, chain = state.attempt, state.chain
    if attempt.funded is None:
        return False
    return chain.height >= attempt.terms.expiry_height or attempt.funding_outpoint in chain.spends


def _takes(state: Factory, output: LspOutput) -> bool:
    """Say whether we take an output by ourselves: an L-stock; what expired, if the policy sweeps.

    Without that, what clients did not claim in time stays theirs to claim, and ours waits with it.
    The L-stock of a state whose poisons clients may hold is theirs, though the script would let us.
    """
    if not output.is_expiring:
        return output.outpoint not in superseded_stocks(state)
    return DyingStep.SWEEP in state.config.policy.dying_policy


def _is_funding_spent(state: Factory) -> bool:
    return state.attempt.funded is not None and state.attempt.funding_outpoint in state.chain.spends


def _publishing(state: Factory, action: PublishState, fees: OwnFees) -> fx.Broadcast:
    tx = _signed(state, action)
    return fx.Broadcast(
        name=action.node.name, tx=tx, bumping=of_state(state, action.node, tx, fees)
    )


def _signed(state: Factory, action: PublishState) -> Tx:
    return state.attempt.signed_txs[action.node.name]


def _unspent_kickoffs(factory: FactoryOnChain) -> Iterator[OutPoint]:
    """Yield what kickoffs on chain pay to states that are not."""
    for vertex in factory.tree.vertices:
        outpoint = vertex.last.tx.inputs[0].outpoint
        is_on_chain = outpoint.txid in factory.heights and outpoint not in factory.spends
        if is_on_chain and not vertex.is_static:
            yield outpoint
