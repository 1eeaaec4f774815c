"""What may be done so that what we publish of a channel confirms in time, and what it may cost.

One budget, half of what could be lost, is for all children of a way out; what children in blocks
have cost is gone from it.
"""

from collections.abc import Iterator

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.exit_path import ExitStep, exit_path
from cromford.factory.kinds import BLOCKS_PER_TX
from cromford.protocol.exiting.in_hand import InHand
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.purses import Purses
from cromford.wallet.coins import Purse
from cromford.watch.bumping import Bumping, anchor_of
from cromford.watch.feerates import OwnFees, fee_to_offer_sat, path_budget_sat
from cromford.watch.schedule import (
    MARGIN_BLOCKS,
    scheduled_sat_per_kw,
    state_deadline_height,
    step_deadline_height,
)
from cromford.watch.sweep import HtlcInput, TakingTx, with_coins


def step_of_path(
    holding: InHand, chain: KnownChain, step: ExitStep, *, fees: OwnFees, is_leaving: bool
) -> fx.Broadcast:
    """Return how a step of the way out is published; it can be in the next block.

    Whoever does not leave pays only where an older state could come first.
    """
    steps = exit_path(holding.signed)
    parent_height = _height_of(chain, step.tx)
    deadlines = []
    if step.is_raced:
        deadlines.append(
            state_deadline_height(
                step, kickoff_height=parent_height, step_blocks=holding.terms.step_blocks
            )
        )
    end_height = holding.stake.end_height
    if is_leaving and end_height is not None:
        later = steps[steps.index(step) + 1 :]
        deadlines.append(step_deadline_height(later, end_height=end_height))
    known = [height for height in deadlines if height is not None]
    if not (known or is_leaving):
        return fx.Broadcast(name=step.name, tx=step.tx)
    deadline_height = min(known, default=None)
    first_height = parent_height + max(step.delay_blocks, 1) - 1
    if not step.state_index:
        first_height = _share_begins(max(first_height, holding.exit_height), deadline_height)
    bumping = _bumping(
        holding,
        chain,
        step.tx,
        fee_sat=step.fee_sat,
        feerate_sat_per_kw=scheduled_sat_per_kw(
            fees,
            deadline_height=deadline_height,
            first_height=first_height,
            height=chain.height,
        ),
        budget_sat=budget_left_sat(holding, chain),
        fees=fees,
    )
    return fx.Broadcast(name=step.name, tx=step.tx, bumping=bumping)


def of_commitment(holding: InHand, chain: KnownChain, *, fees: OwnFees) -> Bumping:
    """Return what may be done for our commitment; a peer's in its place is as good."""
    tx = holding.link.finished.tx
    paid_sat = sum(txout.amount_sat for txout in tx.outputs)
    end_height = holding.stake.end_height
    return _bumping(
        holding,
        chain,
        tx,
        fee_sat=holding.link.finished.commitment.funding.capacity_sat - paid_sat,
        feerate_sat_per_kw=scheduled_sat_per_kw(
            fees,
            deadline_height=end_height,
            first_height=_share_begins(max(_height_of(chain, tx), holding.exit_height), end_height),
            height=chain.height,
        ),
        budget_sat=budget_left_sat(holding, chain),
        fees=fees,
        gives_way=True,
    )


def of_spend(
    holding: InHand, chain: KnownChain, spend: TakingTx, *, fees: OwnFees
) -> Bumping | None:
    """Return what may be done for an HTLC transaction; None for what names its own fee.

    HTLC-success has to come before the peer may take it back; HTLC-timeout, where it pays for an
    HTLC of somebody else, before that one has to be left for.
    """
    one = spend.inputs[0]
    if not isinstance(one, HtlcInput):
        return None
    htlc = one.htlc_tx.htlc
    landed_height = _height_of(chain, spend.tx)
    deadline_height: int | None = htlc.cltv_expiry - MARGIN_BLOCKS
    first_height = landed_height
    if one.htlc_tx.is_offered:
        is_forwarded = htlc.htlc_id in holding.stake.forwarded
        deadline_height = htlc.cltv_expiry + CLAIM_BLOCKS if is_forwarded else None
        first_height = max(landed_height, htlc.cltv_expiry)
    return _bumping(
        holding,
        chain,
        spend.tx,
        fee_sat=spend.fee_sat,
        feerate_sat_per_kw=scheduled_sat_per_kw(
            fees,
            deadline_height=deadline_height,
            first_height=first_height,
            height=chain.height,
        ),
        budget_sat=path_budget_sat(one.prevout.amount_sat),
        fees=fees,
    )


def paid_for(spend: TakingTx, bumping: Bumping) -> TakingTx:
    """Return an HTLC transaction that pays nothing itself with coins that pay for it.

    As it is, where no coin is there, or they do not reach: a node refuses it, and says so.
    """
    if bumping.purse is None:
        return spend
    with_fee = with_coins(spend, bumping.purse, fee_sat=lambda vsize: _fee_sat(vsize, bumping))
    return with_fee or spend


def _fee_sat(vsize: int, bumping: Bumping) -> int | None:
    fees = bumping.fees
    return fee_to_offer_sat(
        fee_sat_of(vsize=vsize, feerate_sat_per_kw=bumping.wanted_sat_per_kw),
        least_sat=fee_sat_of(vsize=vsize, feerate_sat_per_kw=fees.mempool_min_sat_per_kw),
        budget_sat=bumping.budget_sat,
    )


def children_cost_sat(purses: Purses, chain: KnownChain) -> int:
    """Return what children in blocks have cost our coins."""
    return sum(purse.cost_sat + cost_in_blocks_sat(purse, chain) for purse in purses.values())


def cost_in_blocks_sat(purse: Purse, chain: KnownChain) -> int:
    """Return what the children that spend coins of a purse, and are in blocks, have cost it."""
    spent = {
        coin.outpoint: spender
        for coin in purse.coins
        if (spender := chain.spends.get(coin.outpoint)) is not None
    }
    spent_sat = sum(coin.txout.amount_sat for coin in purse.coins if coin.outpoint in spent)
    children = {spender.txid: spender for spender in spent.values()}
    kept_sat = sum(
        txout.amount_sat
        for child in children.values()
        for txout in child.outputs
        if txout.script_pubkey == purse.change_script
    )
    return max(0, spent_sat - kept_sat)


def _bumping(
    holding: InHand,
    chain: KnownChain,
    tx: Tx,
    *,
    fee_sat: int,
    feerate_sat_per_kw: int,
    budget_sat: int,
    fees: OwnFees,
    gives_way: bool = False,
) -> Bumping:
    return Bumping(
        fee_sat=fee_sat,
        feerate_sat_per_kw=feerate_sat_per_kw,
        budget_sat=budget_sat,
        fees=fees,
        purse=holding.purses.get(tx.inputs[0].outpoint),
        spare_anchors=tuple(_spare_anchors(holding, chain)),
        gives_way=gives_way,
    )


def _share_begins(first_height: int, deadline_height: int | None) -> int:
    """Return from when on a step of a way out hurries: from its share of blocks on.

    It could have begun long before, and is not the dearer for that.
    """
    if deadline_height is None:
        return first_height
    return max(first_height, deadline_height - BLOCKS_PER_TX)


def budget_left_sat(holding: InHand, chain: KnownChain) -> int:
    """Return what children of a way out may still cost: what is left of half the stake."""
    budget_sat = path_budget_sat(holding.stake.amount_sat)
    return max(0, budget_sat - children_cost_sat(_purses_of_path(holding), chain))


def _purses_of_path(holding: InHand) -> Purses:
    outpoints = {step.tx.inputs[0].outpoint for step in exit_path(holding.signed)}
    outpoints.add(holding.link.setting.funding.outpoint)
    purses = holding.purses
    for outpoint in holding.purses:
        if outpoint not in outpoints:
            purses = purses.delete(outpoint)
    return purses


def _spare_anchors(holding: InHand, chain: KnownChain) -> Iterator[OutPoint]:
    """Yield the anchors of the way out that are in blocks, as far as is known unspent."""
    for step in exit_path(holding.signed):
        anchor = anchor_of(step.tx)
        is_known = anchor is not None and step.tx.txid in chain.confirmed
        if anchor is not None and is_known and anchor not in chain.spends:
            yield anchor


def _height_of(chain: KnownChain, tx: Tx) -> int:
    """Return where what a transaction spends confirmed; the tip if it did not."""
    return chain.confirmed.get(tx.inputs[0].outpoint.txid, chain.height)
